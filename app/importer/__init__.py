"""The importer: a library of the previous backend, which kept its state in files, into the tables."""

from app.importer.importing import ImportOptions, ImportProgress, import_library
from app.importer.legacy_files import NoLibrary
from app.importer.report import Entry, Kind, Report

__all__ = ["Entry", "ImportOptions", "ImportProgress", "Kind", "NoLibrary", "Report", "import_library"]
