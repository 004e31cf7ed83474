"""A chat completion service that finds and refines moments, a long transcript in chunks."""

import itertools
import logging
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.chat import MAX_CHUNK_CHARACTERS, split_segments_into_chunks
from app.ai.protocols import ClipLink, FindRequest, FoundMoment, RefineRequest, Segment, Word
from app.core.errors import ModelAnswerInvalid, TransientFailure
from tests.ai.chat_finders import REFINE, REQUEST, WORDS, Finders, moments, nothing
from tests.ai.model_server import ModelServer, Received, Reply
from tests.retries import remove_waits


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
    text = finder.make_generation_prompt("Only {transcript} jokes.")
    assert text.user_prompt == "Only {transcript} jokes."
    assert not any(text in finder.make_generation_prompt("").system_prompt for text in ("Sentence", "300.00", "jokes"))


async def test_a_prompt_that_is_empty_is_the_built_in_one(finders: Finders, server: ModelServer) -> None:
    finder = finders.make()
    await finder.find(REQUEST, nothing)
    assert server.requests[0].prompt.startswith(finder.make_generation_prompt("").user_prompt)


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
    remove_waits(monkeypatch, "app.ai.service._CHUNK_POLICY")
    server.script([first_line, "no", Reply(status=503), Reply(status=500)])
    server.answer(first_line)
    found = await finders.make().find(long_talk(0.0), nothing)
    assert len(found.moments) == 3
    assert (len(server.requests), found.usage.calls, found.usage.prompt_tokens) == (6, 4, 400)


async def test_a_part_is_not_asked_for_ever(
    finders: Finders, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_waits(monkeypatch, "app.ai.service._CHUNK_POLICY")
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
    assert ("The clip" in finder.make_refinement_prompt("", with_clip=True).system_prompt) is supports_video
    assert "The clip" not in finder.make_refinement_prompt("", with_clip=False).system_prompt


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


def talk(count: int, seconds: float = 5.0, characters: int = 88, shift: float = 0.0) -> list[Segment]:
    return [Segment("x" * characters, shift + n * seconds, shift + (n + 1) * seconds) for n in range(count)]


def test_a_transcript_that_fits_is_one_part() -> None:
    segments = talk(10)
    assert list(split_segments_into_chunks(segments, 30, 1000)) == [segments]


def test_neighbours_share_what_a_moment_may_take() -> None:
    parts = list(split_segments_into_chunks(talk(40), 30, 2000))
    assert all(len(part) == 20 for part in parts[:-1])
    for earlier, later in itertools.pairwise(parts):
        assert earlier[-1].end - later[0].start == pytest.approx(30)


def test_an_overlap_that_is_longer_than_a_part_still_comes_to_an_end() -> None:
    parts = list(split_segments_into_chunks(talk(40), 10_000, 1000))
    assert parts[-1][-1].start == 195
    assert len(parts) < 40


def test_a_segment_that_does_not_fit_is_a_part_of_its_own() -> None:
    segments = [*talk(2), Segment("y" * 5000, 10, 20), *talk(2, shift=20)]
    assert [segments[2]] in list(split_segments_into_chunks(segments, 0, 300))


def test_no_segments_are_no_parts() -> None:
    assert list(split_segments_into_chunks([], 30)) == []


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(50, 1000), st.integers(0, 200))
def test_every_segment_is_in_a_part_and_every_part_fits(lengths: list[int], most: int, overlap: int) -> None:
    segments = [Segment("x" * length, n * 3.0, n * 3.0 + 3) for n, length in enumerate(lengths)]
    parts = list(split_segments_into_chunks(segments, overlap, most))
    assert {segment.start for part in parts for segment in part} == {segment.start for segment in segments}
    for part in parts:
        assert len(part) == 1 or sum(len(segment.text) + 12 for segment in part) <= most
    starts = [part[0].start for part in parts]
    assert starts == sorted(set(starts))


@given(st.integers(0, 100_000))
def test_a_transcript_that_begins_later_is_split_at_the_same_places(shift: int) -> None:
    first = [[each.start + shift for each in part] for part in split_segments_into_chunks(talk(40), 30, 1500)]
    assert first == [
        [each.start for each in part] for part in split_segments_into_chunks(talk(40, shift=shift), 30, 1500)
    ]
