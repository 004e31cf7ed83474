"""The times that workers keep, in seconds."""

from dataclasses import dataclass

from app.models.stages import STALLED_AFTER


@dataclass(frozen=True, slots=True)
class WorkerTimings:
    """A stage whose worker died is stalled after `stalled_after`, and is offered to another within `poll_interval`."""

    heartbeat_interval: float = 5.0  # between two heartbeats of a worker's stages in PostgreSQL
    stalled_after: float = STALLED_AFTER
    status_interval: float = 0.5  # between two polls for cancelled stages; the live status is as old at most
    poll_interval: float = 5.0  # between two polls for stages that wait; whole seconds, at least one
    notify_again_after: float = 30.0  # for a stage that still waits
    cleaning_interval: float = 600.0  # between two cleanups of what is left over
    drain_timeout: float = 2.0  # for the stages to be done, when the worker is to end
    shutdown_timeout: float = 6.0  # after that, for them to stop and for what remains to be written


DEFAULT_TIMINGS = WorkerTimings()
