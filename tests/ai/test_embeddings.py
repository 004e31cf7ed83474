"""Vectors by a service that speaks `/v1/embeddings`."""

from typing import Any

import httpx
import pytest

from app.ai.embeddings import OpenAIEmbedder
from app.ai.registry import ModelConfig, ModelKind
from app.ai.service import ModelServiceClient
from app.core.errors import ModelAnswerInvalid, StageFailed, TransientFailure
from tests.ai.model_server import ModelServer, Reply
from tests.retries import remove_waits


@pytest.fixture
def embedder(client: httpx.AsyncClient, server: ModelServer) -> OpenAIEmbedder:
    config = ModelConfig("Vectors", server.url, model_id="bge-m3", kind=ModelKind.EMBEDDING, api_key="sk-1")
    return OpenAIEmbedder(ModelServiceClient(client, "vectors", config))


async def test_each_text_gets_its_vector_whatever_their_order_in_the_answer(
    embedder: OpenAIEmbedder, server: ModelServer
) -> None:
    server.embed(lambda text: [float(len(text)), 1.0])
    assert await embedder.embed(["a", "bb", "ccc"]) == [[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]
    (request,) = server.requests
    assert request.path == "/v1/embeddings"
    assert request.body == {"input": ["a", "bb", "ccc"], "encoding_format": "float", "model": "bge-m3"}
    assert request.headers["authorization"] == "Bearer sk-1"


async def test_many_texts_are_sent_in_several_calls(embedder: OpenAIEmbedder, server: ModelServer) -> None:
    server.embed(lambda text: [float(text)])
    assert await embedder.embed([str(number) for number in range(150)], at_once=3) == [
        [number] for number in range(150)
    ]
    assert sorted(len(request.body["input"]) for request in server.requests) == [22, 64, 64]


async def test_no_texts_need_no_call(embedder: OpenAIEmbedder, server: ModelServer) -> None:
    assert await embedder.embed([]) == []
    assert server.requests == []


def test_vectors_are_named_by_the_key_and_the_model(embedder: OpenAIEmbedder) -> None:
    assert embedder.name == "vectors/bge-m3"


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"data": []},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 1, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": ["x"]}]},
        {"data": [{"index": 0, "embedding": [1.0] * 16_001}]},
        {"data": {"index": 0}},
    ],
)
async def test_an_answer_without_a_vector_for_each_text_is_refused(
    embedder: OpenAIEmbedder, server: ModelServer, answer: Any
) -> None:
    server.transcript(answer)
    with pytest.raises(ModelAnswerInvalid, match="Vectors did not answer with a vector for each text"):
        await embedder.embed(["a"])


async def test_numbers_that_are_none_are_refused(embedder: OpenAIEmbedder, server: ModelServer) -> None:
    server.transcript(Reply(body=b'{"data": [{"index": 0, "embedding": [NaN]}]}'))
    with pytest.raises(ModelAnswerInvalid):
        await embedder.embed(["a"])


async def test_vectors_of_different_lengths_are_refused(embedder: OpenAIEmbedder, server: ModelServer) -> None:
    server.embed(lambda text: [1.0] * len(text))
    with pytest.raises(ModelAnswerInvalid, match="different lengths"):
        await embedder.embed(["a", "bb"])


async def test_a_batch_of_several_is_retried(
    embedder: OpenAIEmbedder, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_waits(monkeypatch, "app.ai.service._CHUNK_POLICY")
    server.embed(lambda text: [1.0])
    server.script([Reply(status=500)])
    assert len(await embedder.embed(["a"] * 100)) == 100
    server.script([Reply(status=500)])
    with pytest.raises(TransientFailure):
        await embedder.embed(["a"])


async def test_a_refusal_is_no_reason_to_try_again(embedder: OpenAIEmbedder, server: ModelServer) -> None:
    server.script([Reply(status=401, body={"error": {"message": "Wrong key"}})])
    with pytest.raises(StageFailed, match="Vectors answered 401: Wrong key"):
        await embedder.embed(["a"] * 100)
