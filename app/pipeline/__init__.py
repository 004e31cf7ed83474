"""A run over a video: its stages, one after the other."""
