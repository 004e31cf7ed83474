"""The importer: a library of the previous backend, which kept its state in files, into the tables."""
