"""A chat completion service that finds and refines moments, over real connections."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from app.ai.chat import MAX_CHUNK_CHARACTERS, ChatMomentFinder
from app.ai.completions import ChatClient, ProviderOptions
from app.ai.protocols import ClipLink, FindRequest, FoundMoment, RefineRequest, Segment, Word
from app.ai.registry import ModelConfig
from app.ai.service import ServiceClient, open_http_client
from app.core.errors import ModelAnswerInvalid, StageFailed, TransientFailure
from tests.ai.model_server import ModelServer, Received, Reply

TALK = [Segment(f"Sentence {n}.", n * 10.0, n * 10.0 + 9) for n in range(30)]
REQUEST = FindRequest(TALK, (), 300.0, 20.0, 60.0, 1, 5)
WORDS = [Word(f"word{n}", 80.0 + n, 80.9 + n) for n in range(90)]
REFINE = RefineRequest(FoundMoment(110.0, 140.0, "One"), WORDS, 80.0, 169.9, 300.0)


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


def nothing(done: float) -> None:
    pass


def moments(*times: tuple[float, float]) -> str:
    return json.dumps([{"start_time": s, "end_time": e, "title": f"From {s}"} for s, e in times])


class Finders:
    """Makes finders that share a client and what is known of servers."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._dialects: dict[str, ProviderOptions] = {}

    def make(self, key: str = "mine", path: str = "", **fields: Any) -> ChatMomentFinder:
        config = ModelConfig("Mine", self._url + path, **fields)
        return ChatMomentFinder(key, config, ChatClient(ServiceClient(self._client, key, config), self._dialects))


@pytest.fixture
def finders(client: httpx.AsyncClient, server: ModelServer) -> Finders:
    return Finders(client, server.url)


async def test_the_moments_of_an_answer_are_found(finders: Finders, server: ModelServer) -> None:
    server.answer(moments((100, 130), (20, 50)))
    found = await finders.make().find(REQUEST, nothing)
    assert list(found.moments) == [FoundMoment(20, 50, "From 20"), FoundMoment(100, 130, "From 100")]
    assert (found.model, found.raw) == ("test-model", moments((100, 130), (20, 50)))
    assert (found.usage.calls, found.usage.prompt_tokens, found.usage.completion_tokens) == (1, 100, 20)
    assert found.usage.seconds > 0


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_the_request_is_that_of_chat_completions(finders: Finders, server: ModelServer, path: str) -> None:
    await finders.make(path=path).find(replace(REQUEST, temperature=0.3), nothing)
    request = server.requests[0]
    assert request.path == "/v1/chat/completions"
    assert {name: request.body[name] for name in ("max_tokens", "temperature")} == {
        "max_tokens": 15000,
        "temperature": 0.3,
    }
    assert request.body["response_format"]["type"] == "json_schema"
    assert [message["role"] for message in request.body["messages"]] == ["user"]
    assert not {"model", "top_p", "top_k"} & request.body.keys()
    assert "authorization" not in request.headers


async def test_what_the_registry_has_is_sent(finders: Finders, server: ModelServer) -> None:
    await finders.make(model_id="big", top_p=0.95, top_k=20, api_key="sk-secret").find(REQUEST, nothing)
    request = server.requests[0]
    assert [request.body[name] for name in ("model", "top_p", "top_k")] == ["big", 0.95, 20]
    assert request.headers["authorization"] == "Bearer sk-secret"


async def test_the_prompt_has_the_transcript_and_the_limits(finders: Finders, server: ModelServer) -> None:
    finder = finders.make()
    await finder.find(replace(REQUEST, prompt="Only {transcript} jokes."), nothing)
    prompt = server.requests[0].prompt
    assert prompt.startswith("Only {transcript} jokes.\n\n")
    assert "\n[0.00] Sentence 0.\n[10.00] Sentence 1.\n" in prompt
    assert all(text in prompt for text in ("300.00 seconds", "between 20.00 and 60.00", "between 1 and 5 moments"))
    text = finder.find_prompt("Only {transcript} jokes.")
    assert text.user_prompt == "Only {transcript} jokes."
    assert not any(text in finder.find_prompt("").system_prompt for text in ("Sentence", "300.00", "jokes"))


async def test_a_prompt_that_is_empty_is_the_built_in_one(finders: Finders, server: ModelServer) -> None:
    finder = finders.make()
    await finder.find(REQUEST, nothing)
    assert server.requests[0].prompt.startswith(finder.find_prompt("").user_prompt)


@pytest.mark.parametrize(
    ("key", "first", "last"),
    [("qwen3_omni", "Your whole answer", "Moments do not overlap."), ("minimax", "Find the parts", "Remember: ")],
)
async def test_families_of_models_hear_twice_what_they_tend_to_forget(
    finders: Finders, server: ModelServer, key: str, first: str, last: str
) -> None:
    await finders.make(key).find(REQUEST, nothing)
    prompt = server.requests[0].prompt
    assert prompt.startswith(first)
    assert prompt.splitlines()[-1].removeprefix("- ").startswith(last)


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


async def test_an_empty_list_is_a_result_and_asked_for_once(finders: Finders, server: ModelServer) -> None:
    server.answer("[]")
    assert (await finders.make().find(REQUEST, nothing)).moments == []
    assert len(server.requests) == 1


async def test_moments_that_break_a_rule_are_left_out(finders: Finders, server: ModelServer) -> None:
    server.answer(moments((20, 50), (40, 70), (100, 105), (280, 310), (200, 230)))
    found = await finders.make().find(REQUEST, nothing)
    assert [each.start for each in found.moments] == [20, 200]


async def test_an_unusable_answer_is_explained_to_the_model_and_requested_once_more(
    finders: Finders, server: ModelServer
) -> None:
    server.script([moments((0, 500)), moments((20, 50))])
    found = await finders.make().find(REQUEST, nothing)
    assert [each.start for each in found.moments] == [20]
    first, second = server.requests
    assert second.body["messages"][0] == first.body["messages"][0]
    assert [message["role"] for message in second.body["messages"]] == ["user", "assistant", "user"]
    assert "not within the video, which takes 300.00 seconds" in second.body["messages"][2]["content"]
    assert (found.usage.calls, found.usage.prompt_tokens) == (2, 200)
    assert found.raw == f"{moments((0, 500))}\n\n{moments((20, 50))}"


async def test_where_nothing_can_be_used_twice_the_answers_are_kept(finders: Finders, server: ModelServer) -> None:
    server.script(["I would rather not.", Reply('{"moments": [{"start', finish_reason="length")])
    with pytest.raises(ModelAnswerInvalid, match="no list of moments in the answer, because it was cut off") as caught:
        await finders.make().find(REQUEST, nothing)
    assert caught.value.raw == 'I would rather not.\n\n{"moments": [{"start'
    assert len(server.requests) == 2


async def test_an_answer_that_is_cut_off_gives_what_is_complete(finders: Finders, server: ModelServer) -> None:
    server.answer(Reply(moments((20, 50), (100, 130))[:-20], finish_reason="length"))
    assert [each.start for each in (await finders.make().find(REQUEST, nothing)).moments] == [20]


async def test_where_nothing_is_said_nothing_is_asked(finders: Finders, server: ModelServer) -> None:
    found = await finders.make().find(replace(REQUEST, segments=()), nothing)
    assert (list(found.moments), found.model, server.requests) == ([], "Mine", [])


def first_line(received: Received) -> str:
    """Answer as a model does that finds one moment, at the second line of what it is shown."""
    times = [float(text) for text in re.findall(r"(?m)^\[(\d+\.\d\d)\] ", received.prompt)]
    return moments((times[1], times[1] + 30))


def long_talk(shift: float) -> FindRequest:
    segments = [Segment("so " * 400, shift + n * 10.0, shift + n * 10.0 + 9) for n in range(250)]
    return replace(REQUEST, segments=segments, duration_seconds=shift + 2500.0, max_count=10, min_count=4)


async def test_a_long_transcript_is_asked_about_in_parts_and_its_times_are_moved_nowhere(
    finders: Finders, server: ModelServer
) -> None:
    server.answer(first_line)
    steps: list[float] = []
    starts = [each.start for each in (await finders.make().find(long_talk(0.0), steps.append)).moments]
    assert len(server.requests) == len(starts) == 3
    assert all(len(request.prompt) < MAX_CHUNK_CHARACTERS + 5000 for request in server.requests)
    assert all("between 2 and 10 moments" in request.prompt for request in server.requests)
    assert steps == pytest.approx([1 / 3, 2 / 3, 1])
    for shift in (0.25, 1234.5, 36000.0):
        found = await finders.make().find(long_talk(shift), nothing)
        assert [each.start for each in found.moments] == [start + shift for start in starts]


async def test_the_parts_of_a_long_transcript_get_their_share_of_the_number_asked_for(
    finders: Finders, server: ModelServer
) -> None:
    def three(received: Received) -> str:
        start = float(re.findall(r"(?m)^\[(\d+\.\d\d)\] ", received.prompt)[0]) + 100
        return moments(*((start + n * 60, start + n * 60 + 30) for n in range(3)))

    server.answer(three)
    found = await finders.make().find(replace(long_talk(0.0), max_count=3), nothing)
    assert [round(each.start / 1000) for each in found.moments] == [0, 1, 2]


@pytest.mark.parametrize(("last", "raw"), [("no 2", "no 1\n\nno 2"), (Reply(body={"no": 2}), "no 1\n\n{'no': 2}")])
async def test_a_part_without_a_usable_answer_fails_all_of_them_and_its_answers_are_kept(
    finders: Finders, server: ModelServer, last: Reply | str, raw: str
) -> None:
    server.script([first_line, "no 1", last])
    server.answer(first_line)
    with pytest.raises(ModelAnswerInvalid) as caught:
        await finders.make().find(long_talk(0.0), nothing)
    assert caught.value.raw == raw
    assert len(server.requests) == 3


async def test_a_part_that_a_server_is_too_busy_for_is_asked_again_by_itself(
    finders: Finders, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ai.service._RETRY_PAUSES", (0.0, 0.0))
    server.script([first_line, "no", Reply(status=503), Reply(status=500)])
    server.answer(first_line)
    found = await finders.make().find(long_talk(0.0), nothing)
    assert len(found.moments) == 3
    assert (len(server.requests), found.usage.calls, found.usage.prompt_tokens) == (6, 4, 400)


async def test_a_part_is_not_asked_for_ever(
    finders: Finders, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ai.service._RETRY_PAUSES", (0.0, 0.0))
    server.script([first_line])
    server.answer(Reply(status=500))
    with pytest.raises(TransientFailure):
        await finders.make().find(long_talk(0.0), nothing)
    assert len(server.requests) == 4


async def test_each_call_is_logged_with_its_tokens_and_outcome_and_nothing_of_its_words(
    finders: Finders, server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script([moments((20, 50)), Reply(status=500)])
    await finders.make(api_key="sk-secret").find(REQUEST, nothing)
    with pytest.raises(TransientFailure):
        await finders.make(api_key="sk-secret").find(REQUEST, nothing)
    calls = [record.__dict__ for record in caplog.records if record.name == "app.ai.calls"]
    assert [(call["model_key"], call["operation"], call["outcome"]) for call in calls] == [
        ("mine", "find", "completed"),
        ("mine", "find", "TransientFailure"),
    ]
    assert (calls[0]["prompt_tokens"], calls[0]["completion_tokens"]) == (100, 20)
    assert "Sentence" not in caplog.text
    assert "sk-secret" not in caplog.text


async def test_a_refinement_is_asked_in_the_time_of_its_window(finders: Finders, server: ModelServer) -> None:
    server.answer('{"start_time": 29.0, "end_time": 61.9}')
    refined = await finders.make().refine(REFINE, nothing)
    assert (refined.start, refined.end, refined.model) == (109.0, 141.9, "test-model")
    prompt = server.requests[0].prompt
    assert "\n[0.00-0.90] word0\n[1.00-1.90] word1\n" in prompt
    assert all(text in prompt for text in ('"One"', "begins at 30.00", "ends at 60.00", "end at 89.90"))


async def test_a_window_that_lies_later_moves_the_answer_by_as_much(finders: Finders, server: ModelServer) -> None:
    server.answer('{"start_time": 29.0, "end_time": 61.9}')
    prompts = set()
    for shift in (0.0, 0.5, 4096.0):
        words = [Word(word.word, word.start + shift, word.end + shift) for word in WORDS]
        request = RefineRequest(
            FoundMoment(110.0 + shift, 140.0 + shift, "One"), words, 80.0 + shift, 169.9 + shift, 300.0 + shift
        )
        refined = await finders.make().refine(request, nothing)
        assert (refined.start, refined.end) == pytest.approx((109.0 + shift, 141.9 + shift))
        prompts.add(server.requests[-1].prompt)
    assert len(prompts) == 1


@pytest.mark.parametrize("supports_video", [True, False])
async def test_a_clip_is_shown_to_a_model_that_looks_at_clips(
    finders: Finders, server: ModelServer, supports_video: bool
) -> None:
    server.answer('{"start_time": 29.0, "end_time": 61.9}')
    finder = finders.make(supports_video=supports_video)
    await finder.refine(replace(REFINE, clip=ClipLink("https://media.example/clip.mp4")), nothing)
    content = server.requests[0].body["messages"][0]["content"]
    assert isinstance(content, list) is supports_video
    if supports_video:
        assert content[0] == {"type": "video_url", "video_url": {"url": "https://media.example/clip.mp4"}}
        assert content[1]["text"].startswith("The clip that comes with this text")
    assert ("The clip" in finder.refine_prompt("", with_clip=True).system_prompt) is supports_video
    assert "The clip" not in finder.refine_prompt("", with_clip=False).system_prompt


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ('{"start_time": 61.9, "end_time": 29.0}', "end_time is not above start_time"),
        ('{"start_time": 109.0, "end_time": 141.9}', "not within 0.00 and 89.90"),
        ('{"start_time": 29.0, "end_time": 6', "not an object"),
        ('{"error": "there is no speech"}', "AI model error: there is no speech"),
    ],
)
async def test_times_that_cannot_be_are_asked_for_once_more(
    finders: Finders, server: ModelServer, wrong: str, reason: str
) -> None:
    server.script([wrong, '{"start_time": 29.0, "end_time": 61.9}'])
    assert (await finders.make().refine(REFINE, nothing)).start == 109.0
    assert reason in server.requests[1].body["messages"][2]["content"]
    server.answer(wrong)
    with pytest.raises(ModelAnswerInvalid, match=re.escape(reason)) as caught:
        await finders.make().refine(REFINE, nothing)
    assert caught.value.raw == f"{wrong}\n\n{wrong}"
