"""Videos that are named by a URL, and URLs that mean the same video."""

import asyncio
import unicodedata
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import InvalidInput
from app.database import Connection, open_async_connection
from app.services.video_urls import (
    VideoOfUrl,
    canonicalize_url,
    check_video_url,
    find_or_add_video_of_url,
    hash_canonical_url,
    identifier_from_url,
    make_title_from_url_or_none,
    update_is_cached,
)
from app.storage import Storage
from tests.factories import make_video
from tests.storage.stores import make_file, open_files

_CDN = "https://cdn.example/a"
_HOST = "https://host.example"
_YOUTUBE = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
_VIMEO = "https://vimeo.com/76979871"
_DAILYMOTION = "https://www.dailymotion.com/video/x8abc12"


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
        (f"{_CDN}/%C3%9Cber%20uns.mp4", "uber-20uns"),
        (f"{_CDN}/Über uns.mp4", "uber-uns"),
        (f"{_CDN}/%E6%97%A5%E6%9C%AC.mp4", "日本"),
        ("https://youtu.be/dQw4w9WgXcQ?si=1", "youtube-dqw4w9wgxcq"),
        ("https://vimeo.com/76979871", "vimeo-76979871"),
    ],
)
def test_a_video_is_called_after_its_file(url: str, identifier: str) -> None:
    assert identifier_from_url(url) == identifier


@pytest.mark.parametrize(
    "name", ["video.mp4", "Movie.MP4", "untitled.webm", "x.mp4", "…?.mp4", "---.mp4", "_", "№.mp4"]
)
def test_a_file_whose_name_says_nothing_is_called_after_its_address(name: str) -> None:
    url = f"{_CDN}/{name}"
    assert identifier_from_url(url) == f"video-{hash_canonical_url(url)[:8]}"
    assert identifier_from_url(url) != identifier_from_url(f"https://other.example/{name}")


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
def test_a_url_that_nothing_can_be_downloaded_from_is_rejected_in_one_sentence(url: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        check_video_url(url)


@pytest.mark.parametrize(
    "url", [f"{_CDN}/My Video_File.MP4?x=1", "gs://bucket/a/b.mp4", "http://[2606:4700::1111]:8080/film"]
)
def test_any_other_address_is_accepted(url: str) -> None:
    check_video_url(url)


@pytest.mark.parametrize(
    ("url", "title"),
    [
        (f"{_CDN}/url-talk.mp4?x=1", "Url Talk"),
        (f"{_CDN}/My Video_File.MP4", "My Video File"),
        (f"{_CDN}/%C3%9Cber%20uns.mp4", "Über Uns"),
        (f"{_CDN}/a%1B%5D0;b%07%0A%C2%9B%E2%80%AEc.mp4", "A]0;b C"),
        (f"{_CDN}/video.mp4", None),
        ("https://youtu.be/dQw4w9WgXcQ", None),
    ],
)
def test_a_title_is_the_words_of_the_file_that_a_url_names(url: str, title: str | None) -> None:
    assert make_title_from_url_or_none(url) == title


async def _resolve(conn: Connection, storage: Storage, url: str, force: bool = False) -> VideoOfUrl:
    async with conn.transaction():
        return await find_or_add_video_of_url(conn, storage, url, force)


async def _row(conn: Connection, identifier: str) -> tuple[str, str]:
    cursor = await conn.execute("SELECT source_url, cloud_url FROM videos WHERE identifier = %s", [identifier])
    return await anext(cursor)


async def test_an_unknown_url_becomes_a_video_without_its_file_yet(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    resolved = await _resolve(conn, storage, f"{_CDN}/Talk.mp4")
    assert (resolved.video, resolved.is_cached) == ("talk", False)
    assert await _row(conn, "talk") == (f"{_CDN}/Talk.mp4", resolved.video_file_url)
    assert resolved.video_file_url.startswith(storage.url_of("videos/talk/x")[:-1])


async def test_a_known_url_resolves_to_its_video(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    await make_video(conn, identifier="my-own-name", source_url=f"{_CDN}/talk.mp4", file_size_kb=1)
    await make_video(conn, identifier="other-1", source_url=f"{_CDN}/Other.mp4?utm_source=a", file_size_kb=1)
    for url, video in ((f"{_CDN}/talk.mp4", "my-own-name"), (f"{_CDN}/Other.mp4?fbclid=2", "other-1")):
        resolved = await _resolve(conn, storage, url)
        assert (resolved.video, resolved.is_cached) == (video, True)


async def test_a_url_that_was_never_downloaded_keeps_its_video(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    first = await _resolve(conn, storage, f"{_CDN}/talk.mp4")
    assert await _resolve(conn, storage, f"{_CDN}/talk.mp4?utm_medium=1#t=3") == first


async def test_of_several_videos_of_a_url_the_newest_with_a_file_is_chosen(conn: Connection, tmp_path: Path) -> None:
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


async def test_the_identifier_of_an_upload_is_not_reused(conn: Connection, tmp_path: Path) -> None:
    await make_video(conn, identifier="talk")
    assert (await _resolve(conn, open_files(tmp_path), f"{_CDN}/talk.mp4")).video.startswith("talk-")


async def test_a_known_url_becomes_another_video_by_force(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    await make_video(conn, identifier="talk", source_url=f"{_CDN}/talk.mp4", file_size_kb=1)
    forced = await _resolve(conn, storage, f"{_CDN}/talk.mp4", force=True)
    assert forced.video.startswith("talk-")
    assert not forced.is_cached
    assert (await _resolve(conn, storage, f"{_CDN}/new.mp4", force=True)).video == "new"


@pytest.mark.parametrize("hosts", [["a", "a"], ["a", "b"]])
async def test_concurrent_requests_for_one_file_name_all_succeed(
    own_database_url: str, tmp_path: Path, hosts: list[str]
) -> None:
    storage = open_files(tmp_path)

    async def resolve(host: str) -> str:
        async with open_async_connection(Settings(database_url=own_database_url)) as conn:
            return (await _resolve(conn, storage, f"https://{host}.example/talk.mp4")).video

    names = await asyncio.gather(*(resolve(host) for host in hosts * 5))
    assert len(set(names)) == len(set(hosts))


async def test_a_missing_video_file_is_reported(conn: Connection, tmp_path: Path) -> None:
    storage = open_files(tmp_path)
    path = make_file(tmp_path / "library" / "talk.mp4")
    await make_video(conn, identifier="talk", source_url=f"{_CDN}/talk.mp4", file_size_kb=1, cloud_url=path.as_uri())
    resolved = await _resolve(conn, storage, f"{_CDN}/talk.mp4")
    assert await update_is_cached(storage, resolved) == resolved
    path.unlink()
    assert not (await update_is_cached(storage, resolved)).is_cached
    await storage.aclose()


_YOUTUBE = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"


@pytest.mark.parametrize(
    "forms",
    [
        [_YOUTUBE, "https://youtu.be/dQw4w9WgXcQ?si=a", f"{_YOUTUBE}&t=4s", "https://m.youtube.com/shorts/dQw4w9WgXcQ"],
        [f"{_CDN}/a b%2Dc.mp4", f"{_CDN}/a%20b-c.mp4?utm_source=x"],
    ],
)
async def test_all_forms_of_an_address_are_one_video(conn: Connection, tmp_path: Path, forms: list[str]) -> None:
    storage = open_files(tmp_path)
    for order in (forms, forms[::-1]):
        assert len({(await _resolve(conn, storage, url)).video for url in order}) == 1


@pytest.mark.parametrize("identifier", ["watch", "watch-1795346931", "dqw4w9wgxcq"])
async def test_a_video_that_was_added_under_an_older_name_is_found(
    conn: Connection, tmp_path: Path, identifier: str
) -> None:
    await make_video(conn, identifier=identifier, source_url=f"{_YOUTUBE}&t=1", file_size_kb=1)
    await make_video(conn, identifier="watch-2", source_url=_YOUTUBE.replace("Q", "q"), file_size_kb=1)
    assert (await _resolve(conn, open_files(tmp_path), "https://youtu.be/dQw4w9WgXcQ")).video == identifier


async def test_urls_that_may_differ_in_their_video_are_different_videos(conn: Connection, tmp_path: Path) -> None:
    storage, host = open_files(tmp_path), "https://host.example"
    urls = (
        *(f"{host}/get.mp4?id=1", f"{host}/get.mp4?id=2", f"{host}/Talk.mp4", f"{host}/talk.mp4"),
        *(f"{host}/a%2Fb.mp4", f"{host}/a/b.mp4", f"{host}:8443/talk.mp4", "http://host.example/talk.mp4"),
    )
    videos = [(await _resolve(conn, storage, url)).video for url in urls]
    assert len(set(videos)) == len(urls)
    assert [(await _resolve(conn, storage, url)).video for url in urls] == videos


@pytest.mark.parametrize(
    ("canonical", "forms"),
    [
        (
            _YOUTUBE,
            [
                *(f"{_YOUTUBE}&t=90s", f"{_YOUTUBE}&list=PL1&index=3", f"{_YOUTUBE}&feature=shared&pp=a&ab_channel=b"),
                *("https://youtu.be/dQw4w9WgXcQ", "https://youtu.be/dQw4w9WgXcQ?si=x&t=1"),
                *("https://m.youtube.com/watch?app=desktop&v=dQw4w9WgXcQ", "http://youtube.com/watch/?v=dQw4w9WgXcQ"),
                *("https://music.youtube.com/watch?v=dQw4w9WgXcQ&si=x", "https://www.youtube.com/shorts/dQw4w9WgXcQ"),
                *("https://www.youtube.com/embed/dQw4w9WgXcQ?start=4", "https://www.youtube.com/live/dQw4w9WgXcQ?si=a"),
                *("https://www.youtube-nocookie.com/embed/dQw4w9WgXcQ", "https://WWW.YouTube.com/v/dQw4w9WgXcQ#t=1"),
            ],
        ),
        (
            _VIMEO,
            [
                *("https://www.vimeo.com/76979871#t=9s", "https://player.vimeo.com/video/76979871?autoplay=1"),
                *("https://vimeo.com/channels/staffpicks/76979871", "https://vimeo.com/76979871?share=copy"),
            ],
        ),
        (f"{_VIMEO}/ab12cd", ["https://player.vimeo.com/video/76979871?h=ab12cd", f"{_VIMEO}/ab12cd?fl=pl"]),
        (_DAILYMOTION, ["https://dai.ly/x8abc12", f"{_DAILYMOTION}_a-slug", f"{_DAILYMOTION}?playlist=x1"]),
        (
            f"{_HOST}/a/film.mp4",
            [
                *("HTTPS://Host.Example:443/a/film.mp4#t=3", f"{_HOST}/a/film.mp4?utm_source=x&fbclid=y&gclid=z"),
                *(f"{_HOST}/a/film.mp4?", f"{_HOST}/b/../a/./film.mp4", f"{_HOST}/a/%66ilm%2Emp4"),
            ],
        ),
        (f"{_HOST}/my%20caf%C3%A9.mp4", [f"{_HOST}/my café.mp4", f"{_HOST}/my%20caf%c3%a9.mp4"]),
        (f"{_HOST}/get?id=1&b=2", [f"{_HOST}/get?utm_campaign=x&id=1&_ga=3&b=2"]),
        ("https://xn--bcher-kva.example/a.mp4", ["https://bücher.example/a.mp4", "https://BÜCHER.example/a.mp4"]),
        ("http://[2606:4700::1111]/a.mp4", ["http://[2606:4700::1111]:80/a.mp4"]),
    ],
)
def test_all_forms_of_one_address_have_one_canonical_form(canonical: str, forms: list[str]) -> None:
    assert {form: canonicalize_url(form) for form in forms} == dict.fromkeys(forms, canonical)
    assert canonicalize_url(canonical) == canonical


def test_letters_are_composed() -> None:
    name = "Crème brûlée"
    composed = canonicalize_url(f"{_HOST}/{name}.mp4")
    assert canonicalize_url(f"{_HOST}/{unicodedata.normalize('NFD', name)}.mp4") == composed
    assert canonicalize_url(f"{_HOST}/Cre%CC%80me%20bru%CC%82le%CC%81e.mp4") == composed


@pytest.mark.parametrize(
    "urls",
    [
        [f"{_HOST}/get.mp4", f"{_HOST}/get.mp4?id=1", f"{_HOST}/get.mp4?id=2", f"{_HOST}/get.mp4?ID=2"],
        [f"{_HOST}/Talk.mp4", f"{_HOST}/talk.mp4", f"{_HOST}/talk.MP4"],
        [f"{_HOST}/a%2Fb.mp4", f"{_HOST}/a/b.mp4", f"{_HOST}/a%252Fb.mp4"],
        [f"{_HOST}/a.mp4?q=a%26b", f"{_HOST}/a.mp4?q=a&b", f"{_HOST}/a.mp4?q=a+b", f"{_HOST}/a.mp4?q=a%2Bb"],
        [f"{_HOST}/a.mp4", "http://host.example/a.mp4", f"{_HOST}:8443/a.mp4", "https://me:pw@host.example/a.mp4"],
        [f"{_HOST}/a.mp4?t=1", f"{_HOST}/a.mp4?t=2", f"{_HOST}/a.mp4?list=1", f"{_HOST}/a.mp4?si=1"],
        [f"{_HOST}/get.mp4?pk_id=1", f"{_HOST}/get.mp4?pk_id=2"],
        [f"{_HOST}//a/./b.mp4", f"{_HOST}//c/./b.mp4", f"{_HOST}/./b.mp4"],
        [f"{_HOST}/film.mp4?X-Goog-Date=1", f"{_HOST}/film.mp4?X-Goog-Date=2"],
        [f"{_HOST}/a.mp4", f"{_HOST}/a.mp4/", f"{_HOST}//a.mp4", f"{_HOST}/%FFa.mp4", f"{_HOST}/%FEa.mp4"],
        [_YOUTUBE, _YOUTUBE.lower(), "https://www.youtube.com/playlist?list=a", "https://tube.example/watch?v=a"],
        ["https://www.youtube.com/embed/videoseries?list=a", "https://www.youtube.com/embed/videoseries?list=b"],
        ["https://youtube.com.evil.example/watch?v=dQw4w9WgXcQ", _YOUTUBE, "https://www.youtube.com/@a/videos"],
        [
            _VIMEO,
            f"{_VIMEO}/ab12cd",
            f"{_VIMEO}/ab12ce",
            "https://vimeo.com/76979872",
            "https://vimeo.com/ondemand/a/1",
        ],
        ["gs://bucket/a b.mp4", "gs://bucket/a%20b.mp4", "gs://bucket/a b.mp4?x=1", "gs://bucket/A b.mp4"],
    ],
)
def test_urls_that_may_lead_to_different_videos_stay_different(urls: list[str]) -> None:
    assert len({canonicalize_url(url) for url in urls}) == len(urls)
    assert len({hash_canonical_url(url) for url in urls}) == len(urls)
