"""A hum that is louder between two seconds."""

import asyncio
import math
import wave
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ai.local.finder import LocalMomentFinder
from app.ai.protocols import FindRequest, FoundMoment, RefineRequest, Segment, Word
from tests.ai.local.talks import TOPICS, Talk, draw_topics, make_talk, speak_words
from tests.ai.local.waiting import ignore

FINDER = LocalMomentFinder()


def make_request(talk: Talk, lengths: tuple[float, float] = (15, 90), counts: tuple[int, int] = (1, 10)) -> FindRequest:
    return FindRequest(talk.segments, talk.words, talk.duration, *lengths, *counts)


async def find(request: FindRequest) -> Sequence[FoundMoment]:
    found = await FINDER.find(request, ignore)
    assert found.model == FINDER.model
    check(found.moments, request)
    return found.moments


def check(moments: Sequence[FoundMoment], request: FindRequest) -> None:
    assert len(moments) <= request.max_count
    for moment in moments:
        assert 0 <= moment.start < moment.end <= request.duration_seconds
        assert request.min_length <= moment.end - moment.start <= request.max_length
        assert 3 <= len(moment.title.split()) <= 10
    assert all(one.end <= other.start for one, other in pairwise(moments))
    assert len({moment.title for moment in moments}) == len(moments)


async def test_moments_begin_where_the_topic_changes() -> None:
    hits = borders = begun = 0
    for seed in range(5, 9):
        talk = make_talk(draw_topics(seed, 3 + seed % 4), pause=(0.25, 0.4, 0.7)[seed % 3])
        starts = [moment.start for moment in await find(make_request(talk))]
        borders += len(talk.borders)
        begun += len(starts) - 1
        hits += sum(min(abs(start - border) for start in starts) <= 3 for border in talk.borders)
    assert hits / borders > 0.85
    assert hits / begun > 0.85


async def test_moments_begin_and_end_with_sentences() -> None:
    talk = make_talk(draw_topics(1, 4))
    for moment in await find(make_request(talk)):
        assert min(abs(segment.start - moment.start) for segment in talk.segments) < 0.5
        assert min(abs(segment.end - moment.end) for segment in talk.segments) < 0.5


async def test_a_transcript_without_word_times_has_moments_too() -> None:
    talk = make_talk(["bread", "mars", "salary"])
    assert len(await find(replace(make_request(talk), words=()))) == 3


async def test_the_same_request_has_the_same_answer() -> None:
    request = make_request(make_talk(["bees", "money"]))
    assert list(await find(request)) == list(await find(request))


async def test_the_prompt_decides_which_moments_are_kept() -> None:
    request = make_request(make_talk(["bread", "bees", "money", "volcano"]), counts=(1, 1))
    for prompt, word in (("How do insects live?", "Bee"), ("What erupts under the ground?", "Volcano")):
        (kept,) = await find(replace(request, prompt=prompt))
        assert word in kept.title


async def test_a_loud_moment_is_stronger_than_a_quiet_one(tmp_path: Path) -> None:
    talk = make_talk(["bread", "bread", "bread"])
    third = len(talk.words) // 3
    for loud, first in enumerate(range(0, len(talk.words), third)):
        audio = write_audio(tmp_path / f"{loud}.wav", talk.words[first].start, talk.words[first + third - 1].end, talk)
        request = make_request(talk, (28, 32), (3, 1))
        (kept,) = await find(replace(request, audio=audio))
        assert abs(kept.start - talk.words[first].start) < 5


def write_audio(path: Path, start: float, end: float, talk: Talk) -> Path:
    """A hum that is louder between two seconds."""
    times = np.arange(int(talk.duration * 8000)) / 8000
    loudness = np.where((times >= start) & (times <= end), 10_000, 1000)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        file.writeframes((loudness * np.sin(times * 600)).astype(np.int16).tobytes())
    return path


async def test_scene_cuts_decide_between_moments_that_say_the_same() -> None:
    talk = make_talk(["bread", "bread"])
    request = make_request(talk, (28, 32), (2, 1))
    for begin in (1.0, talk.borders[0] + 1):
        (kept,) = await find(replace(request, scene_cuts=[begin + 2 * number for number in range(10)]))
        assert abs(kept.start - begin) < 5


@pytest.mark.parametrize("segments", [(), (Segment("", 0, 5), Segment("  ", 5, 9))])
async def test_nothing_said_is_no_moment(segments: Sequence[Segment]) -> None:
    assert await find(FindRequest(segments, (), 60.0, 10, 30, 1, 5)) == []


async def test_a_video_shorter_than_a_moment_has_none() -> None:
    talk = make_talk(["bread"])
    assert await find(make_request(talk, (talk.duration + 1, 600))) == []


async def test_a_video_as_long_as_a_moment_is_one() -> None:
    talk = make_talk(["bread"])
    (moment,) = await find(make_request(talk, (talk.duration, talk.duration)))
    assert (moment.start, moment.end) == (0, talk.duration)


async def test_little_speech_in_a_long_video_is_a_moment_with_the_silence_around_it() -> None:
    words = speak_words("The only thing that anybody says in this film is this.", 100.0)
    (moment,) = await find(FindRequest((), words, 300.0, 60, 120, 3, 10))
    assert moment.start <= words[0].start
    assert words[-1].end <= moment.end


ISLANDS = (
    ("The quick brown fox jumps over the lazy dog. We grow tomatoes in the garden every summer.", 20.0),
    ("Our company sold seven thousand bicycles last year. The market in Europe is growing quickly.", 140.0),
    ("The doctor explained how the heart moves blood through the body. It beats all day and night.", 260.0),
)


@pytest.mark.parametrize(("lengths", "count"), [((10, 60), 3), ((10, 10), 3), ((60, 100), 3), ((99.9, 120), 3)])
async def test_short_talks_far_from_each_other_are_moments_of_their_own(
    lengths: tuple[float, float], count: int
) -> None:
    words = [word for text, at in ISLANDS for word in speak_words(text, at)]
    moments = await find(FindRequest((), words, 300.0, *lengths, count, 10))
    assert len(moments) == count
    for moment, (text, at) in zip(moments, ISLANDS, strict=True):
        spoken = speak_words(text, at)
        assert moment.start < spoken[-1].end
        assert moment.end > spoken[0].start
    if lengths == (10, 60):
        assert not [
            word for word in words for moment in moments for time in (moment.start, moment.end)
            if word.start < time < word.end
        ]  # fmt: skip


async def test_sentences_that_fit_no_limits_are_cut_rather_than_left_out() -> None:
    words = [word for at in range(0, 48, 12) for word in speak_words("word " * 30, float(at))]
    assert len(await find(FindRequest((), words, 48.0, 14.0, 15.0, 3, 5))) == 3


async def test_moments_that_fill_the_video_are_found() -> None:
    talk = make_talk(["bread", "mars"])
    third = math.floor(talk.duration / 3 * 10) / 10
    assert len(await find(make_request(talk, (third, third + 0.5), (3, 3)))) == 3


async def test_a_moment_with_silence_cuts_no_word_where_the_limits_allow_it() -> None:
    first = speak_words("Somebody says something in the beginning, and it is not very short at all.", 0.3)
    second = speak_words("Much later the same man says how bread is made with flour and water.", 28.0)
    words = [*first, *second]
    request = FindRequest((), words, words[-1].end + 0.2, 30.0, 45.0, 1, 3, prompt="How is bread made?")
    (moment,) = await find(request)
    assert not [word for word in words if word.start < moment.start < word.end or word.start < moment.end < word.end]
    assert "Moment at" not in moment.title


async def test_words_that_cannot_be_are_left_out() -> None:
    talk = make_talk(["bread"])
    broken = [Word("late", talk.duration + 5, talk.duration + 6), Word("", 1, 2), Word("nan", math.nan, 3)]
    assert await find(replace(make_request(talk), words=[*broken, *talk.words])) == await find(make_request(talk))


async def test_a_cancelled_search_ends_soon() -> None:
    talk = make_talk(sorted(TOPICS) * 10)
    begun = asyncio.Event()
    call = asyncio.create_task(FINDER.find(make_request(talk), lambda done: begun.set()))
    await asyncio.wait_for(begun.wait(), 300)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 60)


async def test_progress_only_grows() -> None:
    reports: list[float] = []
    await FINDER.find(make_request(make_talk(["bread", "mars"])), reports.append)
    assert reports == sorted(reports)
    assert reports


def test_the_prompts_say_what_is_done() -> None:
    assert FINDER.make_generation_prompt("About bees").user_prompt == "About bees"
    assert FINDER.make_generation_prompt("").user_prompt != ""
    assert "without a language model" in FINDER.make_generation_prompt("").system_prompt
    assert "without a language model" in FINDER.make_refinement_prompt("", with_clip=False).system_prompt


_TEXTS = st.sampled_from(["bread.", "Mars", "money,", "so", "the", "Okay.", "raise!", "bees", "你好", "3.5", "Mr."])


@settings(max_examples=25)
@given(
    spoken=st.lists(
        st.tuples(_TEXTS, st.sampled_from([0.0, 0.1, 0.5, 3.0, 30.0]), st.sampled_from([0.0, 0.3, 5.0])), max_size=25
    ),
    rest=st.floats(0, 50),
    least=st.floats(0.5, 60),
    more=st.floats(0, 60),
    counts=st.tuples(st.integers(1, 5), st.integers(0, 5)),
    shift=st.floats(-5, 5),
)
async def test_whatever_is_said_the_limits_are_kept(
    spoken: list[tuple[str, float, float]],
    rest: float,
    least: float,
    more: float,
    counts: tuple[int, int],
    shift: float,
) -> None:
    words, at = [], 0.0
    for text, pause, length in spoken:
        words.append(Word(text, at + pause + shift, at + pause + length + shift))
        at += pause + length
    few, many = counts
    await find(FindRequest((), words, at + rest, least, least + more, few, few + many))


TALK = make_talk(["bread", "salary", "bees"])


async def refine(
    start: float, end: float, words: Sequence[Word] = TALK.words, window: tuple[float, float] = (0.0, 600.0)
) -> tuple[float, float]:
    request = RefineRequest(FoundMoment(start, end, "A title"), words, *window, duration_seconds=TALK.duration)
    refined = await FINDER.refine(request, ignore)
    assert refined.model == FINDER.model
    return refined.start, refined.end


@pytest.mark.parametrize(("early", "late"), [(-3.0, 2.0), (2.5, -2.5), (0.0, 0.0), (-1.0, 5.0), (4.0, 3.0)])
async def test_coarse_times_become_those_of_the_topic(early: float, late: float) -> None:
    begin, end = topic_times(TALK)
    assert await refine(begin + early, end + late) == pytest.approx((begin, end), abs=0.5)


async def test_a_refined_moment_is_within_its_window() -> None:
    begin, end = topic_times(TALK)
    window = (begin + 6.0, end - 5.0)
    inside = [word for word in TALK.words if window[0] <= word.start and word.end <= window[1]]
    refined = await refine(begin, end, inside, window)
    assert window[0] <= refined[0] < refined[1] <= window[1]


async def test_a_refined_moment_has_none_of_the_silence_around_it() -> None:
    begin, end = topic_times(TALK)
    words = [word for word in TALK.words if begin <= word.start < end]
    assert await refine(begin - 3.0, end + 2.5, words) == pytest.approx((begin, end), abs=0.5)


async def test_a_moment_of_which_most_is_silence_stays_as_it_is() -> None:
    words = speak_words("Only this sentence is said in all of the film.", 20.0)
    assert await refine(5.0, 40.0, words) == (5.0, 40.0)


@pytest.mark.parametrize("start", [0.0, 5.0, 11.3, 27.0, 48.9])
@pytest.mark.parametrize("length", [2.0, 5.0, 13.0, 37.0])
async def test_a_refined_moment_is_not_much_shorter_and_not_somewhere_else(start: float, length: float) -> None:
    refined = await refine(start, start + length)
    assert refined[1] - refined[0] >= 0.8 * length
    assert abs(refined[0] - start) <= 10
    assert abs(refined[1] - (start + length)) <= 10


async def test_a_moment_without_words_stays_as_it_is() -> None:
    assert await refine(10.0, 20.0, []) == (10.0, 20.0)


async def test_refining_twice_gives_the_same() -> None:
    begin, end = topic_times(TALK)
    once = await refine(begin + 2, end - 2)
    assert once == await refine(begin + 2, end - 2)


def topic_times(talk: Talk) -> tuple[float, float]:
    return talk.borders[0], talk.borders[1] - 0.4
