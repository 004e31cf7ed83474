"""The importer: a library of the previous backend, which kept its state in files, into the tables."""

from app.importer.importing import ImportOptions, Progress, import_library
from app.importer.layout import NoLibrary
from app.importer.report import Entry, Kind, Report

__all__ = ["Entry", "ImportOptions", "Kind", "NoLibrary", "Progress", "Report", "import_library"]
