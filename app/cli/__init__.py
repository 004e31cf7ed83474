"""The commands of `python -m app`: their arguments, what they print, and their exit statuses."""
