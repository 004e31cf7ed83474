"""Foundations of all packages: settings, errors, logging, Redis."""
