"""Retry policies of the code under test, without their waits."""

import pkgutil
from dataclasses import replace

import pytest
from tenacity import stop_after_attempt, wait_none

from app.core.retrying import RetryPolicy


def remove_waits(monkeypatch: pytest.MonkeyPatch, name: str, calls: int | None = None) -> None:
    """Let the policy of a name, `module.CONSTANT`, retry without waits, and with `calls` no more than so many calls."""
    policy: RetryPolicy = pkgutil.resolve_name(name)
    stop = policy.stop if calls is None else stop_after_attempt(calls)
    monkeypatch.setattr(name, replace(policy, wait=wait_none(), stop=stop))
