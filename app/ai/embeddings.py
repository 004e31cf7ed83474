"""Vectors of texts by an OpenAI-compatible service: `/v1/embeddings`."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from app.ai.protocols import Usage
from app.ai.service import ModelServiceClient, make_openai_api_path, retry_transient_failures
from app.core.errors import ModelAnswerInvalid

_TEXTS_IN_CALL = 64
_TIMEOUT_SECONDS = 60.0
_MAX_NAME_LENGTH = 200
_MAX_DIMENSIONS = 16_000  # of pgvector's halfvec


class _Embedding(BaseModel):
    index: Annotated[int, Field(ge=0)]
    embedding: Annotated[list[FiniteFloat], Field(min_length=1, max_length=_MAX_DIMENSIONS)]


class _EmbeddingsAnswer(BaseModel):
    data: list[_Embedding]


class OpenAIEmbedder:
    """Calls `/v1/embeddings` with up to 64 texts at a time."""

    def __init__(self, service: ModelServiceClient) -> None:
        self._service = service
        self._config = service.config

    @property
    def name(self) -> str:
        return f"{self._service.key}/{self._config.model_id or self._config.name}"[:_MAX_NAME_LENGTH]

    async def embed(self, texts: Sequence[str], *, at_once: int = 1) -> list[list[float]]:
        batches = [texts[first : first + _TEXTS_IN_CALL] for first in range(0, len(texts), _TEXTS_IN_CALL)]
        slots = asyncio.Semaphore(at_once)

        async def embed_batch(batch: Sequence[str]) -> list[list[float]]:
            async with slots:
                call = partial(self._embed_batch, batch)
                return await (retry_transient_failures(call) if len(batches) > 1 else call())

        vectors = [vector for batch in await asyncio.gather(*map(embed_batch, batches)) for vector in batch]
        if len(set(map(len, vectors))) > 1:
            raise ModelAnswerInvalid(f"{self._config.name} answered with vectors of different lengths", "")
        return vectors

    async def _embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        model = {"model": self._config.model_id} if self._config.model_id else {}
        async with self._service.log_call("embed") as call:
            answer = await self._service.post(
                make_openai_api_path(self._config, "/embeddings"),
                _TIMEOUT_SECONDS,
                json={"input": list(texts), "encoding_format": "float", **model},
            )
            vectors = await asyncio.to_thread(self._parse_answer, answer, len(texts))
            call.usage = Usage(prompt_tokens=_parse_prompt_tokens(answer))
        return vectors

    def _parse_answer(self, answer: Any, count: int) -> list[list[float]]:
        try:
            items = _EmbeddingsAnswer.model_validate(answer).data
        except ValidationError:
            items = []
        vectors = {item.index: item.embedding for item in items}
        if sorted(vectors) != list(range(count)):
            raise ModelAnswerInvalid(f"{self._config.name} did not answer with a vector for each text", "")
        return [vectors[index] for index in range(count)]


def _parse_prompt_tokens(answer: Any) -> int:
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and 0 <= tokens < 2**31 else 0
