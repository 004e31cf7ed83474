"""`GET /api/videos/{id}/transcript`."""

import gzip
from typing import Any

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.repositories import TranscriptRepository
from tests.conftest import Statements
from tests.factories import make_transcript, make_video

WORDS = [{"word": "Oh,", "start": 5.76, "end": 5.92}, {"word": "“there”", "start": 6.24, "end": 6.32}]
SEGMENTS = [{"text": "Oh, “there”", "start": 5.76, "end": 6.88, "word_count": 2}]
ADDRESS = "/api/videos/talk/transcript"


async def make_talk(conn: Connection, **values: Any) -> int:
    video = await make_video(conn, identifier="talk")
    details = {"full_text": 'Oh, “there” \\ "we" go.', "word_timestamps": WORDS, "segment_timestamps": SEGMENTS}
    counts = {"number_of_words": 2, "number_of_segments": 1, "processing_time_seconds": 2.59}
    await make_transcript(conn, video_id=video.id, **(details | counts | values))
    return video.id


async def test_a_transcript_has_the_fields_of_the_frontend(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    assert (await client.get(ADDRESS)).json() == {
        "transcription": 'Oh, “there” \\ "we" go.',
        "processing_time": 2.59,
        "word_timestamps": WORDS,
        "segment_timestamps": SEGMENTS,
        "metadata": {"total_segments": 1, "total_words": 2, "duration": 6.88},
    }


async def test_an_empty_transcript_is_one_too(client: AsyncClient, conn: Connection) -> None:
    counts = {"number_of_words": None, "number_of_segments": None, "processing_time_seconds": None}
    await make_talk(conn, full_text="", word_timestamps=[], segment_timestamps=[], **counts)
    assert (await client.get(ADDRESS)).json() == {
        "transcription": "",
        "processing_time": None,
        "word_timestamps": [],
        "segment_timestamps": [],
        "metadata": {"total_segments": 0, "total_words": 0, "duration": None},
    }


async def test_no_video_and_no_transcript_are_404(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="silent")
    answers = [await client.get(f"/api/videos/{video}/transcript") for video in ("nobody", "silent")]
    assert [answer.status_code for answer in answers] == [404, 404]
    details = [answer.json()["detail"] for answer in answers]
    assert details == ["Video not found", "Transcript not found for this video"]


async def test_it_travels_compressed_to_those_who_can_read_that(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    plain = await client.get(ADDRESS, headers={"Accept-Encoding": "identity"})
    async with client.stream("GET", ADDRESS, headers={"Accept-Encoding": "br, gzip"}) as zipped:
        raw = b"".join([chunk async for chunk in zipped.aiter_raw()])
    assert "Content-Encoding" not in plain.headers
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content
    assert plain.headers["ETag"] != zipped.headers["ETag"]


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [("gzip;q=0", None), ("*", "gzip"), ("*;q=0", None), ("gzip;q=0.5", "gzip"), ("gzip; q=0.000", None), ("", None)],
)
async def test_the_weights_of_accept_encoding_count(
    client: AsyncClient, conn: Connection, accepted: str, encoding: str | None
) -> None:
    await make_talk(conn)
    answer = await client.get(ADDRESS, headers={"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == encoding


async def test_a_copy_that_is_still_right_costs_one_look_up(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    await make_talk(conn)
    etag = (await client.get(ADDRESS)).headers["ETag"]
    with statements:
        answer = await client.get(ADDRESS, headers={"If-None-Match": f'"other", {etag}'})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["ETag"] == etag
    assert statements == 1


async def test_a_transcript_of_another_version_than_required_is_412(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    etag = (await client.get(ADDRESS)).headers["ETag"]
    assert (await client.get(ADDRESS, headers={"If-Match": etag})).status_code == 200
    for path in (ADDRESS, f"{ADDRESS}.srt"):
        assert (await client.get(path, headers={"If-Match": '"other"'})).status_code == 412


async def test_the_second_read_does_not_touch_the_large_columns(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    await make_talk(conn)
    with statements:
        first = await client.get(ADDRESS)
    assert statements == 1
    await conn.execute("UPDATE transcripts SET full_text = 'changed behind our back'")
    with statements:
        second = await client.get(ADDRESS)
    assert statements == 1
    assert second.content == first.content


async def test_a_transcript_that_went_away_is_404(client: AsyncClient, conn: Connection) -> None:
    video_id = await make_talk(conn)
    assert (await client.get(ADDRESS)).status_code == 200
    await TranscriptRepository(conn).delete_by_video(video_id)
    for headers in ({}, {"If-None-Match": '"1-1"'}):
        assert (await client.get(ADDRESS, headers=headers)).status_code == 404


async def test_a_new_transcription_is_seen_at_once(client: AsyncClient, conn: Connection) -> None:
    video_id = await make_talk(conn)
    first = await client.get(ADDRESS)
    await TranscriptRepository(conn).delete_by_video(video_id)
    await make_transcript(conn, video_id=video_id, full_text="Something else")
    for headers in ({}, {"If-None-Match": first.headers["ETag"]}):
        second = await client.get(ADDRESS, headers=headers)
        assert second.status_code == 200
        assert second.json()["transcription"] == "Something else"
