from collections.abc import Sequence

import pytest

from app.ai.local.finder import LocalFinder
from app.ai.protocols import FoundMoment, RefineRequest, Word
from tests.ai.local.talks import Talk, make_talk, speak_words
from tests.ai.local.waiting import ignore

FINDER = LocalFinder()
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
