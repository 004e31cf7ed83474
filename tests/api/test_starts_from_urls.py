"""`POST /api/generate_moments`: a run over the video of a URL, or over one that is here."""

import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from redis.asyncio import Redis

from app.core.config import Settings
from app.database import Connection
from app.models.runs import RunOutcome, RunStatus
from app.models.stages import RunType
from app.repositories import VideoRepository
from app.repositories.runs import RunRepository
from app.repositories.stages import ClaimedRunRepository
from tests.api.conftest import change_settings, open_client
from tests.factories import make_video
from tests.runs import claim_run, enqueue_run

URL = "https://cdn.example/a/My Video_File.MP4?x=1"
BODY = {
    "video_url": URL,
    "force_download": False,
    "model": "qwen3_vl_fp8",
    "temperature": 0.7,
    "min_moment_length": 60,
    "max_moment_length": 120,
    "min_moments": 3,
    "max_moments": 10,
    "refinement_parallel_workers": 2,
    "include_video_refinement": True,
}


@pytest.fixture
async def client(live_client: AsyncClient) -> AsyncClient:
    return live_client


async def generate(client: AsyncClient, **changes: Any) -> Response:
    return await client.post("/api/generate_moments", json=BODY | changes)


def reports(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


async def test_a_run_over_a_new_url_adds_its_video(client: AsyncClient, conn: Connection) -> None:
    answer = await generate(client)
    assert answer.status_code == 200
    identifier = answer.json()["request_id"]
    assert answer.json() == {
        "request_id": identifier,
        "video_id": "my-video-file",
        "status": "queued",
        "message": "Pipeline started successfully",
        "download_required": True,
        "source_url": URL,
        "is_cached": False,
    }
    assert identifier.startswith("pipeline:my-video-file:")
    run = await claim_run(conn, identifier)
    assert (run.type, run.video, run.request.video_url) == (RunType.FULL, "my-video-file", URL)
    assert run.request.override_existing_moments is True
    status = (await client.get("/api/pipeline/my-video-file/status")).json()
    assert (status["request_id"], status["status"]) == (identifier, "processing")


async def test_the_same_url_is_the_same_video_and_one_run(client: AsyncClient, conn: Connection) -> None:
    await generate(client)
    assert reports(await generate(client)) == (409, "Pipeline already running for video 'my-video-file'")
    assert await VideoRepository(conn).get_by_identifier("my-video-file")


async def test_a_video_file_that_is_here_is_not_downloaded_again(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    video_file = tmp_path / "media" / "film.mp4"
    video_file.parent.mkdir(exist_ok=True)
    video_file.write_bytes(b"film")
    await make_video(conn, identifier="talk", source_url=URL, cloud_url=video_file.as_uri(), file_size_kb=1)
    found = (await generate(client)).json()
    assert (found["video_id"], found["is_cached"], found["download_required"]) == ("talk", True, False)
    video_file.unlink()
    assert (await client.post("/api/pipeline/talk/cancel")).status_code == 200
    lost = (await generate(client)).json()
    assert (lost["video_id"], lost["is_cached"], lost["download_required"]) == ("talk", False, True)


async def test_a_forced_download_makes_another_video(client: AsyncClient, conn: Connection) -> None:
    await generate(client)
    forced = (await generate(client, force_download=True)).json()
    assert forced["video_id"].startswith("my-video-file-")
    assert abs(int(forced["video_id"].rpartition("-")[2]) - time.time()) < 60


async def test_a_video_that_is_here_can_be_named_instead(client: AsyncClient, conn: Connection) -> None:
    assert reports(await generate(client, video_url=None, video_id="talk")) == (404, "Video not found: talk")
    await make_video(conn, identifier="talk")
    answer = (await generate(client, video_url=None, video_id="talk")).json()
    assert (answer["video_id"], answer["source_url"]) == ("talk", None)
    assert (answer["download_required"], answer["is_cached"]) == (False, True)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"video_url": None}, "Either video_id or video_url must be given"),
        ({"video_id": "talk"}, "Either video_id or video_url must be given"),
        ({"video_url": "ftp://x/y.mp4"}, "video_url must begin with http://, https:// or gs://"),
        ({"video_url": "https://x/"}, "video_url must name a file, and not only where files are"),
        ({"video_url": "gs:///film.mp4"}, "video_url must name a bucket"),
        ({"video_url": "https:///film.mp4"}, "video_url must name a host"),
        ({"min_moment_length": None}, "min_moment_length must be a number, not null"),
        ({"min_moments": 9, "max_moments": 3}, "min_moments must not be greater than max_moments"),
    ],
    ids=str,
)
async def test_what_cannot_be_started_is_one_sentence_and_leaves_nothing(
    client: AsyncClient, conn: Connection, changes: dict[str, Any], detail: str
) -> None:
    assert reports(await generate(client, **changes)) == (422, detail)
    assert await VideoRepository(conn).count() == 0


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/a.mp4", "https://10.1.2.3:8443/a.mp4", "http://[::1]/a.mp4", "http://[fd00::1]/a.mp4"),
        *("http://169.254.169.254/latest/meta-data/a.mp4", "http://192.168.0.1/watch?v=1", "http://0.0.0.0/a.mp4"),
        *("http://2130706433/a.mp4", "http://0x7f.1/a.mp4", "http://[::ffff:127.0.0.1]/a.mp4", "http://100.64.0.1/a"),
        *("http://169.254.169.254./a.mp4", "http://0x7f.1./a.mp4", "http://[fe80::1%25eth0]/a.mp4"),
        *("http://localhost:7005/a.mp4", "http://printer.local/a.mp4", "http://metadata.google.internal/a.mp4"),
    ],
)
async def test_an_address_that_is_not_public_is_refused_at_once(
    client: AsyncClient, conn: Connection, url: str
) -> None:
    status, detail = reports(await generate(client, video_url=url))
    assert (status, detail.startswith("The host of the URL is not a public one")) == (422, True)
    assert await VideoRepository(conn).count() == 0


@pytest.mark.parametrize(
    "host", ["exa mple.com", "example.com:0", "a..b", "%31%32%37.0.0.1", "b" * 64 + ".com", ".".join(["c" * 60] * 5)]
)
async def test_a_host_that_no_server_can_have_is_refused_at_once(
    client: AsyncClient, conn: Connection, host: str
) -> None:
    assert reports(await generate(client, video_url=f"https://{host}/a.mp4")) == (
        422,
        "The URL cannot be read as an address",
    )
    assert await VideoRepository(conn).count() == 0


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.1:8080", "printer.local"])
async def test_hosts_that_the_setting_names_are_accepted(
    settings: Settings, app: FastAPI, redis: Redis, conn: Connection, allowed: str
) -> None:
    host = allowed if ":" in allowed else f"{allowed}:8080"
    async with open_client(change_settings(app, allowed_hosts=(allowed,))) as client:
        assert (await generate(client, video_url=f"http://{host}/a.mp4")).status_code == 200
        refused = await generate(client, video_url="http://127.0.0.2/a.mp4")
    assert refused.status_code == 422


@pytest.mark.parametrize("host", ["no-such-host.invalid", "no_such_host.invalid.", "bücher.invalid"])
async def test_a_host_that_cannot_be_looked_up_now_is_left_to_the_run(client: AsyncClient, host: str) -> None:
    assert (await generate(client, video_url=f"https://{host}/a.mp4")).status_code == 200


async def test_a_video_that_no_identifier_can_name_is_not_found(client: AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/api/generate_moments", content='{"video_id": "\\ud800"}', headers=headers)
    assert reports(answer) == (422, "video_id must be text that UTF-8 can hold")


async def test_a_video_file_that_is_here_is_used_although_its_address_is_not_public(
    client: AsyncClient, conn: Connection
) -> None:
    await make_video(conn, identifier="talk", source_url="http://10.0.0.1/talk.mp4", file_size_kb=1)
    assert (await generate(client, video_url="http://10.0.0.1/talk.mp4")).json()["video_id"] == "talk"
    assert (await generate(client, video_url="http://10.0.0.1/talk.mp4", force_download=True)).status_code == 422


async def test_a_video_whose_video_file_never_came_is_in_no_list_and_can_be_tried_again(
    client: AsyncClient, conn: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    started = (await generate(client)).json()
    address = f"/api/videos/{started['video_id']}"

    async def list_videos() -> list[str]:
        pages = [(await client.get("/api/videos")).json(), (await client.get("/api/videos?limit=10")).json()]
        assert pages[0] == pages[1]
        return [video["id"] for video in pages[0]]

    assert await list_videos() == []
    run = await claim_run(conn, started["request_id"])
    await ClaimedRunRepository(conn).finish_run(
        run, RunOutcome(RunStatus.FAILED, "download", "Video download failed: no")
    )
    assert await list_videos() == []
    caplog.clear()
    for _ in range(2):
        assert (await client.get(f"{address}/thumbnail")).status_code == 404
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    path = f"/api/pipeline/{started['video_id']}"
    assert (await client.get(f"{path}/status")).json()["status"] == "failed"
    assert (await client.get(f"{path}/history")).json()["count"] == 1
    retried = (await client.post(f"{path}/retry")).json()
    video = await VideoRepository(conn).get_by_identifier(started["video_id"])
    assert video is not None
    await VideoRepository(conn).mark_download_complete(video.id)
    assert await list_videos() == [retried["video_id"]] == ["my-video-file"]
    assert (await client.get(address)).json()["title"] == "My Video File"


async def test_a_video_whose_video_file_never_came_can_be_deleted(client: AsyncClient, conn: Connection) -> None:
    started = (await generate(client)).json()
    assert (await client.delete(f"/api/videos/{started['video_id']}?force=true")).status_code == 200
    assert await VideoRepository(conn).count() == 0


async def test_an_unknown_model_leaves_no_video(client: AsyncClient, conn: Connection) -> None:
    assert (await generate(client, model="x")).status_code == 503
    assert await VideoRepository(conn).count() == 0


async def test_a_run_in_the_way_is_409(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="talk", source_url=URL)
    await enqueue_run(conn, run_type=RunType.AUDIO)
    assert reports(await generate(client)) == (409, "Audio processing already in progress for this video")
    assert len(await RunRepository(conn).list_active_runs(10)) == 1
