"""Chat completion services over real connections: requests, refusals, waits, limits and answers."""

import asyncio
from typing import Any

import httpx
import pytest

from app.core.errors import ModelAnswerInvalid, StageFailed, TransientFailure
from tests.ai.chat_finders import REQUEST, Finders, moments, nothing
from tests.ai.model_server import ModelServer, Received, Reply


async def test_a_server_that_refuses_a_schema_is_asked_without_one_from_then_on(
    finders: Finders, server: ModelServer
) -> None:
    server.refuses_schema = True
    for _ in range(2):
        await finders.make().find(REQUEST, nothing)
    assert ["response_format" in request.body for request in server.requests] == [True, False, False]


async def test_a_request_that_is_wrong_with_and_without_a_schema_is_reported_in_the_servers_words(
    finders: Finders, server: ModelServer
) -> None:
    server.answer(Reply(status=400, body={"error": {"message": "context\nlength exceeded for sk-secret"}}))
    with pytest.raises(StageFailed, match=r"^Mine answered 400: context length exceeded for …$") as caught:
        await finders.make(api_key="sk-secret").find(REQUEST, nothing)
    assert not isinstance(caught.value, TransientFailure)
    with_schema = ["response_format" in request.body for request in server.requests]
    assert with_schema == [True, False]


async def test_what_a_server_refuses_by_name_is_left_out_and_stays_so(finders: Finders, server: ModelServer) -> None:
    def fussy(received: Received) -> Reply | str:
        if "max_tokens" in received.body:
            return Reply(status=400, body={"error": {"message": "Use 'max_completion_tokens' instead."}})
        if "temperature" in received.body:
            return Reply(status=400, body={"error": {"message": "'temperature' does not support 0.7."}})
        return moments((20, 50))

    server.answer(fussy)
    for _ in range(2):
        assert len((await finders.make().find(REQUEST, nothing)).moments) == 1
    assert len(server.requests) == 4
    last = server.requests[-1].body
    assert (last["max_completion_tokens"], "response_format" in last) == (15000, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "no key"}, ": no key"),
        ({"detail": [{"msg": "no key"}]}, ": no key"),
        ({"message": "no key"}, ": no key"),
        ({"error": {"code": 401}}, ""),
        (b"<html>no key</html>", ""),
        ({"error": "x" * 1000}, ": " + "x" * 300),
    ],
)
async def test_a_refusal_is_reported_and_not_tried_again(
    finders: Finders, server: ModelServer, body: Any, message: str
) -> None:
    server.answer(Reply(status=401, body=body))
    with pytest.raises(StageFailed) as caught:
        await finders.make().find(REQUEST, nothing)
    assert str(caught.value) == f"Mine answered 401{message}"
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [Reply(status=status) for status in (429, 500, 502, 503, 504)] + [Reply(cut=True)])
async def test_what_may_pass_is_a_transient_failure(finders: Finders, server: ModelServer, reply: Reply) -> None:
    server.answer(reply)
    with pytest.raises(TransientFailure, match=r"^Mine "):
        await finders.make().find(REQUEST, nothing)


async def test_a_server_that_is_not_there_is_a_transient_failure_without_its_address(
    client: httpx.AsyncClient,
) -> None:
    with pytest.raises(TransientFailure, match=r"^Mine cannot be reached: it takes no connection$"):
        await Finders(client, "http://127.0.0.1:1").make().find(REQUEST, nothing)


async def test_a_server_that_asks_to_wait_is_given_its_time(finders: Finders, server: ModelServer) -> None:
    server.script([Reply(status=429, headers={"Retry-After": "0"})] * 2)
    server.answer(moments((20, 50)))
    assert len((await finders.make().find(REQUEST, nothing)).moments) == 1
    assert len(server.requests) == 3


@pytest.mark.parametrize(("header", "calls"), [("0", 4), ("3600", 1), ("soon", 1)])
async def test_waiting_has_a_bound(finders: Finders, server: ModelServer, header: str, calls: int) -> None:
    server.answer(Reply(status=429, headers={"Retry-After": header}))
    with pytest.raises(TransientFailure):
        await finders.make().find(REQUEST, nothing)
    assert len(server.requests) == calls


async def test_an_answer_without_end_is_not_read_to_it(
    finders: Finders, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ai.service._MAX_RESPONSE_BYTES", 100_000)
    server.answer("x" * 200_000)
    with pytest.raises(StageFailed, match="more than 100000 bytes"):
        await finders.make().find(REQUEST, nothing)


async def test_a_server_that_never_answers_is_given_up(
    finders: Finders, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ai.completions._REQUEST_TIMEOUT_SECONDS", 0.2)
    server.answer(Reply(never=True))
    with pytest.raises(TransientFailure, match="did not answer within"):
        await finders.make().find(REQUEST, nothing)


async def test_a_call_that_is_cancelled_closes_its_connection_at_once(finders: Finders, server: ModelServer) -> None:
    server.answer(Reply(never=True))
    call = asyncio.create_task(finders.make().find(REQUEST, nothing))
    assert await asyncio.to_thread(server.waiting.wait, 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await asyncio.to_thread(server.dropped.wait, 10)


@pytest.mark.parametrize("body", [b"<html>", {}, {"choices": []}, {"choices": [{"text": "x"}]}, [], None])
async def test_what_is_no_chat_completion_is_kept_as_it_came(finders: Finders, server: ModelServer, body: Any) -> None:
    server.answer(Reply(body=body if body is not None else b"null"))
    with pytest.raises(ModelAnswerInvalid) as caught:
        await finders.make().find(REQUEST, nothing)
    assert caught.value.raw


async def test_a_text_in_parts_and_a_model_without_a_name_are_understood(finders: Finders, server: ModelServer) -> None:
    parts = [{"type": "text", "text": moments((20, 50))[:9]}, {"type": "text", "text": moments((20, 50))[9:]}]
    server.answer(Reply(body={"choices": [{"message": {"content": parts}}], "usage": {"prompt_tokens": "many"}}))
    found = await finders.make(model_id="big").find(REQUEST, nothing)
    assert (len(found.moments), found.model, found.usage.prompt_tokens) == (1, "big", 0)


async def test_an_answer_that_a_server_takes_for_a_thought_is_read(finders: Finders, server: ModelServer) -> None:
    message = {"content": None, "reasoning_content": f"Let me see. {moments((20, 50))}"}
    server.answer(Reply(body={"choices": [{"message": message}]}))
    assert len((await finders.make().find(REQUEST, nothing)).moments) == 1
