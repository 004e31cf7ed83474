"""How often and how long: the times that runs and their workers live by, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """A run whose worker died is noticed after `stale` and begun by another one within `sweep` of that."""

    heartbeat: float = 5.0  # between two signs of life of a run in PostgreSQL
    stale: float = 30.0  # without one, and the run waits for another worker
    lease: float = 15.0  # of a run and of its place at a resource, in Redis
    pulse: float = 0.5  # between two looks at whether a run is to be cancelled; its live status is as old at most
    sweep: float = 5.0  # between two looks for runs that wait
    ring_again: float = 30.0  # for a run that still waits
    grace: float = 7.0  # for what works on a run, and then for what remains to be written, when they are to end


USUAL_PACE = Pace()
