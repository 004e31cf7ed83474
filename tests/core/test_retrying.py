import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from tenacity import stop_after_attempt, stop_before_delay, wait_exponential, wait_none

from app.core.retrying import FailedCall, RetryPolicy, call_blocking_with_retries, call_with_retries

THREE_CALLS = RetryPolicy(ConnectionError, wait_none(), stop_after_attempt(3))


@dataclass
class FailingCall:
    errors: list[Exception]
    calls: int = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def call_async(self) -> str:
        return self()


@dataclass
class RecordedWaits:
    seconds: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def test_a_failed_call_is_repeated_until_it_succeeds() -> None:
    call = FailingCall([ConnectionError(), ConnectionError()])
    assert await call_with_retries(lambda: call.call_async(), THREE_CALLS) == "done"
    assert call.calls == 3


async def test_the_last_error_is_raised() -> None:
    last = ConnectionError("third")
    call = FailingCall([ConnectionError(), ConnectionError(), last])
    with pytest.raises(ConnectionError) as caught:
        await call_with_retries(call.call_async, THREE_CALLS)
    assert caught.value is last


@pytest.mark.parametrize("errors", [ConnectionError, lambda error: isinstance(error, ConnectionError)])
async def test_other_errors_are_raised_at_once(errors: Callable[[BaseException], bool]) -> None:
    call = FailingCall([ConnectionError(), PermissionError()])
    with pytest.raises(PermissionError):
        await call_with_retries(call.call_async, RetryPolicy(errors, wait_none()))
    assert call.calls == 2


async def test_waits_are_those_of_the_policy_and_are_reported_before_they_begin() -> None:
    errors: list[Exception] = [ConnectionError(), ConnectionError(), ConnectionError()]
    waits, reported = RecordedWaits(), list[FailedCall]()
    policy = RetryPolicy(ConnectionError, wait_exponential(multiplier=0.5, max=1.5))
    await call_with_retries(
        FailingCall(list(errors)).call_async, policy, before_wait=reported.append, sleep=waits.sleep
    )
    assert waits.seconds == [0.5, 1.0, 1.5]
    assert reported == [FailedCall(errors[0], 1, 0.5), FailedCall(errors[1], 2, 1.0), FailedCall(errors[2], 3, 1.5)]


async def test_no_wait_begins_that_would_end_after_the_deadline() -> None:
    call, waits = FailingCall([ConnectionError("late")]), RecordedWaits()
    with pytest.raises(ConnectionError):
        await call_with_retries(
            call.call_async,
            RetryPolicy(ConnectionError, wait_exponential(60), stop_before_delay(30)),
            sleep=waits.sleep,
        )
    assert waits.seconds == []


async def test_an_asynchronous_report_ends_the_retries_with_its_error() -> None:
    call = FailingCall([ConnectionError()])

    async def refuse(_: FailedCall) -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        await call_with_retries(call.call_async, THREE_CALLS, before_wait=refuse)
    assert call.calls == 1


async def test_a_cancellation_ends_a_wait_at_once() -> None:
    waiting = asyncio.Event()
    call = FailingCall([ConnectionError()])
    policy = RetryPolicy(ConnectionError, wait_exponential(3600))
    task = asyncio.create_task(call_with_retries(call.call_async, policy, before_wait=lambda _: waiting.set()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.calls == 1


async def test_calls_at_the_same_time_share_a_policy_but_no_state() -> None:
    calls = [FailingCall([ConnectionError()] * failures) for failures in (0, 1, 2, 3)]
    results = await asyncio.gather(
        *(call_with_retries(call.call_async, THREE_CALLS) for call in calls), return_exceptions=True
    )
    assert results[:3] == ["done"] * 3
    assert isinstance(results[3], ConnectionError)
    assert [call.calls for call in calls] == [1, 2, 3, 3]


def test_a_blocking_call_is_repeated_too() -> None:
    call, reported = FailingCall([ConnectionError()]), list[FailedCall]()
    assert call_blocking_with_retries(call, THREE_CALLS, before_wait=reported.append) == "done"
    assert [failed.number for failed in reported] == [1]
