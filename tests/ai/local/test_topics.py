import asyncio
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.ai.local.compute_thread import ComputationControl
from app.ai.local.embeddings import FloatArray
from app.ai.local.topics import SentenceSpan, SentenceUnit, TopicLimits, segment_topics
from tests.ai.local.waiting import ignore

SENTENCE_SECONDS = 4.0


async def make_control() -> ComputationControl:
    return ComputationControl(ignore)


def make_units(count: int, gaps: list[float] | None = None) -> list[SentenceUnit]:
    units, at = [], 0.0
    for number in range(count):
        units.append(SentenceUnit("some words that are said", at, at + SENTENCE_SECONDS, SENTENCE_SECONDS))
        at += SENTENCE_SECONDS + (gaps[number] if gaps else 0.3)
    return units


def make_vectors(topics: list[int], noise: float = 0.6, seed: int = 0) -> FloatArray:
    """A vector for each sentence: the same direction for the same topic, and noise."""
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(max(topics, default=0) + 1, 384))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    made: FloatArray = directions[topics] + generator.normal(size=(len(topics), 384)) * noise / 384**0.5 * 2
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32)


def find(units: list[SentenceUnit], topics: list[int], limits: TopicLimits) -> list[SentenceSpan]:
    return segment_topics(units, make_vectors(topics), limits, asyncio.run(make_control()))


def test_the_sentences_decide_the_number_of_topics() -> None:
    for sizes in ([8], [6, 9], [5, 12, 7], [6, 6, 6, 6, 6, 6, 6]):
        topics = [topic for topic, size in enumerate(sizes) for _ in range(size)]
        found = find(make_units(len(topics)), topics, TopicLimits(5, 600, 1))
        assert [part.last - part.first for part in found] == sizes


def test_a_topic_that_is_too_long_is_divided() -> None:
    found = find(make_units(30), [0] * 30, TopicLimits(20, 60, 1))
    assert len(found) >= 3


def test_there_are_as_many_moments_as_are_asked_for_where_they_fit() -> None:
    found = find(make_units(30), [0] * 30, TopicLimits(10, 600, 5))
    assert len(found) >= 5


def test_a_long_silence_divides_what_sentences_do_not() -> None:
    gaps = [0.3] * 20
    gaps[7] = 60.0
    found = find(make_units(20, gaps), [0] * 20, TopicLimits(10, 600, 2))
    assert found[0].last == 8


@given(
    topics=st.lists(st.integers(0, 5), max_size=40),
    gaps=st.lists(st.sampled_from([0.0, 0.3, 2.0, 40.0]), min_size=40, max_size=40),
    least=st.floats(0.1, 60),
    more=st.floats(0, 120),
    count=st.integers(1, 12),
)
def test_segments_keep_the_limits_and_never_overlap(
    topics: list[int], gaps: list[float], least: float, more: float, count: int
) -> None:
    units = make_units(len(topics), gaps)
    limits = TopicLimits(least, least + more, count)
    found = find(units, topics, limits)

    def fits_limits(start: float, end: float) -> bool:
        return least <= end - start <= limits.max_length

    assert all(fits_limits(units[part.first].start, units[part.last - 1].end) for part in found)
    assert all(one.last <= other.first for one, other in pairwise(found))
    fits = any(fits_limits(one.start, other.end) for index, one in enumerate(units) for other in units[index:])
    assert bool(found) == fits
