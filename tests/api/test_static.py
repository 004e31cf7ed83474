"""`/static/audios/{id}.wav` and `/static/transcripts/{id}.json`, and what has never been there."""

from pathlib import Path
from urllib.parse import quote

import pytest
from httpx import AsyncClient

from app.database import Connection
from app.storage import audio_folder_key
from tests.factories import make_transcript, make_video

SOUND = b"RIFF\0\0\0\0WAVE, and its samples"
IDENTIFIERS = ["talk", "a talk", "What? #1 100%41 – ü", "..", "%2e%2e"]


def write(path: Path, content: bytes = SOUND) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def address(folder: str, identifier: str, extension: str) -> str:
    return f"/static/{folder}/{quote(identifier, safe='')}.{extension}"


@pytest.mark.parametrize("identifier", IDENTIFIERS)
async def test_the_audio_of_a_video_is_sent_from_this_server_or_from_a_library(
    client: AsyncClient, conn: Connection, tmp_path: Path, identifier: str
) -> None:
    await make_video(conn, identifier=identifier)
    write(tmp_path / "library" / "audios" / f"{identifier}.wav", b"as imported")
    found = await client.get(address("audios", identifier, "wav"))
    assert (found.status_code, found.content) == (200, b"as imported")
    write(tmp_path / "media" / audio_folder_key(identifier) / "sound.wav", b"as extracted")
    assert (await client.get(address("audios", identifier, "wav"))).content == b"as extracted"


@pytest.mark.parametrize("folder", ["library/audios", f"media/{audio_folder_key('secret')}"])
async def test_audio_that_belongs_to_no_video_is_not_sent(client: AsyncClient, tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder / "secret.wav")
    answer = await client.get("/static/audios/secret.wav")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Video not found"})


async def test_audio_has_ranges_and_a_head(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    await make_video(conn, identifier="talk")
    write(tmp_path / "media" / audio_folder_key("talk") / "sound.wav")
    part = await client.get("/static/audios/talk.wav", headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"RIFF")
    assert part.headers["Content-Type"] == "audio/wav"
    head = await client.head("/static/audios/talk.wav")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(SOUND)))


async def test_audio_that_was_not_extracted_is_404(client: AsyncClient, conn: Connection, tmp_path: Path) -> None:
    for identifier in ("talk", "draft", "../secret"):
        await make_video(conn, identifier=identifier)
    write(tmp_path / "media" / audio_folder_key("draft") / "sound.part")
    write(tmp_path / "library" / "secret.wav")
    for name in ("talk", "draft", "..%2fsecret", "%00", "a%00b", "x" * 5000, "%ff"):
        answer = await client.get(f"/static/audios/{name}.wav")
        assert answer.status_code == 404, name
        assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("identifier", IDENTIFIERS)
async def test_a_transcript_is_the_same_document_as_in_the_api(
    client: AsyncClient, conn: Connection, identifier: str
) -> None:
    await make_transcript(conn, video_id=(await make_video(conn, identifier=identifier)).id)
    document = await client.get(address("transcripts", identifier, "json"))
    assert document.status_code == 200
    assert document.json()["transcription"] == "Hello there."
    copy = {"If-None-Match": document.headers["ETag"]}
    assert (await client.get(address("transcripts", identifier, "json"), headers=copy)).status_code == 304
    head = await client.head(address("transcripts", identifier, "json"))
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("address", ["/static/transcripts/talk.json", "/api/videos/talk/transcript"])
async def test_a_part_of_a_transcript_is_sent(client: AsyncClient, conn: Connection, address: str) -> None:
    await make_transcript(conn, video_id=(await make_video(conn, identifier="talk")).id)
    plain = {"Accept-Encoding": "identity"}
    whole = await client.get(address, headers=plain)
    size = len(whole.content)
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = await client.get(address, headers={**plain, "Range": "bytes=2-5", "If-Range": whole.headers["ETag"]})
    assert (part.status_code, part.content) == (206, whole.content[2:6])
    assert part.headers["Content-Range"] == f"bytes 2-5/{size}"
    behind = await client.get(address, headers={**plain, "Range": f"bytes={size}-"})
    assert (behind.status_code, behind.headers["Content-Range"]) == (416, f"bytes */{size}")
    for headers in ({**plain, "If-Range": '"another"'}, {"Accept-Encoding": "gzip"}):
        answer = await client.get(address, headers={**headers, "Range": "bytes=2-5"})
        assert (answer.status_code, answer.content) == (200, whole.content)


async def test_a_transcript_that_nobody_made_is_404(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="silent")
    for name in ("silent", "nobody", "%00", "x" * 5000):
        assert (await client.get(f"/static/transcripts/{name}.json")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/static",
        "/static/",
        "/static/audios",
        "/static/audios/",
        "/static/transcripts/",
        "/static/videos/talk.mp4",
        "/static/moments/talk.json",
        "/static/audios/talk.mp3",
        "/static/audios/../../etc/passwd",
    ],
)
async def test_there_are_no_folders_and_no_other_files(client: AsyncClient, path: str) -> None:
    answer = await client.get(path, follow_redirects=True)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
