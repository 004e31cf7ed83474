"""A page on another origin that lists, plays, seeks, captions and uploads, in a real browser."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from app.core.config import Settings
from app.database import open_async_connection
from tests.browser.chromium import needs_chromium, serving_page
from tests.factories import make_transcript, make_video
from tests.media.movies import make_colour_movie
from tests.serving import ServerProcess, serving

_LOADED = "() => player.readyState >= 2"
# A second of each colour, again and again.
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SECONDS = 30

pytestmark = needs_chromium


@pytest.fixture
def video_file(tmp_path: Path) -> Path:
    return make_colour_movie(tmp_path / "library" / "talk.mp4", SECONDS, (RED, GREEN, BLUE))


@pytest.fixture
def server(tmp_path: Path, own_database_url: str, redis_url: str) -> Iterator[ServerProcess]:
    media = (tmp_path / "media").as_uri()
    with serving(
        tmp_path,
        database_url=own_database_url,
        redis_url=redis_url,
        storage_url=media,
        library_dirs=tmp_path / "library",
    ) as server:
        yield server


@pytest.fixture
async def page(server: ServerProcess, browser: Browser) -> AsyncIterator[Page]:
    """The page, from a port that is not the server's."""
    with serving_page() as port:
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{port}/page.html?api={server.url}")
        yield page


async def import_talk(database_url: str, video_file: Path, identifier: str = "talk") -> None:
    async with open_async_connection(Settings(database_url=database_url)) as conn:
        video = await make_video(conn, identifier=identifier, cloud_url=video_file.as_uri(), duration_seconds=SECONDS)
        segments = [
            {"text": "First & foremost", "start": 0.0, "end": 5.0, "word_count": 3},
            {"text": "then <this>", "start": 20.0, "end": 25.0, "word_count": 2},
        ]
        await make_transcript(conn, video_id=video.id, segment_timestamps=segments)


async def seek(page: Page, seconds: float, expected: tuple[int, int, int]) -> None:
    """Seek, and wait for the frame: on a busy machine a browser still shows the one before when it has sought."""
    await page.evaluate(f"seek({seconds})")
    await page.wait_for_function(f"isClose(colour(), {list(expected)})")


async def test_a_video_plays_and_seeks_to_any_second(page: Page, own_database_url: str, video_file: Path) -> None:
    await import_talk(own_database_url, video_file)
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status) if answer.url.endswith("/stream") else None)
    await page.evaluate("show('talk')")
    await page.wait_for_function(_LOADED)
    assert set(statuses) == {206}
    assert await page.evaluate("player.duration") == pytest.approx(SECONDS, abs=0.2)
    await page.evaluate("player.play()")
    await page.wait_for_function("player.currentTime > 0.3")
    await page.evaluate("player.pause()")
    for seconds, expected in ((25.5, GREEN), (3.5, RED), (29.5, BLUE), (0.5, RED)):
        await seek(page, seconds, expected)


async def test_an_identifier_with_a_space_plays_too(page: Page, own_database_url: str, video_file: Path) -> None:
    await import_talk(own_database_url, video_file, "my talk ü")
    await page.evaluate("show('my talk ü')")
    await page.wait_for_function(_LOADED)
    await seek(page, 10.5, GREEN)


async def test_captions_are_shown_at_their_time(page: Page, own_database_url: str, video_file: Path) -> None:
    await import_talk(own_database_url, video_file)
    await page.evaluate("show('talk')")
    await page.wait_for_function(_LOADED)
    await page.wait_for_function("player.textTracks[0].cues && player.textTracks[0].cues.length === 2")
    await page.evaluate("seek(21)")
    await page.wait_for_function("shownCaption() !== null")
    assert await page.evaluate("player.textTracks[0].activeCues[0].getCueAsHTML().textContent") == "then <this>"
    await page.evaluate("seek(10)")
    await page.wait_for_function("shownCaption() === null")


async def test_a_card_shows_a_picture_that_was_not_there_before(
    page: Page, own_database_url: str, video_file: Path
) -> None:
    await import_talk(own_database_url, video_file)
    assert (await page.evaluate("show('talk')"))["thumbnail_url"] is None
    await page.wait_for_function("document.getElementById('card').naturalWidth > 0")
    assert (await page.evaluate("show('talk')"))["thumbnail_url"] == "/static/thumbnails/talk.jpg"
    await page.wait_for_function("document.getElementById('card').src.endsWith('/static/thumbnails/talk.jpg')")
    await page.wait_for_function("document.getElementById('card').naturalWidth > 0")


async def test_a_moment_is_added_and_a_second_over_it_is_refused_with_a_sentence(
    page: Page, own_database_url: str, video_file: Path
) -> None:
    await import_talk(own_database_url, video_file)
    moment = {"start_time": 1, "end_time": 6, "title": "Intro"}
    assert (await page.evaluate("moment => addMoment('talk', moment)", moment))["status"] == 201
    refused = await page.evaluate("moment => addMoment('talk', moment)", moment)
    assert refused["status"] == 400
    assert refused["body"]["detail"] == "Moment overlaps with existing moment 'Intro' (1.0s - 6.0s)"


def numbers_of(path: Path) -> list[int]:
    """A file's bytes, as they can be handed to a page."""
    return list(path.read_bytes())


async def test_an_uploaded_video_file_plays(page: Page, video_file: Path) -> None:
    added = await page.evaluate("bytes => upload('My Film.mp4', bytes)", numbers_of(video_file))
    assert (added["status"], added["body"]["id"], added["body"]["title"]) == (201, "my-film", "My Film")
    await page.evaluate("show('my-film')")
    await page.wait_for_function(_LOADED)
    await seek(page, 20.5, BLUE)
