"""What can go wrong, by name. Only `api/errors.py` knows which HTTP status each one gets."""

from collections.abc import Iterable


class VideoMomentsError(Exception):
    """Base of every expected failure; its text is one sentence that a user may read."""


class ConfigurationError(VideoMomentsError):
    """A setting that cannot work."""


class NotFound(VideoMomentsError):
    """Something that was named does not exist."""


class VideoNotFound(NotFound):
    def __init__(self, identifier: str | None = None) -> None:
        super().__init__("Video not found" if identifier is None else f"Video not found: {identifier}")


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


class RunNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Run not found")


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


class DeletedMeanwhile(Conflict):
    """A video that somebody deleted while somebody else sent it."""

    def __init__(self) -> None:
        super().__init__("A video with this id was deleted at the same time, send this one again")


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


class DatabaseUnreachable(DatabaseUnavailable):
    """No connection to PostgreSQL can be opened, and none is open."""


class RedisUnavailable(VideoMomentsError):
    """Redis does not answer, or refuses to; the same request may succeed later."""

    def __init__(self, reason: str = "Redis is not available") -> None:
        super().__init__(reason)


class StorageUnavailable(VideoMomentsError):
    """The place where media is kept cannot answer now; the same request may succeed later."""


class StorageFull(VideoMomentsError):
    """There is no room for another file."""


class DatabaseAhead(VideoMomentsError):
    """The database was migrated by a newer version of this code."""


class AlreadyRunning(Conflict):
    """A run of the same kind works on the video, or one that would be in its way."""


class NothingRuns(VideoMomentsError):
    """A run that is to be cancelled or retried and is not there."""


class Precondition(VideoMomentsError):
    """What a run needs is not there yet."""


class TooManyFollowers(VideoMomentsError):
    """As many clients follow runs as this server has room for."""

    def __init__(self) -> None:
        super().__init__("Too many clients follow runs, ask for the status instead")


class ModelNotConfigured(VideoMomentsError):
    """A run names a model that the registry does not have."""

    def __init__(self, key: str, others: Iterable[str]) -> None:
        super().__init__(f"Model '{key}' is not configured; there are: {', '.join(others) or 'none'}")


class ModelUnsuitable(InvalidInput):
    """A run names a model that does something else."""

    def __init__(self, key: str, kind: str, purpose: str) -> None:
        super().__init__(f"Model '{key}' is of the kind {kind} and cannot {purpose}")


class AddressRefused(InvalidInput):
    """A URL that leads, or may lead, to a machine that is not public."""


class StageFailed(VideoMomentsError):
    """A stage of a run cannot be done, and trying again would not help."""


class RunLost(StageFailed):
    """A run is in the hands of another worker, or gone, and nothing may be written for it any more."""

    def __init__(self) -> None:
        super().__init__("The run is not this worker's any more")


class VideoDeleted(RunLost):
    """A run over a video that is gone, and the run with it."""

    def __init__(self) -> None:
        StageFailed.__init__(self, "The video was deleted")


class TransientFailure(StageFailed):
    """A stage of a run could not be done, and trying again may help."""


class ModelMissing(StageFailed):
    """The files of a local model are not there, or are not those they should be; the text says how to get them."""


class ModelAnswerInvalid(StageFailed):
    """A model has answered with what cannot be used; `raw` is what it answered."""

    def __init__(self, reason: str, raw: str) -> None:
        super().__init__(reason)
        self.raw = raw
