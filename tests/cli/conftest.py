"""A library of the previous backend, to import."""

from tests.importer.conftest import importer, legacy

__all__ = ["importer", "legacy"]
