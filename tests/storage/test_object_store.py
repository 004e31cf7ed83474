"""Media in Google Cloud Storage."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import google.auth
import httpx
import pytest

from app.core.config import Settings
from app.core.errors import FileMissing, InvalidInput, StorageUnavailable
from app.storage import Storage, open_storage
from app.storage.google_cloud import client as google_client
from tests.google_emulator import Emulator, FaultyProxy
from tests.storage.stores import files_in, is_copy, make_file, open_files, read_all

_MIB = 1024 * 1024

# Google's library leaves the answer to a download that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of three chunks."""
    return make_file(tmp_path / "source.mp4", os.urandom(20 * _MIB + 7))


@pytest.fixture
async def proxied(
    bucket: str, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Storage, FaultyProxy]]:
    """Storage whose requests pass the proxy."""
    with FaultyProxy(emulator) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        storage = _open(f"gs://{bucket}/media", tmp_path)
        yield storage, proxy
        await storage.aclose()
        gc.collect()  # what Google's library leaves open is this test's, and not that of a later one


def _open(url: str, folder: Path) -> Storage:
    return open_storage(Settings(storage_url=url, data_dir=folder / "data"))


async def _put_and_stop(storage: Storage, key: str, source: Path) -> None:
    """Begin an upload, and stop it when the first bytes have arrived."""

    def stop(_: int) -> None:
        put.cancel()

    put = asyncio.create_task(storage.put(key, source, stop))
    with pytest.raises(asyncio.CancelledError):
        await put


async def test_what_is_put_is_read_back(cloud: Storage, bucket: str, emulator: Emulator, source: Path) -> None:
    reports: list[int] = []
    stored = await cloud.put("videos/film/a.mp4", source, reports.append)

    assert stored.url == f"gs://{bucket}/media/videos/film/a.mp4"
    assert stored.size == sum(reports) == 20 * _MIB + 7
    assert len(reports) == 3
    assert emulator.names_in(bucket) == ["media/videos/film/a.mp4"]
    assert await is_copy(cloud, stored.url, source)
    assert await cloud.stat(stored.url) == stored


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 4, b"0123"), (6, None, b"6789"), (3, 3, b""), (8, 99, b"89"), (10, None, b""), (99, 120, b"")],
)
async def test_a_part_is_read_up_to_the_end_of_the_file(
    cloud: Storage, tmp_path: Path, start: int, stop: int | None, expected: bytes
) -> None:
    stored = await cloud.put("a/b", make_file(tmp_path / "source", b"0123456789"))
    assert await read_all(cloud, stored.url, start, stop) == expected


async def test_a_file_object_seeks(cloud: Storage, source: Path) -> None:
    stored = await cloud.put("a/b.mp4", source)

    def read_here_and_there() -> tuple[bytes, int, bytes, bytes]:
        with cloud.open_blocking(stored.url) as file:
            file.seek(-7, os.SEEK_END)
            return file.read(), file.seek(5 * _MIB), file.read(3 * _MIB), file.read(10)

    content = source.read_bytes()  # noqa: ASYNC240 — a test may wait for its own file
    expected = (content[-7:], 5 * _MIB, content[5 * _MIB : 8 * _MIB], content[8 * _MIB : 8 * _MIB + 10])
    assert await asyncio.to_thread(read_here_and_there) == expected


async def test_the_same_bytes_are_not_sent_again(proxied: tuple[Storage, FaultyProxy], source: Path) -> None:
    storage, proxy = proxied
    first = await storage.put("a/b.mp4", source)
    sent = proxy.sent_bytes()
    reports: list[int] = []

    assert await storage.put("a/b.mp4", source, reports.append) == first

    assert sent == proxy.sent_bytes() == 20 * _MIB + 7
    assert reports == [20 * _MIB + 7]


async def test_other_bytes_of_the_same_size_are_sent(cloud: Storage, tmp_path: Path) -> None:
    first = await cloud.put("a/b", make_file(tmp_path / "source", b"old"))
    second = await cloud.put("a/b", make_file(tmp_path / "source", b"new"))
    assert await read_all(cloud, second.url) == b"new"
    assert first.version != second.version


async def test_an_empty_file_is_a_file(cloud: Storage, tmp_path: Path) -> None:
    stored = await cloud.put("a/b", make_file(tmp_path / "source", b""))
    assert stored.size == 0
    assert await read_all(cloud, stored.url) == b""


async def test_what_has_arrived_is_sent_and_removed_here(cloud: Storage, tmp_path: Path) -> None:
    async with cloud.receive_file() as incoming:
        await incoming.write(b"bytes")
        stored = await cloud.put("a/b", incoming.path)
    assert await read_all(cloud, stored.url) == b"bytes"
    assert files_in(tmp_path / "data") == []


async def test_the_bucket_knows_the_type_of_a_video(
    cloud: Storage, bucket: str, emulator: Emulator, tmp_path: Path
) -> None:
    await cloud.put("a/b.webm", make_file(tmp_path / "source"))
    async with httpx.AsyncClient() as client:
        described = await client.get(f"{emulator.url}/storage/v1/b/{bucket}/o/media%2Fa%2Fb.webm")
    assert described.json()["contentType"] == "video/webm"


async def test_a_signed_address_serves_ranges(cloud: Storage, tmp_path: Path) -> None:
    stored = await cloud.put("videos/film one/ä#?.mp4", make_file(tmp_path / "source", b"0123456789"))
    link = await cloud.get_signed_url(stored.url)
    assert link
    assert 3595 <= link.expires_in_seconds <= 3600
    assert "X-Goog-Expires=3600" in link.url
    async with httpx.AsyncClient() as client:
        answer = await client.get(link.url, headers={"Range": "bytes=2-5"})
    assert (answer.status_code, answer.content) == (206, b"2345")


async def test_a_signed_address_is_given_again_until_shortly_before_it_expires(
    cloud: Storage, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"gs://{bucket}/media/a.mp4"
    now = 1000.0
    monkeypatch.setattr("app.storage.google_cloud.client.time.monotonic", lambda: now)
    first = await cloud.get_signed_url(url)
    now += 2800
    later = await cloud.get_signed_url(url)
    now += 100
    last = await cloud.get_signed_url(url)

    assert first
    assert later
    assert last
    assert (later.url, later.expires_in_seconds) == (first.url, 800)
    assert last.expires_in_seconds == 3600


async def test_without_a_key_to_sign_with_there_is_no_address(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    storage = _open(f"gs://{bucket}/media", tmp_path)
    assert await storage.get_signed_url(f"gs://{bucket}/media/a.mp4") is None
    await storage.aclose()


async def test_files_are_listed_by_key(cloud: Storage, tmp_path: Path) -> None:
    source = make_file(tmp_path / "source")
    for key in ("clips/film/b.mp4", "clips/film/a.mp4", "clips/films/c.mp4", "clips/film/deep/d.mp4"):
        await cloud.put(key, source)
    listed = [file.url for file in await cloud.list_files("clips/film")]
    keys = ("clips/film/a.mp4", "clips/film/b.mp4", "clips/film/deep/d.mp4")
    assert listed == [cloud.url_of(key) for key in keys]
    assert await cloud.list_names("clips") == {"film", "films"}
    assert await cloud.list_names("clips/film") == {"a.mp4", "b.mp4", "deep"}
    assert await cloud.list_names("audio") == set()


async def test_a_file_is_deleted_once(cloud: Storage, tmp_path: Path) -> None:
    stored = await cloud.put("a/b", make_file(tmp_path / "source"))
    assert await cloud.delete(stored.url)
    assert not await cloud.delete(stored.url)
    with pytest.raises(FileMissing):
        await cloud.stat(stored.url)
    with pytest.raises(FileMissing):
        await read_all(cloud, stored.url)


async def test_other_files_are_read_and_never_changed(cloud: Storage, bucket: str, emulator: Emulator) -> None:
    other = emulator.create_bucket()
    emulator.put(other, "videos/a.mp4", b"theirs")
    emulator.put(bucket, "media-beside/a.mp4", b"theirs")
    for url in (f"gs://{other}/videos/a.mp4", f"gs://{bucket}/media-beside/a.mp4"):
        assert await read_all(cloud, url) == b"theirs"
        assert not cloud.owns(url)
        assert not await cloud.delete(url)
        assert await read_all(cloud, url) == b"theirs"


async def test_files_in_buckets_are_read_where_the_own_ones_are_in_a_folder(
    bucket: str, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.put(bucket, "videos/a.mp4", b"theirs")
    storage = open_files(tmp_path)
    url = f"gs://{bucket}/videos/a.mp4"
    assert await read_all(storage, url) == b"theirs"
    assert await storage.get_signed_url(url)
    assert not await storage.delete(url)
    await storage.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "gs://BUCKET/media/../secret",
        "gs://BUCKET/media/./a",
        "gs://BUCKET/media/..",
        "gs://BUCKET/media/a\0",
        "gs://BUCKET/media/a\r\nHost: other",
        "gs://BUCKET/media/\ud800",
        "gs://BUCKET/" + "a" * 1025,
        "gs://BUCKET/",
        "gs://BUCKET",
        "gs://",
        "gs://..",
        "gs:///media/a",
        "gs://BUCKET@other/a",
        "gs:BUCKET/a",
        "GS://BUCKET/media/a",
    ],
)
async def test_an_address_that_names_no_object_is_no_file(cloud: Storage, bucket: str, url: str) -> None:
    url = url.replace("BUCKET", bucket)
    for look in (cloud.stat(url), read_all(cloud, url), cloud.get_signed_url(url)):
        with pytest.raises(FileMissing):
            await look
    assert not await cloud.delete(url)


@pytest.mark.parametrize("key", ["", "../a", "a//b", "/a", "a/../../b", "a\0", ".incoming/a"])
async def test_a_key_that_leads_elsewhere_is_refused(cloud: Storage, tmp_path: Path, key: str) -> None:
    source = make_file(tmp_path / "source")
    with pytest.raises(InvalidInput):
        await cloud.put(key, source)


async def test_requests_that_fail_for_a_moment_are_repeated(proxied: tuple[Storage, FaultyProxy], source: Path) -> None:
    storage, proxy = proxied
    proxy.fail = lambda method, path, number: None if number % 3 else 503
    stored = await storage.put("a/b.mp4", source)
    assert await is_copy(storage, stored.url, source)
    assert await storage.list_names("a") == {"b.mp4"}
    assert await storage.delete(stored.url)


async def test_bytes_whose_answer_was_lost_are_not_sent_again(
    proxied: tuple[Storage, FaultyProxy], source: Path
) -> None:
    storage, proxy = proxied
    failures = iter([None, 0])  # the connection breaks when the second chunk has arrived
    proxy.fail = lambda method, path, number: next(failures, None) if method == "PUT" else None
    stored = await storage.put("a/b.mp4", source)
    assert await is_copy(storage, stored.url, source)
    assert proxy.sent_bytes() == 20 * _MIB + 7


async def test_an_interrupted_upload_goes_on_in_a_later_process(
    proxied: tuple[Storage, FaultyProxy], bucket: str, tmp_path: Path, source: Path
) -> None:
    storage, proxy = proxied
    await _put_and_stop(storage, "a/b.mp4", source)
    assert await storage.list_files("a") == []
    sent = proxy.sent_bytes()
    assert 0 < sent < 20 * _MIB

    reports: list[int] = []
    later = _open(f"gs://{bucket}/media", tmp_path)
    stored = await later.put("a/b.mp4", source, reports.append)
    await later.aclose()

    assert reports[0] == sent
    assert proxy.sent_bytes() == 20 * _MIB + 7
    assert await is_copy(storage, stored.url, source)
    assert files_in(tmp_path / "data") == []


async def test_an_upload_whose_session_is_gone_begins_again(proxied: tuple[Storage, FaultyProxy], source: Path) -> None:
    storage, proxy = proxied
    await _put_and_stop(storage, "a/b.mp4", source)
    failures = iter([410])
    proxy.fail = lambda method, path, number: next(failures, None) if method == "PUT" else None
    stored = await storage.put("a/b.mp4", source)
    assert await is_copy(storage, stored.url, source)


async def test_bytes_that_arrive_damaged_are_sent_again(proxied: tuple[Storage, FaultyProxy], source: Path) -> None:
    storage, proxy = proxied
    flipped_bits = iter([0xFF])
    proxy.change = lambda body: bytes([body[0] ^ next(flipped_bits, 0)]) + body[1:]
    stored = await storage.put("a/b.mp4", source)
    assert await is_copy(storage, stored.url, source)
    assert proxy.sent_bytes() == 2 * (20 * _MIB + 7)


async def test_the_same_upload_at_the_same_time_is_sent_once(
    proxied: tuple[Storage, FaultyProxy], bucket: str, tmp_path: Path, source: Path
) -> None:
    storage, proxy = proxied
    other = _open(f"gs://{bucket}/media", tmp_path)
    both = await asyncio.gather(storage.put("a/b.mp4", source), other.put("a/b.mp4", source))
    await other.aclose()
    assert both[0] == both[1]
    assert proxy.sent_bytes() == 20 * _MIB + 7


async def test_a_bucket_that_answers_no_more_is_unavailable(
    bucket: str, proxied: tuple[Storage, FaultyProxy], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, proxy = proxied
    stored = await storage.put("a/b.mp4", source)
    monkeypatch.setattr(google_client, "RETRY_SECONDS", 1.0)
    proxy.fail = lambda method, path, number: 503
    calls = (
        storage.stat(stored.url),
        storage.delete(stored.url),
        storage.list_files("a"),
        storage.put("a/c.mp4", source),
        read_all(storage, stored.url),
    )
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(answer, StorageUnavailable)
        assert str(answer) == f"The bucket gs://{bucket} does not answer as it should"


async def test_an_unreachable_server_is_unavailable(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_client, "RETRY_SECONDS", 0.5)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    storage = _open(f"gs://{bucket}", tmp_path)
    with pytest.raises(StorageUnavailable, match=f"The bucket gs://{bucket} does not answer as it should"):
        await storage.stat(f"gs://{bucket}/a")
    await storage.aclose()


async def test_a_bucket_that_refuses_is_reported(proxied: tuple[Storage, FaultyProxy], source: Path) -> None:
    storage, proxy = proxied
    proxy.fail = lambda method, path, number: 403
    with pytest.raises(StorageUnavailable, match="refuses this server: let its credentials read and write"):
        await storage.put("a/b.mp4", source)


async def test_a_missing_bucket_is_reported(cloud: Storage, tmp_path: Path) -> None:
    storage = _open("gs://no-such-bucket/media", tmp_path)
    with pytest.raises(StorageUnavailable, match="There is no bucket no-such-bucket"):
        await storage.put("a/b", make_file(tmp_path / "source"))
    await storage.aclose()


async def test_missing_credentials_are_reported_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    storage = _open("gs://some-bucket/media", tmp_path)
    looked_for: list[object] = []
    look_for = google.auth.default

    def count(**options: Any) -> Any:
        looked_for.append(options)
        return look_for(**options)

    monkeypatch.setattr(google.auth, "default", count)
    for _ in range(3):  # looking for them takes a while, and is not done for each of a page's pictures
        with pytest.raises(StorageUnavailable, match="No Google credentials: set GOOGLE_APPLICATION_CREDENTIALS"):
            await storage.stat("gs://some-bucket/media/a")
    assert len(looked_for) == 1
    await storage.aclose()


async def test_only_bytes_of_one_generation_are_read(proxied: tuple[Storage, FaultyProxy], source: Path) -> None:
    storage, proxy = proxied
    stored = await storage.put("a/b.mp4", source)
    proxy.requests.clear()
    await read_all(storage, stored.url)
    paths = [path for _, path, _ in proxy.requests if path.startswith("/download/")]
    assert len(paths) == 6
    assert all(f"ifGenerationMatch={stored.version}" in path for path in paths)  # the emulator does not heed it
