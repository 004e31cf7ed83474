"""`GET /api/videos/{id}/transcript.srt`, `.vtt` and `.txt`."""

import gzip
import json

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.repositories import TranscriptRepository
from tests.conftest import Statements
from tests.factories import make_transcript, make_video

FORMS = ("srt", "vtt", "txt")
SEGMENTS = [
    {"text": "Oh, “there” <we> go.", "start": 5.76, "end": 6.88},
    {"text": "Again.", "start": 6.0, "end": 7.5},
]


def address(form: str, video: str = "talk") -> str:
    return f"/api/videos/{video}/transcript.{form}"


async def make_talk(conn: Connection, identifier: str = "talk") -> int:
    video = await make_video(conn, identifier=identifier)
    await make_transcript(conn, video_id=video.id, segment_timestamps=SEGMENTS)
    return video.id


async def test_subrip(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    answer = await client.get(address("srt"))
    assert answer.headers["Content-Type"] == "application/x-subrip; charset=utf-8"
    assert answer.content.decode() == (
        "1\n00:00:05,760 --> 00:00:06,000\nOh, “there” <we> go.\n\n2\n00:00:06,000 --> 00:00:07,500\nAgain.\n"
    )


async def test_webvtt(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    answer = await client.get(address("vtt"))
    assert answer.headers["Content-Type"] == "text/vtt; charset=utf-8"
    assert answer.content.decode() == (
        "WEBVTT\n\n00:00:05.760 --> 00:00:06.000\nOh, “there” &lt;we&gt; go.\n\n00:00:06.000 --> 00:00:07.500\nAgain.\n"
    )


async def test_plain_text(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    answer = await client.get(address("txt"))
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content.decode() == "Oh, “there” <we> go.\nAgain.\n"


@pytest.mark.parametrize("form", FORMS)
async def test_no_video_and_no_transcript_are_404(client: AsyncClient, conn: Connection, form: str) -> None:
    await make_video(conn, identifier="silent")
    for headers in ({}, {"If-None-Match": '"1-1"'}):
        answers = [await client.get(address(form, video), headers=headers) for video in ("nobody", "a%00b", "silent")]
        assert [answer.status_code for answer in answers] == [404, 404, 404]
        assert answers[0].json() == {"detail": "Video not found"}
        assert answers[2].json() == {"detail": "Transcript not found for this video"}


@pytest.mark.parametrize("form", FORMS)
async def test_a_file_is_read_once_and_then_only_looked_up(
    client: AsyncClient, conn: Connection, statements: Statements, form: str
) -> None:
    await make_talk(conn)
    with statements:
        first = await client.get(address(form))
    assert statements == 1
    with statements:
        second = await client.get(address(form), headers={"If-None-Match": first.headers["ETag"]})
    assert statements == 1
    assert (second.status_code, second.content) == (304, b"")
    for name in ("ETag", "Cache-Control", "Vary"):
        assert second.headers[name] == first.headers[name]
    assert "Content-Encoding" not in second.headers


async def test_a_copy_is_right_for_its_own_format_and_encoding_only(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    paths = ["/api/videos/talk/transcript", *map(address, FORMS)]
    accepted = ("gzip", "identity")
    etags = [
        (await client.get(path, headers={"Accept-Encoding": encoding})).headers["ETag"]
        for path in paths
        for encoding in accepted
    ]
    assert len({*etags}) == len(paths) * len(accepted)
    assert not any(etag.startswith("W/") for etag in etags)


async def test_it_travels_compressed_to_those_who_can_read_that(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    plain = await client.get(address("vtt"), headers={"Accept-Encoding": "identity"})
    async with client.stream("GET", address("vtt"), headers={"Accept-Encoding": "gzip"}) as zipped:
        raw = b"".join([chunk async for chunk in zipped.aiter_raw()])
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(raw) == plain.content


async def test_a_new_transcription_is_seen_at_once(client: AsyncClient, conn: Connection) -> None:
    video_id = await make_talk(conn)
    first = await client.get(address("txt"))
    await TranscriptRepository(conn).delete_by_video(video_id)
    await make_transcript(conn, video_id=video_id)
    second = await client.get(address("txt"), headers={"If-None-Match": first.headers["ETag"]})
    assert second.text == "Hello there.\n"


@pytest.mark.parametrize(
    ("identifier", "disposition"),
    [
        ("talk", "inline; filename=\"talk.srt\"; filename*=UTF-8''talk.srt"),
        ("a b", "inline; filename=\"a b.srt\"; filename*=UTF-8''a%20b.srt"),
        ("Gespräch", "inline; filename=\"Gespr_ch.srt\"; filename*=UTF-8''Gespr%C3%A4ch.srt"),
        ('x";\r\ny', "inline; filename=\"x____y.srt\"; filename*=UTF-8''x%22%3B%0D%0Ay.srt"),
    ],
)
async def test_the_name_of_the_file_is_safe(
    client: AsyncClient, conn: Connection, identifier: str, disposition: str
) -> None:
    await make_talk(conn, identifier)
    answer = await client.get(f"/api/videos/{identifier.replace(chr(13) + chr(10), '%0D%0A')}/transcript.srt")
    assert answer.headers["Content-Disposition"] == disposition


async def test_numbers_of_any_length_are_no_error(client: AsyncClient, conn: Connection) -> None:
    await make_talk(conn)
    segments = f'[{{"text": "Far away", "start": 1{"0" * 5000}, "end": 2}}]'
    await conn.execute("UPDATE transcripts SET segment_timestamps = %s::jsonb", [segments])
    assert (await client.get(address("vtt"))).text == "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nFar away\n"


@pytest.mark.parametrize("segments", [[], {}, None, "text", [None, {"text": "no times"}, {"start": 10**400}]], ids=str)
async def test_malformed_segments_are_no_error(client: AsyncClient, conn: Connection, segments: object) -> None:
    video = await make_video(conn, identifier="talk")
    await make_transcript(conn, video_id=video.id)
    await conn.execute("UPDATE transcripts SET segment_timestamps = %s::jsonb", [json.dumps(segments)])
    for form in FORMS:
        assert (await client.get(address(form))).status_code == 200
