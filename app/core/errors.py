"""The errors of this project. Only `api/errors.py` maps them to HTTP statuses."""

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


class VideoMomentsError(Exception):
    """Base of every expected failure; its text is one sentence that a user may read."""

    sentence = ""  # where the error is raised without one

    def __init__(self, sentence: str = "") -> None:
        super().__init__(sentence or self.sentence)


class ConfigurationError(VideoMomentsError):
    """A setting that cannot work."""


class NotFound(VideoMomentsError):
    """The named object does not exist."""


def require_found(found: T | None, not_found: type[NotFound]) -> T:
    """Return `found`. Raises the error if it is None."""
    if found is None:
        raise not_found
    return found


class VideoNotFound(NotFound):
    def __init__(self, identifier: str | None = None) -> None:
        super().__init__("Video not found" if identifier is None else f"Video not found: {identifier}")


class TranscriptNotFound(NotFound):
    sentence = "Transcript not found for this video"


class ThumbnailNotFound(NotFound):
    sentence = "Thumbnail not found"


class MomentNotFound(NotFound):
    sentence = "Moment not found"


class ClipNotFound(NotFound):
    sentence = "Clip not found"


class RunNotFound(NotFound):
    sentence = "Run not found"


class PromptNotFound(NotFound):
    sentence = "Prompt not found"


class GenerationConfigNotFound(NotFound):
    sentence = "Generation config not found"


class ModelNotFound(NotFound):
    def __init__(self, key: str, others: Iterable[str]) -> None:
        super().__init__(f"Model {key} not found; there are: {', '.join(others) or 'none'}")


class FileMissing(NotFound):
    """A stored file is missing or outside of what may be read; the text is the same for both."""

    sentence = "File not found"


class InvalidInput(VideoMomentsError):
    """A well-formed value that cannot be accepted."""


class InvalidMoment(VideoMomentsError):
    """A moment that breaks one of the rules for moments."""


class Conflict(VideoMomentsError):
    """The request contradicts what is stored."""


class VideoDeletedMeanwhile(Conflict):
    """The video was deleted during its upload."""

    sentence = "A video with this id was deleted at the same time, send this one again"


class PipelineActive(VideoMomentsError):
    """The video has an active run and cannot be deleted."""

    def __init__(self, status: str) -> None:
        super().__init__(
            f"Cannot delete video while pipeline is active (status: {status}). Use force=true to delete anyway."
        )


class SizeLimitExceeded(VideoMomentsError):
    """A body or file has more bytes than a limit allows."""


class PromptHashCollision(Conflict):
    sentence = "Another prompt has the same text when its two parts are joined"


class DatabaseUnavailable(VideoMomentsError):
    """PostgreSQL cannot answer now; the same request may succeed later."""


class DatabaseUnreachable(DatabaseUnavailable):
    """No connection to PostgreSQL can be opened, and none is open."""


class RedisUnavailable(VideoMomentsError):
    """Redis does not answer or refuses a command; the same request may succeed later."""

    sentence = "Redis is not available"


class StorageUnavailable(VideoMomentsError):
    """The media store does not answer; the same request may succeed later."""


class StorageFull(VideoMomentsError):
    """There is no room for another file."""


class DatabaseAhead(VideoMomentsError):
    """The database was migrated by a newer version of this code."""


class AlreadyRunning(Conflict):
    """A conflicting run of the video is active."""


class NoMatchingRun(VideoMomentsError):
    """There is no run to cancel, or none to retry."""


class RunInputMissing(VideoMomentsError):
    """A run cannot start: the video, transcript, moments or clip that it needs do not exist yet."""


class TooManyFollowers(VideoMomentsError):
    """The limit of clients that follow runs is reached."""

    sentence = "Too many clients follow runs, ask for the status instead"


class ModelNotConfigured(VideoMomentsError):
    """The AI model that a run names is not in the registry of models."""

    def __init__(self, key: str, others: Iterable[str]) -> None:
        super().__init__(f"Model '{key}' is not configured; there are: {', '.join(others) or 'none'}")


class ModelUnsuitable(InvalidInput):
    """The AI model that a run names is of another kind, such as a transcriber to find moments."""

    def __init__(self, key: str, kind: str, purpose: str) -> None:
        super().__init__(f"Model '{key}' is of the kind {kind} and cannot {purpose}")


class AddressRefused(InvalidInput):
    """A URL is malformed, or may lead to a private address."""


class StageFailed(VideoMomentsError):
    """A stage failed, and a retry would not help."""


class RunLost(StageFailed):
    """The run was claimed by another worker or deleted: nothing may be written for it."""

    sentence = "The run is not this worker's any more"


class VideoDeleted(RunLost):
    """The video of the run was deleted, and the run with it."""

    sentence = "The video was deleted"


class TransientFailure(StageFailed):
    """A stage failed, and a retry may help."""


class ModelMissing(StageFailed):
    """The files of a local model are missing or corrupt; the text says how to get them."""


class ModelAnswerInvalid(StageFailed):
    """A model's answer cannot be used; `raw` is the answer."""

    def __init__(self, reason: str, raw: str) -> None:
        super().__init__(reason)
        self.raw = raw
