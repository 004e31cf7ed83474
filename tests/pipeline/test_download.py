"""The first stage of a run: the video is brought here from its URL."""

import asyncio
import errno
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import RunLost, StageFailed, TransientFailure
from app.models import Video
from app.models.stages import STAGE_TABLE, Stage
from app.pipeline.context import RunContext
from app.pipeline.stages import download
from app.repositories import VideoRepository
from tests.google_emulator import Emulator
from tests.media.movies import make_movie
from tests.media.test_truncation import cut_off, make_noise
from tests.pipeline.contexts import make_context, take_over
from tests.sites import Answer, Site, Visit, cutting, in_turn, ranging, redirecting, sending
from tests.storage.stores import files_in, make_file, read_all

_PAGE = b"<!DOCTYPE html><html><body>Our videos</body></html>"


@pytest.fixture(scope="module")
def video_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return make_movie(tmp_path_factory.mktemp("videos") / "video.mp4", 2.0).read_bytes()


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@asynccontextmanager
async def _run(url: str, folder: Path, site: Site | str, **changes: Any) -> AsyncIterator[RunContext]:
    """A run over a video that is announced: `site/video.mp4` is to be its video."""
    source = f"{site.url}/video.mp4" if isinstance(site, Site) else site
    settings = {"allowed_hosts": (site.host,) if isinstance(site, Site) else (), **changes}
    announced = (folder / "media" / "videos" / "talk" / "0123456789abcdef.mp4").as_uri()
    row = {"identifier": "talk", "source_url": source, "cloud_url": announced, "duration_seconds": None}
    async with make_context(url, folder, video=row, settings=settings, video_url=source) as context:
        yield context


async def _row(context: RunContext) -> Video:
    async with context.database.connect() as conn:
        video = await VideoRepository(conn).get(context.run.video_id)
    assert video is not None
    return video


async def _is_stored(context: RunContext, video_file: bytes) -> bool:
    return await read_all(context.storage, (await _row(context)).cloud_url) == video_file


async def test_a_video_is_downloaded_stored_and_described(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/video.mp4"] = sending(video_file)
    async with _run(own_database_url, tmp_path, site) as context:
        async with context.database.connect() as conn:
            await conn.execute("INSERT INTO pipeline.pending_videos SELECT id FROM videos")
            assert (await VideoRepository(conn).list_cards())[1] == []
        assert await download.skip_reason(context) is None
        result = await download.run_stage(context)
        row = await _row(context)
        async with context.database.connect() as conn:
            assert [card.identifier for card in (await VideoRepository(conn).list_cards())[1]] == ["talk"]
        assert await _is_stored(context, video_file)
        assert await download.skip_reason(context) == "Video already exists locally"
    assert row.cloud_url.endswith("/0123456789abcdef.mp4")
    assert row.source_url == f"{site.url}/video.mp4"
    assert row.duration_seconds == pytest.approx(2.0, abs=0.2)
    assert (row.video_codec, row.audio_codec, row.resolution) == ("h264", "aac", "64x48")
    assert row.file_size_kb == result["file_size_kb"] == -(-len(video_file) // 1024)
    assert context.progress == {"bytes_downloaded": len(video_file), "total_bytes": len(video_file), "percentage": 100}
    assert files_in(tmp_path / "run") == []


async def test_the_video_is_called_after_what_it_is(own_database_url: str, tmp_path: Path, site: Site) -> None:
    movie = make_movie(tmp_path / "video.webm", 0.5, "libvpx", "libopus")
    site.answers["/video.mp4"] = sending(movie.read_bytes(), headers={"Content-Type": "text/plain"})
    async with _run(own_database_url, tmp_path, site) as context:
        await download.run_stage(context)
        assert (await _row(context)).cloud_url.endswith("/0123456789abcdef.webm")


async def test_a_video_that_is_here_is_not_downloaded(own_database_url: str, tmp_path: Path, site: Site) -> None:
    path = make_file(tmp_path / "library" / "talk.mp4")
    row = {"cloud_url": path.as_uri(), "file_size_kb": 1, "source_url": f"{site.url}/video.mp4"}
    async with make_context(own_database_url, tmp_path, video=row) as context:
        assert await download.skip_reason(context) == "Video already exists locally"


async def test_without_a_video_and_a_url_the_stage_fails(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path) as context:
        assert await download.skip_reason(context) is None
        with pytest.raises(StageFailed, match="no URL to download it from") as caught:
            await download.run_stage(context)
        assert not isinstance(caught.value, TransientFailure)


async def test_a_video_that_went_is_downloaded_again_from_where_it_was(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/old.mp4"] = sending(video_file)
    row = {"cloud_url": (tmp_path / "library" / "gone.mp4").as_uri(), "source_url": f"{site.url}/old.mp4"}
    settings = {"allowed_hosts": (site.host,)}
    async with make_context(own_database_url, tmp_path, video=row, settings=settings) as context:
        await download.run_stage(context)
        assert context.storage.owns((await _row(context)).cloud_url)
        assert await _is_stored(context, video_file)


async def test_a_video_that_a_dead_worker_stored_is_only_described(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    make_file(tmp_path / "media" / "videos" / "talk" / "0123456789abcdef.mp4", video_file)
    async with _run(own_database_url, tmp_path, site) as context:
        assert await download.skip_reason(context) is None
        await download.run_stage(context)
        assert (await _row(context)).resolution == "64x48"
        assert site.visits == []


async def test_a_connection_that_is_cut_goes_on_where_it_was(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/video.mp4"] = in_turn(cutting(video_file, 1000), cutting(video_file, 2000), ranging(video_file))
    async with _run(own_database_url, tmp_path, site) as context:
        await download.run_stage(context)
        assert await _is_stored(context, video_file)
    assert [visit.headers.get("range") for visit in site.visits] == [None, "bytes=1000-", "bytes=3000-"]


async def test_a_server_that_knows_no_ranges_begins_again(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/video.mp4"] = in_turn(cutting(video_file, 1000), sending(video_file))
    async with _run(own_database_url, tmp_path, site) as context:
        await download.run_stage(context)
        assert await _is_stored(context, video_file)


async def test_a_video_that_changed_meanwhile_is_downloaded_from_its_beginning(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    other = make_movie(tmp_path / "other.mp4", 1.0).read_bytes()
    site.answers["/video.mp4"] = in_turn(cutting(other, 1000, '"one"'), ranging(video_file, '"two"'))
    async with _run(own_database_url, tmp_path, site) as context:
        await download.run_stage(context)
        assert await _is_stored(context, video_file)
    assert len(site.visits) == 2


async def test_parts_of_two_videos_are_not_mixed_where_a_server_confuses_them(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    other = make_movie(tmp_path / "other.mp4", 1.0).read_bytes()
    site.answers["/video.mp4"] = in_turn(cutting(other, 1000), ranging(video_file))
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(TransientFailure, match="has changed"):
            await download.run_stage(context)
        await download.run_stage(context)
        assert await _is_stored(context, video_file)


async def test_a_server_that_names_a_range_beyond_all_measure_is_not_gone_on_with(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    span = {"Content-Range": f"bytes {'1' * 5000}-2/{'9' * 5000}"}
    site.answers["/video.mp4"] = in_turn(
        cutting(video_file, 1000), sending(video_file[1000:], 206, span), sending(video_file)
    )
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(TransientFailure, match="has changed"):
            await download.run_stage(context)
        await download.run_stage(context)
        assert await _is_stored(context, video_file)


async def test_a_length_beyond_all_measure_is_one_sentence(own_database_url: str, tmp_path: Path, site: Site) -> None:
    site.answers["/video.mp4"] = lambda visit: visit.write(
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"
    )
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(StageFailed, match="Video download failed: "):
            await download.run_stage(context)


async def test_a_worker_that_takes_the_run_over_goes_on_with_the_part(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/video.mp4"] = in_turn(cutting(video_file, 1000), cutting(video_file, 0))
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(TransientFailure):
            await download.run_stage(context)
        site.answers["/video.mp4"] = ranging(video_file)
        await download.run_stage(await take_over(context))
        assert await _is_stored(context, video_file)
    assert site.visits[-1].headers["range"] == "bytes=1000-"


async def test_a_worker_that_lost_the_run_changes_nothing(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/video.mp4"] = sending(video_file)
    async with _run(own_database_url, tmp_path, site) as context:
        other = await take_over(context)
        with pytest.raises(RunLost):
            await download.run_stage(context)
        assert (await _row(context)).file_size_kb is None
        await download.run_stage(other)
        assert await _is_stored(other, video_file)


async def test_of_a_video_that_was_deleted_meanwhile_no_video_is_left(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    asked, deleted = threading.Event(), threading.Event()

    def answer(visit: Visit) -> None:
        asked.set()
        deleted.wait(30)
        visit.send(200, video_file)

    site.answers["/video.mp4"] = answer
    async with _run(own_database_url, tmp_path, site) as context:
        work = asyncio.ensure_future(download.run_stage(context))
        await asyncio.to_thread(asked.wait, 30)
        async with context.database.connect() as conn:
            await VideoRepository(conn).delete(context.run.video_id)
        deleted.set()
        with pytest.raises(RunLost):
            await work
    assert [name for name in files_in(tmp_path / "media") if name.startswith("videos")] == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sending(_PAGE, headers={"Content-Type": "text/html; charset=utf-8"}), "leads to a web page"),
        (sending(b"\n<!-- hi -->" + _PAGE, headers={"Content-Type": "video/mp4"}), "leads to a web page"),
        (sending(b"<!---->" * 60 + _PAGE, headers={"Content-Type": "video/mp4"}), "leads to a web page"),
        (sending(b"<!---->" * 60 + b"x", headers={"Content-Type": "video/mp4"}), "no video"),
        (sending(b"<!--" + _PAGE, headers={"Content-Type": "video/mp4"}), "no video"),
        (sending(b"some text, and more of it"), "no video"),
        (sending(b""), "file is empty"),
        (sending(b"", 404), "status 404"),
        (sending(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), "compressed"),
        (redirecting("/video.mp4"), "redirects too often"),
        (redirecting("http://[::1]:1/video.mp4"), "not a public one"),
        (redirecting("file:///etc/passwd"), ""),
    ],
)
async def test_what_is_no_video_is_refused_in_a_sentence_and_for_good(
    own_database_url: str,
    tmp_path: Path,
    site: Site,
    answer: Answer,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)  # as where it is not installed
    site.answers["/video.mp4"] = answer
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(StageFailed, match=f"^Video download failed: .*{reason}") as caught:
            await download.run_stage(context)
        assert not isinstance(caught.value, TransientFailure)
        assert files_in(tmp_path / "run") == []


async def test_audio_is_downloaded_as_videos_are(own_database_url: str, tmp_path: Path, site: Site) -> None:
    audio = make_movie(tmp_path / "a.mp3", 0.5, None, "libmp3lame", "mp3").read_bytes()
    site.answers["/video.mp4"] = sending(audio)
    async with _run(own_database_url, tmp_path, site) as context:
        assert (await download.run_stage(context))["format"] == "mp3"
        async with context.database.connect() as conn:
            video = await VideoRepository(conn).get(context.run.video_id)
    assert video is not None
    assert (video.video_codec, video.audio_codec, video.cloud_url[-4:]) == (None, "mp3", ".mp3")
    assert video.is_audio_only


async def test_a_download_of_a_file_that_was_cut_off_says_so(own_database_url: str, tmp_path: Path, site: Site) -> None:
    path = make_noise(tmp_path / "a", "libx264", None, "mp4")
    cut_off(path)
    site.answers["/video.mp4"] = sending(path.read_bytes())
    async with _run(own_database_url, tmp_path, site) as context:
        reason = (await download.run_stage(context))["reason"]
        assert reason.startswith("The file ends early: ")
        assert await download.skip_reason(context) == f"Video already exists locally. {reason}"


async def test_an_image_is_no_video(own_database_url: str, tmp_path: Path, site: Site) -> None:
    site.answers["/video.mp4"] = sending(b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1")
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(StageFailed, match=r"an image \(JPEG\), no video and no audio$"):
            await download.run_stage(context)


async def test_an_address_that_is_not_public_is_refused(own_database_url: str, tmp_path: Path, site: Site) -> None:
    async with _run(own_database_url, tmp_path, site, allowed_hosts=()) as context:
        with pytest.raises(StageFailed, match="not a public one"):
            await download.run_stage(context)
    assert site.visits == []


@pytest.mark.parametrize("answer", [sending(b"", 500), sending(b"", 429), lambda visit: visit.send(200, b"", None, 10)])
async def test_what_may_pass_may_be_tried_again(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes, answer: Answer
) -> None:
    site.answers["/video.mp4"] = in_turn(answer, sending(video_file))
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(TransientFailure):
            await download.run_stage(context)
        await download.run_stage(context)
        assert await _is_stored(context, video_file)
    assert STAGE_TABLE[Stage.DOWNLOAD].retry.attempts == 3


@pytest.mark.parametrize("claimed", [True, False])
async def test_a_video_that_is_too_large_is_not_kept(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes, claimed: bool
) -> None:
    site.answers["/video.mp4"] = cutting(video_file, 0) if claimed else _without_length(video_file)
    async with _run(own_database_url, tmp_path, site, max_download_bytes=1000) as context:
        with pytest.raises(StageFailed, match="at most 1000 bytes") as caught:
            await download.run_stage(context)
        assert not isinstance(caught.value, TransientFailure)
        assert files_in(tmp_path / "run") == []


async def test_a_video_for_which_the_disk_has_no_room_is_not_begun(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.storage.file_system.measure_disk", lambda folder: (len(video_file), len(video_file)))
    site.answers["/video.mp4"] = cutting(video_file, 0)
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(StageFailed, match=r"^Video download failed: there is no room for the video: "):
            await download.run_stage(context)
        assert files_in(tmp_path / "run") == []


async def test_a_video_that_is_longer_than_the_setting_allows_is_not_kept(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/video.mp4"] = ranging(video_file)
    async with _run(own_database_url, tmp_path, site, max_video_hours=0.0005) as context:
        with pytest.raises(StageFailed, match=r"the video is longer than 0\.0005 hours"):
            await download.run_stage(context)
        assert files_in(tmp_path / "run") == []


def _without_length(content: bytes) -> Answer:
    def answer(visit: Visit) -> None:
        visit.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + content)

    return answer


async def test_a_video_of_unknown_length_is_downloaded(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    site.answers["/video.mp4"] = _without_length(video_file)
    async with _run(own_database_url, tmp_path, site) as context:
        await download.run_stage(context)
        assert await _is_stored(context, video_file)
        assert context.progress == {"bytes_downloaded": len(video_file), "total_bytes": 0, "percentage": 0}


async def test_a_cancelled_download_ends_at_once(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes
) -> None:
    closed = threading.Event()

    def trickle(visit: Visit) -> None:
        visit.send(200, video_file[:1000], claimed_size=len(video_file))
        visit.wait_until_gone()
        closed.set()

    site.answers["/video.mp4"] = trickle
    async with _run(own_database_url, tmp_path, site) as context:
        work = asyncio.ensure_future(download.run_stage(context))
        async with asyncio.timeout(30):
            while not context.progress:  # noqa: ASYNC110 (no event is set)
                await asyncio.sleep(0.01)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        assert await asyncio.to_thread(closed.wait, 30)


async def test_a_full_disk_ends_it_and_leaves_nothing(
    own_database_url: str, tmp_path: Path, site: Site, video_file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answers["/video.mp4"] = sending(video_file)
    opened = Path.open

    def open_on_full_disk(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode == "r+b":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", open_on_full_disk)
    async with _run(own_database_url, tmp_path, site) as context:
        with pytest.raises(StageFailed, match="no room for the file") as caught:
            await download.run_stage(context)
        assert not isinstance(caught.value, TransientFailure)
    assert files_in(tmp_path / "run") == []
    assert [name for name in files_in(tmp_path / "media") if name.startswith("videos")] == []


async def test_a_video_in_a_bucket_is_copied(
    own_database_url: str, tmp_path: Path, emulator: Emulator, bucket: str, video_file: bytes
) -> None:
    emulator.put(bucket, "talks/video.mp4", video_file)
    async with _run(own_database_url, tmp_path, f"gs://{bucket}/talks/video.mp4") as context:
        await download.run_stage(context)
        assert (await _row(context)).cloud_url.startswith("file:")
        assert await _is_stored(context, video_file)


async def test_a_video_that_is_in_no_bucket_is_reported(own_database_url: str, tmp_path: Path, bucket: str) -> None:
    async with _run(own_database_url, tmp_path, f"gs://{bucket}/talks/video.mp4") as context:
        with pytest.raises(StageFailed, match="no file at the gs:// URL"):
            await download.run_stage(context)
