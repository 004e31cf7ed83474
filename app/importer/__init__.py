"""The importer: a library of the previous backend, which kept its state in files, into the tables."""

from app.importer.importing import ImportOptions, ImportProgress, import_library
from app.importer.legacy_files import NotALibrary
from app.importer.report import EntryKind, ImportReport, ReportEntry

__all__ = [
    "EntryKind",
    "ImportOptions",
    "ImportProgress",
    "ImportReport",
    "NotALibrary",
    "ReportEntry",
    "import_library",
]
