"""The live state of one video in Redis: its run, its lock, its cancellation, its history and its jobs."""

import re

from redis.asyncio import Redis

from app.services.live_runs import run_status_key

_OF_VIDEO = ("active", "lock", "cancel", "history")
_RUN = "pipeline:run:"
_JOB = "job:"
# The one job whose key ends in something else than the video: the moment it refines.
_OF_MOMENT = "moment_refinement"
_SCANNED_AT_ONCE = 1000
# What follows the video in a run's key: when the run was accepted.
_MILLISECONDS = re.compile(r"\d+", re.ASCII)


async def delete_video_keys(redis: Redis, identifier: str, runs: list[str]) -> int:
    """Delete the video's keys, and no other's whose name begins alike; return how many there were."""
    active, _, _, history = named = [f"pipeline:{identifier}:{name}" for name in _OF_VIDEO]
    known = {*runs, *await redis.zrange(history, 0, -1), await redis.hget(active, "request_id")} - {None}
    keys = {*named, *map(run_status_key, known)}
    own_runs = f"{_RUN}pipeline:{identifier}:"
    async for key in redis.scan_iter(f"{_escape(own_runs)}*", _SCANNED_AT_ONCE):
        if _MILLISECONDS.fullmatch(key.removeprefix(own_runs)):
            keys.add(key)
    async for key in redis.scan_iter(f"{_JOB}*:{_escape(identifier)}*", _SCANNED_AT_ONCE):
        if _is_job_of(key, identifier):
            keys.add(key)
    return int(await redis.unlink(*keys))


def _is_job_of(key: str, identifier: str) -> bool:
    """Whether the key is `job:{type}:{video}`, or `job:moment_refinement:{video}:{moment}`."""
    kind, _, rest = key.removeprefix(_JOB).partition(":")
    return (rest.rpartition(":")[0] if kind == _OF_MOMENT else rest) == identifier


def _escape(text: str) -> str:
    r"""Escape what a pattern of Redis takes for more than itself: `*`, `?`, `[`, `]` and the backslash."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
