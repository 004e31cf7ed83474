"""VideoMoments: the backend that keeps videos, their transcripts and their best moments."""

__version__ = "2.0.0"
