"""Calls that are one of several for one answer: each is tried again itself, so that the others are not paid twice."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.core.errors import TransientFailure

T = TypeVar("T")

_log = logging.getLogger(__name__)

_PAUSES = (2.0, 8.0)  # seconds


async def try_thrice(call: Callable[[], Awaitable[T]]) -> T:
    """Return what `call` does, made again after a `TransientFailure`; the third one is raised."""
    for pause in _PAUSES:
        try:
            return await call()
        except TransientFailure as failure:
            _log.warning("Tried again in %g s: %s", pause, failure)
        await asyncio.sleep(pause)
    return await call()
