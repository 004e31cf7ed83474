"""Which video a URL means."""

import asyncio
from hashlib import sha256
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import InvalidInput
from app.database import Connection, connect
from app.services.video_urls import (
    ResolvedUrl,
    check_video_url,
    hash_url,
    identifier_from_url,
    look_for_film,
    resolve_url,
)
from app.storage import Storage
from tests.factories import make_video
from tests.storage.homes import make_file, open_files

_CDN = "https://cdn.example/a"


@pytest.mark.parametrize(
    ("url", "identifier"),
    [
        (f"{_CDN}/My Video_File.MP4?x=1", "my-video-file"),
        ("https://cdn.example/v/qvIaz.haa.mp4?u=3&b=0", "qviaz-haa"),
        (f"{_CDN}/a%20b.mp4", "a-20b"),
        ("gs://bucket/folder/Talk (1).mov", "talk-1"),
        (f"{_CDN}/--x--y--.mp4", "x-y"),
        (f"{_CDN}/{'long' * 20}.mp4", ("long" * 20)[:50]),
        (f"{_CDN}/{'a' * 49}-b.mp4", "a" * 49),
        (f"{_CDN}/talk/", "talk"),
        ("https://tube.example/watch?v=1", "watch"),
    ],
)
def test_a_video_is_called_after_its_file(url: str, identifier: str) -> None:
    assert identifier_from_url(url) == identifier


@pytest.mark.parametrize(
    "name", ["video.mp4", "Movie.MP4", "untitled.webm", "x.mp4", "…?.mp4", "---.mp4", "_", "№.mp4"]
)
def test_a_file_whose_name_says_nothing_is_called_after_its_address(name: str) -> None:
    url = f"{_CDN}/{name}"
    assert identifier_from_url(url) == f"video-{hash_url(url)[:8]}"
    assert identifier_from_url(url) != identifier_from_url(f"https://other.example/{name}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{_CDN}/film.mp4", f"{_CDN}/film.mp4?token=1"),
        (f"{_CDN}/a film.mp4", f"{_CDN}/a%20film.mp4"),
        (f"{_CDN}/film.mp4", "HTTPS://CDN.example/A/Film.MP4#t=3"),
        (f"{_CDN}/film.mp4", "https://me:secret@cdn.example/a/film.mp4"),
    ],
)
def test_addresses_of_one_film_have_one_hash(one: str, other: str) -> None:
    assert hash_url(one) == hash_url(other)


def test_the_hash_is_that_of_the_address_without_its_query() -> None:
    assert hash_url(f"{_CDN}/Film.mp4?x=1") == sha256(b"https://cdn.example/a/film.mp4").hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{_CDN}/film.mp4", f"{_CDN}/other.mp4"),
        (f"{_CDN}/film.mp4", "http://cdn.example/a/film.mp4"),
        (f"{_CDN}/film.mp4", "https://cdn.example:8443/a/film.mp4"),
        (f"{_CDN}/film.mp4?X-Goog-Date=1", f"{_CDN}/film.mp4?X-Goog-Date=2"),
        ("https://tube.example/watch?v=aB", "https://tube.example/watch?v=Ab"),
        ("https://tube.example/aB", "https://tube.example/Ab"),
    ],
)
def test_addresses_of_two_films_have_two_hashes(one: str, other: str) -> None:
    assert hash_url(one) != hash_url(other)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ftp://host/film.mp4", "begin with"),
        ("file:///etc/passwd", "begin with"),
        ("film.mp4", "begin with"),
        ("", "begin with"),
        ("https:///film.mp4", "name a host"),
        ("gs:///film.mp4", "name a bucket"),
        ("https://host", "name a file"),
        ("gs://bucket/", "name a file"),
        ("https://[::1/film.mp4", "cannot be read"),
        ("https://host:99999/film.mp4", "cannot be read"),
        ("https://host/a\nb.mp4", "character"),
        ("https://host/a\0b.mp4", "character"),
        ("https://host/a\ud800.mp4", "character"),
        (" https://host/a.mp4", "character"),
        (f"https://host/{'a' * 5000}", "at most 4096"),
    ],
)
def test_what_nothing_can_be_downloaded_from_is_refused_in_one_sentence(url: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        check_video_url(url)


@pytest.mark.parametrize(
    "url", [f"{_CDN}/My Video_File.MP4?x=1", "gs://bucket/a/b.mp4", "http://[2606:4700::1111]:8080/film"]
)
def test_any_other_address_is_accepted(url: str) -> None:
    check_video_url(url)


async def _resolve(conn: Connection, storage: Storage, url: str, force: bool = False) -> ResolvedUrl:
    async with conn.transaction():
        return await resolve_url(conn, storage, url, force)


async def _row(conn: Connection, identifier: str) -> tuple[str, str]:
    cursor = await conn.execute("SELECT source_url, cloud_url FROM videos WHERE identifier = %s", [identifier])
    return await anext(cursor)


async def test_an_unknown_url_becomes_a_video_whose_film_is_still_to_come(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    resolved = await _resolve(conn, storage, f"{_CDN}/Talk.mp4")
    assert (resolved.video, resolved.is_cached, resolved.download_required) == ("talk", False, True)
    assert await _row(conn, "talk") == (f"{_CDN}/Talk.mp4", resolved.film_url)
    assert resolved.film_url.startswith(storage.url_of("videos/talk/x")[:-1])


async def test_a_url_that_is_known_means_its_video(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    await make_video(conn, identifier="my-own-name", source_url=f"{_CDN}/talk.mp4", file_size_kb=1)
    await make_video(conn, identifier="other-1", source_url=f"{_CDN}/Other.mp4?token=1", file_size_kb=1)
    for url, video in ((f"{_CDN}/talk.mp4", "my-own-name"), (f"{_CDN}/other.mp4?token=2", "other-1")):
        resolved = await _resolve(conn, storage, url)
        assert (resolved.video, resolved.is_cached) == (video, True)


async def test_a_url_whose_film_never_came_is_downloaded_under_the_same_name(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    first = await _resolve(conn, storage, f"{_CDN}/talk.mp4")
    assert await _resolve(conn, storage, f"{_CDN}/talk.mp4?again=1") == first


async def test_of_several_videos_of_a_url_the_newest_with_a_film_is_meant(conn: Connection, tmp_path: Path) -> None:
    url = f"{_CDN}/talk.mp4"
    for name, size in (("talk", 1), ("talk-5", 1), ("talk-7", None)):
        await make_video(conn, identifier=name, source_url=url, file_size_kb=size)
    assert (await _resolve(conn, open_files(tmp_path), url)).video == "talk-5"


async def test_another_url_with_the_same_file_name_becomes_another_video(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    names = [(await _resolve(conn, storage, f"https://{host}.example/talk.mp4")).video for host in "abc"]
    assert names[0] == "talk"
    assert len(set(names)) == 3
    assert all(name.startswith("talk-") and name[5:].isdigit() for name in names[1:])
    assert (await _resolve(conn, storage, "https://b.example/talk.mp4")).video == names[1]


async def test_a_name_that_an_upload_has_is_not_taken(conn: Connection, tmp_path: Path) -> None:
    await make_video(conn, identifier="talk")
    assert (await _resolve(conn, open_files(tmp_path), f"{_CDN}/talk.mp4")).video.startswith("talk-")


async def test_a_known_url_is_downloaded_into_another_video_by_force(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    await make_video(conn, identifier="talk", source_url=f"{_CDN}/talk.mp4", file_size_kb=1)
    forced = await _resolve(conn, storage, f"{_CDN}/talk.mp4", force=True)
    assert forced.video.startswith("talk-")
    assert forced.download_required
    assert (await _resolve(conn, storage, f"{_CDN}/new.mp4", force=True)).video == "new"


@pytest.mark.parametrize("hosts", [["a", "a"], ["a", "b"]])
async def test_two_at_once_end_well(own_database_url: str, tmp_path: Path, hosts: list[str]) -> None:
    storage = open_files(tmp_path)

    async def resolve(host: str) -> str:
        async with connect(Settings(database_url=own_database_url)) as conn:
            return (await _resolve(conn, storage, f"https://{host}.example/talk.mp4")).video

    names = await asyncio.gather(*(resolve(host) for host in hosts * 5))
    assert len(set(names)) == len(set(hosts))


async def test_a_film_that_was_taken_away_is_told(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    path = make_file(tmp_path / "library" / "talk.mp4")
    await make_video(conn, identifier="talk", source_url=f"{_CDN}/talk.mp4", file_size_kb=1, cloud_url=path.as_uri())
    resolved = await _resolve(conn, storage, f"{_CDN}/talk.mp4")
    assert await look_for_film(storage, resolved) == resolved
    path.unlink()
    assert (await look_for_film(storage, resolved)).download_required
    await storage.aclose()
