"""What every room stands on: settings, errors, logging, Redis."""
