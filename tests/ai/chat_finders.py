"""Moment finders over a chat completion service, and the requests that they are tested with."""

import json
from typing import Any

import httpx

from app.ai.chat import ChatMomentFinder
from app.ai.completions import ChatClient, ProviderOptions
from app.ai.protocols import FindRequest, FoundMoment, RefineRequest, Segment, Word
from app.ai.registry import ModelConfig
from app.ai.service import ModelServiceClient

TALK = [Segment(f"Sentence {n}.", n * 10.0, n * 10.0 + 9) for n in range(30)]
REQUEST = FindRequest(TALK, (), 300.0, 20.0, 60.0, 1, 5)
WORDS = [Word(f"word{n}", 80.0 + n, 80.9 + n) for n in range(90)]
REFINE = RefineRequest(FoundMoment(110.0, 140.0, "One"), WORDS, 80.0, 169.9, 300.0)


def nothing(done: float) -> None:
    pass


def moments(*times: tuple[float, float]) -> str:
    return json.dumps([{"start_time": s, "end_time": e, "title": f"From {s}"} for s, e in times])


class Finders:
    """Makes finders that share an HTTP client and the known request options."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._options: dict[str, ProviderOptions] = {}

    def make(self, key: str = "mine", path: str = "", **fields: Any) -> ChatMomentFinder:
        config = ModelConfig("Mine", self._url + path, **fields)
        return ChatMomentFinder(key, config, ChatClient(ModelServiceClient(self._client, key, config), self._options))
