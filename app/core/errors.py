"""What can go wrong, by name. Only `api/errors.py` knows which HTTP status each one gets."""


class VideoMomentsError(Exception):
    """Base of every expected failure; its text is one sentence that a user may read."""


class ConfigurationError(VideoMomentsError):
    """A setting that cannot work."""


class NotFound(VideoMomentsError):
    """Something that was named does not exist."""


class VideoNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Video not found")


class TranscriptNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Transcript not found for this video")


class ThumbnailNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Thumbnail not found")


class InvalidInput(VideoMomentsError):
    """A value that has the right form and cannot be accepted."""


class InvalidMoment(VideoMomentsError):
    """A moment that breaks one of the rules for moments."""


class Conflict(VideoMomentsError):
    """What was asked for contradicts what is stored."""


class PromptHashCollision(Conflict):
    def __init__(self) -> None:
        super().__init__("Another prompt has the same text when its two parts are joined")


class DatabaseUnavailable(VideoMomentsError):
    """PostgreSQL cannot answer now; the same request may succeed later."""


class DatabaseAhead(VideoMomentsError):
    """The database was migrated by a newer version of this code."""
