"""What a page on another name can do with this server in a real browser, and what the frontend can."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page

from app.core.config import Settings
from app.database import open_async_connection
from tests.browser.chromium import FOREIGN, needs_chromium, serving_page
from tests.factories import make_moment, make_video
from tests.media.movies import make_colour_movie
from tests.serving import ServerProcess, serving

# Waits for events: to look again and again the page would have to evaluate a string, which its policy forbids.
_SEEKING = """async () => {
    const video = document.querySelector("video");
    const once = (event) => new Promise((resolve, reject) => {
        video.addEventListener(event, resolve, { once: true });
        video.addEventListener("error", reject, { once: true });
    });
    if (video.readyState < 2) await once("loadeddata");
    const sought = once("seeked");
    video.currentTime = 2;
    await sought;
    return video.currentTime;
}"""

pytestmark = needs_chromium


@pytest.fixture
async def server(tmp_path: Path, own_database_url: str, redis_url: str) -> AsyncIterator[ServerProcess]:
    """A server with one video, of which no thumbnail is made, and one moment."""
    movie = make_colour_movie(tmp_path / "library" / "talk.mp4", 3, ((255, 0, 0),))
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        video = await make_video(conn, identifier="talk", cloud_url=movie.as_uri(), duration_seconds=3)
        await make_moment(conn, video_id=video.id, identifier="intro")
    media, library = (tmp_path / "media").as_uri(), tmp_path / "library"
    with serving(
        tmp_path, database_url=own_database_url, redis_url=redis_url, storage_url=media, library_dirs=library
    ) as server:
        yield server


@pytest.fixture
def port() -> Iterator[int]:
    with serving_page() as port:
        yield port


async def open_page(browser: Browser, host: str, port: int, api: str) -> Page:
    page = await browser.new_page()
    await page.goto(f"http://{host}:{port}/page.html?api={api}")
    return page


def read_state(server: ServerProcess, tmp_path: Path) -> tuple[Any, ...]:
    """Return all that a page could have changed."""
    read = [httpx.get(server.url + path).json() for path in ("/api/videos", "/api/videos/talk/moments")]
    models = httpx.get(f"{server.url}/api/admin/models").json()
    runs = httpx.get(f"{server.url}/api/pipeline/talk/history").json()
    files = sorted(path.name for path in (tmp_path / "media").rglob("*") if path.is_file())
    return *read, models, runs, files


# Each gives the text that the page could read, or null.
_FETCHES = """async () => {
  const json = { "Content-Type": "application/json" };
  const body = JSON.stringify({ start_time: 0, end_time: 1, title: "Foreign", base_url: "http://evil.example" });
  const form = new FormData();
  form.append("file", new Blob(["not a film"]), "foreign.mp4");
  const requests = [
    ["/api/videos", {}],
    ["/api/videos", { mode: "no-cors" }],
    ["/api/videos/talk/thumbnail", { mode: "no-cors" }],
    ["/api/videos/talk/process-audio", { method: "POST", mode: "no-cors" }],
    ["/api/videos/talk/process-audio", { method: "POST", mode: "no-cors", referrerPolicy: "no-referrer" }],
    ["/api/videos/talk/moments", { method: "POST", mode: "no-cors", body }],
    ["/api/videos/talk/moments", { method: "POST", headers: json, body }],
    ["/api/videos", { method: "POST", mode: "no-cors", body: form }],
    ["/api/admin/models/qwen3_vl_fp8", { method: "PATCH", headers: json, body }],
    ["/api/videos/talk", { method: "DELETE" }],
  ];
  const send = ([path, options]) => fetch(api + path, options).then((answer) => answer.text(), () => null);
  return Promise.all(requests.map(send));
}"""
# A form in a frame, and one in a sandboxed frame, whose origin is opaque.
_FORMS = """async () => {
  const files = new DataTransfer();
  files.items.add(new File(["not a film"], "foreign.mp4"));
  const markup = `<form method="post" enctype="multipart/form-data" action="${api}/api/videos">`
    + '<input type="file" name="file"></form>';
  for (const sandbox of [null, "allow-forms allow-scripts"]) {
    const frame = document.createElement("iframe");
    if (sandbox) {
      frame.sandbox = sandbox;
      frame.srcdoc = markup + "<script>document.forms[0].submit()</" + "script>";
    }
    const loaded = once(frame, "load");
    document.body.append(frame);
    await loaded;
    if (!sandbox) {
      frame.contentDocument.body.innerHTML = markup;
      frame.contentDocument.querySelector("input").files = files.files;
      frame.contentDocument.forms[0].submit();
      await once(frame, "load");
    } else {
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}"""
_EMBEDDING = """async ([tag, path, policy]) => {
  const element = document.createElement(tag);
  element.referrerPolicy = policy;
  const end = Promise.race([once(element, "load"), once(element, "loadeddata"), once(element, "error")]);
  element.src = api + path;
  document.body.append(element);
  return (await end).type;
}"""


async def test_a_foreign_page_reads_and_changes_nothing(
    browser: Browser, server: ServerProcess, port: int, tmp_path: Path
) -> None:
    before = read_state(server, tmp_path)
    page = await open_page(browser, FOREIGN, port, server.url)
    assert not any(await page.evaluate(_FETCHES))
    await page.evaluate(_FORMS)
    assert read_state(server, tmp_path) == before
    assert "foreign" not in str(before)


@pytest.mark.parametrize("policy", ["", "no-referrer"])
async def test_a_foreign_page_shows_nothing(
    browser: Browser, server: ServerProcess, port: int, tmp_path: Path, policy: str
) -> None:
    await asyncio.to_thread(httpx.get, f"{server.url}/api/videos/talk/thumbnail")  # makes it, so that it could be shown
    page = await open_page(browser, FOREIGN, port, server.url)
    for tag, path in (("img", "/api/videos/talk/thumbnail"), ("video", "/api/videos/talk/stream")):
        assert await page.evaluate(_EMBEDDING, [tag, path, policy]) == "error"
    await page.evaluate(_EMBEDDING, ["iframe", "/api/videos", policy])
    assert "talk" not in await page.frames[-1].content()


async def test_a_name_that_is_rebound_to_this_server_reads_nothing(browser: Browser, server: ServerProcess) -> None:
    page = await browser.new_page(bypass_csp=True)  # as a page that was there before its name led to this server
    answer = await page.goto(f"http://{FOREIGN}:{server.port}/api/videos")
    assert answer is not None
    assert answer.status == 421
    read = "path => fetch(path, { method: path ? 'GET' : 'POST' }).then((answer) => answer.text())"
    for path in ("/api/videos", "/api/videos/talk/moments", ""):
        assert "is not known as evil.example" in await page.evaluate(read, path)


@pytest.mark.parametrize("api_host", ["localhost", "127.0.0.1"])
async def test_the_frontend_on_another_port_does_it_all(
    browser: Browser, server: ServerProcess, port: int, api_host: str
) -> None:
    page = await open_page(browser, "localhost", port, f"http://{api_host}:{server.port}")
    assert [video["id"] for video in (await page.evaluate("call('/api/videos')"))["body"]] == ["talk"]
    for tag, path in (("img", "/api/videos/talk/thumbnail"), ("video", "/api/videos/talk/stream")):
        assert await page.evaluate(_EMBEDDING, [tag, path, ""]) in ("load", "loadeddata")
    moment = {"start_time": 2, "end_time": 3, "title": "Mine"}
    added = await page.evaluate("moment => addMoment('talk', moment)", moment)
    assert added["status"] == 201
    deleted = await page.evaluate(
        "id => call(`/api/videos/talk/moments/${id}`, { method: 'DELETE' })", added["body"]["id"]
    )
    assert deleted["status"] == 200
    started = await page.evaluate("call('/api/videos/talk/process-audio', { method: 'POST' })")
    assert started["status"] < 300
    refused = await page.evaluate("upload('x.mp4', [1, 2, 3])")
    assert refused["status"] == 422  # for what is in it: it came as far


async def test_an_image_that_was_opened_by_itself_is_shown_by_the_frontend_too(
    browser: Browser, server: ServerProcess, port: int
) -> None:
    api = f"http://localhost:{server.port}"
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"{api}/api/videos/talk/thumbnail")
    assert await page.evaluate("document.images[0].naturalWidth") > 0
    await page.goto(f"http://localhost:{port}/page.html?api={api}")
    assert await page.evaluate(_EMBEDDING, ["img", "/api/videos/talk/thumbnail", ""]) == "load"


async def test_a_video_that_is_opened_by_itself_plays(browser: Browser, server: ServerProcess) -> None:
    page = await browser.new_page()
    await page.goto(f"{server.url}/api/videos/talk/stream")
    assert await asyncio.wait_for(page.evaluate(_SEEKING), 30) == pytest.approx(2, abs=0.1)
