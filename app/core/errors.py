"""What can go wrong, by name. Only `api/errors.py` knows which HTTP status each one gets."""

from collections.abc import Iterable


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


class MomentNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Moment not found")


class ClipNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Clip not found")


class PromptNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Prompt not found")


class GenerationConfigNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Generation config not found")


class ModelNotFound(NotFound):
    def __init__(self, key: str, others: Iterable[str]) -> None:
        super().__init__(f"Model {key} not found; there are: {', '.join(others) or 'none'}")


class FileMissing(NotFound):
    """A stored file is gone, or lies where this server may not look: both are told in the same words."""

    def __init__(self) -> None:
        super().__init__("File not found")


class InvalidInput(VideoMomentsError):
    """A value that has the right form and cannot be accepted."""


class InvalidMoment(VideoMomentsError):
    """A moment that breaks one of the rules for moments."""


class Conflict(VideoMomentsError):
    """What was asked for contradicts what is stored."""


class PipelineActive(VideoMomentsError):
    """A video that cannot be deleted because a run works on it."""

    def __init__(self, status: str) -> None:
        super().__init__(
            f"Cannot delete video while pipeline is active (status: {status}). Use force=true to delete anyway."
        )


class TooLarge(VideoMomentsError):
    """More bytes than a limit allows."""


class PromptHashCollision(Conflict):
    def __init__(self) -> None:
        super().__init__("Another prompt has the same text when its two parts are joined")


class DatabaseUnavailable(VideoMomentsError):
    """PostgreSQL cannot answer now; the same request may succeed later."""


class RedisUnavailable(VideoMomentsError):
    """Redis cannot answer now; the same request may succeed later."""

    def __init__(self) -> None:
        super().__init__("Redis is not available")


class StorageUnavailable(VideoMomentsError):
    """The place where media is kept cannot answer now; the same request may succeed later."""


class StorageFull(VideoMomentsError):
    """There is no room for another file."""


class DatabaseAhead(VideoMomentsError):
    """The database was migrated by a newer version of this code."""
