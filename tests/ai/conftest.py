from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from app.ai.service import open_http_client
from tests.ai.chat_finders import Finders
from tests.ai.model_server import ModelServer


@pytest.fixture(scope="module")
def shared() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def server(shared: ModelServer) -> ModelServer:
    shared.reset()
    return shared


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_http_client() as client:
        yield client


@pytest.fixture
def finders(client: httpx.AsyncClient, server: ModelServer) -> Finders:
    return Finders(client, server.url)
