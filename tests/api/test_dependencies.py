"""What endpoints ask for."""

from collections.abc import Iterator
from inspect import isasyncgenfunction, iscoroutinefunction

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from tests.api.test_access import walk


def calls(dependant: Dependant) -> Iterator[object]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from calls(each)


def test_nothing_is_called_in_a_thread_which_takes_longer_than_most_calls(app: FastAPI) -> None:
    called = {
        f"{route.path}: {call}": iscoroutinefunction(call) or isasyncgenfunction(call)
        for route in walk(app.routes)
        if isinstance(route, APIRoute)
        for call in calls(route.dependant)
    }
    assert len(called) > 50
    assert [name for name, is_async in called.items() if not is_async] == []
