"""Search queries of any text: each finds something or nothing."""

import random
import re
import string

import pytest

from app.database import Connection
from tests.factories import make_moment, make_transcript, make_video
from tests.services.searching import search

_PIECES = (
    *string.punctuation,
    *"-----\"'!&|()<>:*\\ \n\t\xa0\u200b\u2028–—…ä漢",
    *(" or ", "word", "a-b", "t'e", "x.com/a?b=1&c=2", "<->", "<2>", " -", "-- ", "-3.5e7", "<b>", "12"),
)
_LONG = (
    *(
        "-" * 1000,
        "- " * 500,
        "-- " * 333,
        "-!" * 500,
        '-"' * 500,
        "-\xa0" * 500,
        "-or " * 250,
        "-a " * 333,
        "!" * 1000,
    ),
    *(
        "(" * 1000,
        '"' * 1000,
        "'" * 1000,
        "\\" * 1000,
        "x" * 1000,
        "漢" * 1000,
        "a or " * 200,
        "a/" * 500,
        "a@b." * 250,
    ),
    "|---|---|\n" * 100,
)


def _random_texts(count: int) -> list[str]:
    """Texts in each of which a few pieces come again and again, as they do in what people paste."""
    source = random.Random(33)  # noqa: S311 - not for secrets
    texts = []
    for _ in range(count):
        few = source.sample(_PIECES, source.randint(1, 6))
        texts.append("".join(source.choices(few, k=source.choice((5, 40, 200, 900))))[:1000])
    return texts


async def _search(conn: Connection, query: str) -> tuple[int, int]:
    """How many transcripts and how many moments are found."""
    page = await search(conn, query)
    return len(page.videos), len(page.moments)


async def _make_talk(conn: Connection, text: str) -> None:
    video = await make_video(conn)
    segments = [{"text": text, "start": 0.0, "end": 1.0}]
    await make_transcript(conn, video_id=video.id, full_text=text, segment_timestamps=segments)
    await make_moment(conn, video_id=video.id, title=text)


async def test_no_text_is_too_strange_to_be_searched_for(conn: Connection) -> None:
    await _make_talk(conn, "A word, t'e 12 or a-b")
    for number, query in enumerate([*_LONG, *_random_texts(2000)]):
        await search(conn, _drop_controls(query), as_you_type=number % 4 == 0)


def _drop_controls(text: str) -> str:
    return re.sub("[\n\t\x00\u2028]", " ", text)  # which are refused


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("-" * 33 + " hello", True),
        ("hello " + "- " * 40, True),
        ("Chapter one\n" + "-" * 40 + "\nhello", True),
        ("|one|hello|\n" + "|---|---|\n" * 12, True),
        ("one - hello", True),
        ("--hello", True),
        ("one -hello", False),
        ('says -"one hello"', True),
        ('-"one hello"', False),
        ('-"chapter one"', False),
        ("one (-hello)", True),
        ("mid--sentence", True),
        ("mid-sentence", True),
    ],
)
async def test_a_dash_excludes_only_the_word_that_it_stands_before(
    conn: Connection, query: str, is_found: bool
) -> None:
    await _make_talk(conn, "Chapter one says hello mid-sentence")
    assert await _search(conn, query.replace("\n", " ")) == (is_found, is_found)
