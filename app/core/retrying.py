"""Retries of failed calls within this process, on tenacity. What outlives a process is retried from its rows."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, retry_if_exception_type, stop_never
from tenacity.stop import StopBaseT
from tenacity.wait import WaitBaseT

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which errors of a call are retried, after which waits in seconds, and when the last error is raised instead."""

    errors: type[Exception] | tuple[type[Exception], ...] | Callable[[BaseException], bool]
    wait: WaitBaseT
    stop: StopBaseT = stop_never


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call that is retried: its error, its number, counted from 1, and the seconds before the next one."""

    error: Exception
    number: int
    wait: float


async def call_with_retries(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    before_wait: Callable[[FailedCall], Awaitable[None] | None] | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
) -> T:
    """Await `call`, and again as the policy says. Raises its last error, and at once one that is not retried.

    `before_wait` is called, and awaited where it is asynchronous, before each wait. What it or `sleep` raises ends the
    retries, as a cancellation does.
    """

    async def await_call() -> T:
        return await call()  # tenacity awaits coroutine functions only, no lambda or partial

    async def report_failed_call(state: RetryCallState) -> None:
        result = before_wait and before_wait(_make_failed_call(state))
        if isawaitable(result):
            await result

    return await AsyncRetrying(
        sleep=sleep or asyncio.sleep, before_sleep=report_failed_call, **_make_tenacity_options(policy)
    )(await_call)


def call_blocking_with_retries(
    call: Callable[[], T], policy: RetryPolicy, *, before_wait: Callable[[FailedCall], None] | None = None
) -> T:

    def report_failed_call(state: RetryCallState) -> None:
        if before_wait is not None:
            before_wait(_make_failed_call(state))

    return Retrying(sleep=time.sleep, before_sleep=report_failed_call, **_make_tenacity_options(policy))(call)


def _make_tenacity_options(policy: RetryPolicy) -> dict[str, Any]:
    errors = policy.errors
    retry = retry_if_exception_type(errors) if isinstance(errors, type | tuple) else retry_if_exception(errors)
    return {"retry": retry, "wait": policy.wait, "stop": policy.stop, "reraise": True}


def _make_failed_call(state: RetryCallState) -> FailedCall:
    error = state.outcome and state.outcome.exception()
    assert isinstance(error, Exception)  # noqa: S101  nothing else is retried
    return FailedCall(error, state.attempt_number, state.upcoming_sleep)
