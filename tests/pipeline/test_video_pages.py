"""Videos of web pages, downloaded by the real yt-dlp from sites on loopback."""

import asyncio
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import StageFailed, TransientFailure
from app.pipeline import video_pages
from app.pipeline.context import RunContext
from app.pipeline.stages import download
from app.repositories import VideoRepository
from tests.media.movies import make_movie
from tests.pipeline.contexts import make_context
from tests.sites import Answer, Site, Visit, ranging, redirecting, sending
from tests.storage.stores import files_in, read_all

pytest.importorskip("yt_dlp", reason="It is not installed")


@pytest.fixture(scope="module")
def video_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_movie(tmp_path_factory.mktemp("videos") / "video.mp4", 2.0).read_bytes()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@asynccontextmanager
async def _run(url: str, folder: Path, site: Site, **changes: Any) -> AsyncIterator[RunContext]:
    row = {"source_url": f"{site.url}/page", "duration_seconds": None}
    settings = {"allowed_hosts": (site.host,), **changes}
    async with make_context(url, folder, video=row, settings=settings) as context:
        yield context


def _page(source: str) -> Answer:
    text = f'<html><head><title>Talk</title></head><body><video src="{source}"></video></body></html>'
    return sending(text.encode(), headers={"Content-Type": "text/html; charset=utf-8"})


async def test_the_video_of_a_page_is_downloaded(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers |= {"/page": _page("/video.mp4"), "/video.mp4": ranging(video_file)}
    async with _run(own_database_url, tmp_path, site) as context:
        await download.run_stage(context)
        async with context.database.connect() as conn:
            row = await VideoRepository(conn).get(context.run.video_id)
        assert row is not None
        assert (row.resolution, row.source_url) == ("64x48", f"{site.url}/page")
        assert await read_all(context.storage, row.cloud_url) == video_file
        assert context.progress == {
            "bytes_downloaded": len(video_file),
            "total_bytes": len(video_file),
            "percentage": 100,
        }
    assert files_in(tmp_path / "run") == []


async def test_the_password_of_the_proxy_is_on_no_command_line(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    start = asyncio.create_subprocess_exec

    async def start_and_record(*command: str, **options: Any) -> asyncio.subprocess.Process:
        started.append((command, options))
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_record)
    site.answers |= {"/page": _page("/video.mp4"), "/video.mp4": ranging(video_file)}
    async with _run(own_database_url, tmp_path, site) as context:
        await download.run_stage(context)
    [(command, options)] = started
    assert "@127.0.0.1" in options["env"]["ALL_PROXY"]
    assert not any("127.0.0.1" in part for part in command)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_a_page_leads_to_no_machine_that_is_not_public(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes, host: str
) -> None:
    with Site() as inner:
        inner.answers["/video.mp4"] = sending(video_file)
        site.answers["/page"] = _page(f"http://{host}:{inner.port}/video.mp4")
        async with _run(own_database_url, tmp_path, site) as context:
            with pytest.raises(StageFailed, match="not a public one"):
                await download.run_stage(context)
        assert inner.visits == []


async def test_the_password_of_a_url_goes_to_no_other_server(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    with Site() as other:
        site.answers |= {"/page": redirecting(f"{other.url}/page")}
        other.answers |= {"/page": _page("/video.mp4"), "/video.mp4": ranging(video_file)}
        row = {"source_url": f"http://user:pass@{site.host}/page", "duration_seconds": None}
        settings = {"allowed_hosts": (site.host, other.host)}
        async with make_context(own_database_url, tmp_path, video=row, settings=settings) as context:
            await download.run_stage(context)
        assert {visit.headers.get("authorization") for visit in site.visits} == {"Basic dXNlcjpwYXNz"}
        assert {visit.headers.get("authorization") for visit in other.visits} == {None}


async def test_a_page_without_a_video_is_reported(own_database_url: str, tmp_path: Path, site: Site) -> None:
    site.answers["/page"] = sending(b"<html><body>Words</body></html>", headers={"Content-Type": "text/html"})
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(StageFailed, match="no video is found") as caught:
            await download.run_stage(context)
        assert not isinstance(caught.value, TransientFailure)


async def test_the_video_of_a_page_may_not_be_too_large(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers |= {"/page": _page("/video.mp4"), "/video.mp4": ranging(video_file)}
    async with _run(own_database_url, tmp_path, site, max_download_bytes=1000) as context:
        with pytest.raises(StageFailed, match="at most 1000 bytes"):
            await download.run_stage(context)
    assert files_in(tmp_path / "run") == []


async def test_all_that_a_page_leads_to_may_not_be_too_large(
    own_database_url: str, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_pages, "_PAGES_BYTES", 0)
    page = b"<html><body>" + b"x" * 100_000
    site.answers["/page"] = sending(page, headers={"Content-Type": "text/html"})
    async with _run(own_database_url, tmp_path, site, max_download_bytes=50_000) as context:
        with pytest.raises(StageFailed, match="at most 50000 bytes") as caught:
            await download.run_stage(context)
        assert not isinstance(caught.value, TransientFailure)


@pytest.fixture(scope="module")
def swelling_page() -> bytes:
    """Half a megabyte of gzip that is 500 MB of HTML."""
    packer, zeros = zlib.compressobj(1, wbits=31), bytes(1024**2)
    return b"".join([packer.compress(b"<html>"), *(packer.compress(zeros) for _ in range(500)), packer.flush()])


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux limits other processes")
@pytest.mark.parametrize(("limit", "value"), [("_MEMORY_BYTES", 256 * 1024**2), ("_CPU_SECONDS", 1)])
async def test_a_page_that_swells_is_given_up(
    own_database_url: str,
    tmp_path: Path,
    site: Site,
    swelling_page: bytes,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
) -> None:
    monkeypatch.setattr(video_pages, limit, value)
    headers = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
    site.answers["/page"] = sending(swelling_page, headers=headers)
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(StageFailed, match="more memory or computing time") as caught:
            await download.run_stage(context)
        assert not isinstance(caught.value, TransientFailure)
    assert files_in(tmp_path / "run") == []


@pytest.mark.parametrize("line", [b"x" * 100_000, b"at %s NA" % (b"9" * 5000), b"at 1 %s" % (b"9" * 5000)])
async def test_progress_beyond_all_measure_is_one_sentence(tmp_path: Path, line: bytes) -> None:
    lines = asyncio.StreamReader()
    lines.feed_data(line + b"\n")
    lines.feed_eof()
    with pytest.raises(StageFailed, match="no readable progress"):
        await video_pages._check_and_report_progress(lines, tmp_path, 1000, lambda received, total: None)


async def test_a_cancelled_download_of_a_page_ends_at_once(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    begun, gone = threading.Event(), threading.Event()

    def trickle(visit: Visit) -> None:
        visit.send(200, video_file[:1000], claimed_size=len(video_file))
        begun.set()
        visit.wait_until_gone()
        gone.set()

    site.answers |= {"/page": _page("/video.mp4"), "/video.mp4": trickle}
    async with _run(own_database_url, tmp_path, site) as context:
        work = asyncio.ensure_future(download.run_stage(context))
        assert await asyncio.to_thread(begun.wait, 30)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert await asyncio.to_thread(gone.wait, 30)
