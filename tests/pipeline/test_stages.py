"""A stage is one row of one table: nothing else of the application lists the stages."""

import ast
import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from app.core.config import Settings
from app.database import open_async_connection
from app.models.runs import RunRequest, StageRecord, StageStatus, next_stage
from app.models.stages import STAGE_TABLE, RetryRule, RunType, Stage, WorkKind, list_stages
from app.pipeline.context import load_stages
from app.storage import audio_folder_key
from tests.factories import make_clip, make_generation_config, make_moment, make_transcript, make_video
from tests.pipeline.added_stage import NAME, copy_project
from tests.runs import begin_run, fail_run, save_stage
from tests.serving import serving

_APP = Path(__file__).resolve().parents[2] / "app"
_SHOW = f"""
from rich.console import Console
from app.models.runs import StageRecord, StageStatus
from app.models.stages import Stage
from app.cli.run_output import RunProgressLines
RunProgressLines(Console()).show_stages({{Stage("{NAME}"): StageRecord(StageStatus.COMPLETED)}})
"""


def test_every_stage_has_one_row_in_the_order_of_the_pipeline() -> None:
    assert list(STAGE_TABLE) == list(Stage) == list(list_stages(RunType.FULL))


def test_every_row_names_a_module_with_both_functions() -> None:
    codes = load_stages()
    assert list(codes) == list(Stage)
    for stage, code in codes.items():
        assert code.definition is STAGE_TABLE[stage]
        assert iscoroutinefunction(code.skip_reason), stage
        assert iscoroutinefunction(code.run_stage), stage


def test_a_worker_loads_the_stages_of_its_kinds_alone() -> None:
    assert list(load_stages([WorkKind.TRANSCRIPTION, WorkKind.AUDIO])) == [
        Stage.AUDIO,
        Stage.AUDIO_UPLOAD,
        Stage.TRANSCRIPT,
    ]
    loading = """
import sys
from app.pipeline.context import load_stages
load_stages(["transcription"])
print(*(name for name in sys.modules if name.startswith("app.pipeline.stages.")))
"""
    assert _run_python(loading, _APP.parent).split() == ["app.pipeline.stages.transcript"]


@pytest.mark.parametrize("run_type", RunType)
def test_each_button_has_stages(run_type: RunType) -> None:
    assert list_stages(run_type)


def test_the_next_stage_is_the_first_that_is_not_done() -> None:
    done, failed = StageRecord(StageStatus.COMPLETED), StageRecord(StageStatus.FAILED)
    assert next_stage(RunType.FULL, {Stage.DOWNLOAD: done, Stage.AUDIO_UPLOAD: done}) is Stage.AUDIO
    assert next_stage(RunType.FULL, {Stage.DOWNLOAD: done, Stage.AUDIO: failed}) is Stage.AUDIO
    assert next_stage(RunType.CLIPS, {Stage.CLIPS: done}) is Stage.CLIP_UPLOAD
    assert next_stage(RunType.CLIPS, {Stage.CLIPS: done, Stage.CLIP_UPLOAD: done}) is Stage.CLIP_UPLOAD


def test_limits_are_settings_and_no_two_stages_share_a_field() -> None:
    limits = {row.limit_setting for row in STAGE_TABLE.values()} - {None}
    assert limits <= Settings.model_fields.keys()
    fields = Counter(field for row in STAGE_TABLE.values() for field in row.counters.values())
    assert max(fields.values()) == 1


def test_the_pause_before_a_retry_doubles_up_to_its_longest() -> None:
    rule = RetryRule(first_pause=2.0, longest_pause=7.0)
    for attempt, longest in ((1, 2.0), (2, 4.0), (3, 7.0), (60, 7.0)):
        pauses = [rule.seconds_before_retry(attempt) for _ in range(50)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest


def test_no_other_module_lists_the_stages() -> None:
    listing = [
        f"{path.relative_to(_APP)}:{line}"
        for path in sorted(_APP.rglob("*.py"))
        if path != _APP / "models" / "stages.py"
        for line in _find_lists(ast.parse(path.read_text()))
    ]
    assert listing == []


def _find_lists(tree: ast.AST) -> Iterator[int]:
    """Yield the lines of literals and matches that name three stages or more."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict | ast.Tuple | ast.List | ast.Set | ast.Match):
            named = {
                inner.attr
                for inner in ast.walk(node)
                if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name) and inner.value.id == "Stage"
            }
            if len(named) >= 3:
                yield node.lineno


def test_a_stage_is_added_with_its_row_and_its_module(own_database_url: str, redis_url: str, tmp_path: Path) -> None:
    copy_project(tmp_path)
    assert _run_python(_SHOW, tmp_path) == "Scoring: done\n"
    media = tmp_path / "media"
    asyncio.run(_add_ended_run(own_database_url, media))
    settings = {"database_url": own_database_url, "redis_url": redis_url, "storage_url": media.as_uri()}
    with (
        serving(tmp_path, **settings, data_dir=tmp_path / "data", run_pipeline_worker=True) as server,
        httpx.Client(base_url=f"{server.url}/api/pipeline/talk", timeout=30) as client,
    ):
        first = _retry(client)
        assert first["stages"][NAME]["status"] == "completed", server.output
        assert _read_live(redis_url, first["request_id"]) == {"status": "completed", "moments": "2"}
        scored = _retry(client)["stages"][NAME]
        assert (scored["status"], scored["skip_reason"]) == ("skipped", f"Done by {first['request_id']}")


def _run_python(code: str, folder: Path) -> str:
    """Run code over the application in a folder, and return its output."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


async def _add_ended_run(database_url: str, media: Path) -> None:
    """Add a video with the results of every stage, and its run, whose refinement fails at each attempt."""
    video_file, audio = media / "talk.mp4", media / audio_folder_key("talk") / "talk.wav"
    audio.parent.mkdir(parents=True)
    for file in (video_file, audio):
        file.write_bytes(b"bytes")
    async with open_async_connection(Settings(database_url=database_url)) as conn:
        video = await make_video(conn, identifier="talk", cloud_url=video_file.as_uri())
        await make_transcript(conn, video_id=video.id)
        config = await make_generation_config(conn)
        await make_clip(conn, await make_moment(conn, video_id=video.id, generation_config_id=config.id))
        run = await begin_run(conn, request=RunRequest(refinement_model="unknown"))
        for stage in Stage:
            await save_stage(conn, run, stage, StageStatus.COMPLETED)
        await fail_run(conn, run, Stage.REFINEMENT, "No such model")


def _retry(client: httpx.Client) -> dict[str, Any]:
    """Run the video's last run again, and return the status in which that has ended."""
    answer = client.post("/retry")
    assert answer.status_code == 200, answer.text
    deadline = time.monotonic() + 60
    while (status := client.get("/status").json())["status"] in ("pending", "processing"):
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    found: dict[str, Any] = status
    return found


def _read_live(redis_url: str, run: str) -> dict[str, str]:
    """Return the fields of the new stage in the live status that the worker has left in Redis."""
    with Redis.from_url(redis_url, decode_responses=True) as redis:
        for key in redis.scan_iter(_type="hash"):
            fields = redis.hgetall(key)
            if fields.get("request_id") == run:
                return {name: fields[f"{NAME}_{name}"] for name in ("status", "moments")}
    return {}
