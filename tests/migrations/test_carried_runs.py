"""Migration 0014: runs of the version before wait at their stage, and runs of this version go back."""

import json
from typing import Any

import pytest

from tests.conftest import Databases, migrate
from tests.migrations.running import execute, fetch, run_alembic

_DONE = {"status": "completed"}
_SKIPPED = {"status": "skipped", "skip_reason": "Video already exists locally"}
_BUSY = {"status": "processing"}
_FAILED = {"status": "failed", "error": "No room"}
_STAGES = (
    "download",
    "audio",
    "audio_upload",
    "transcript",
    "generation",
    "clips",
    "clip_upload",
    "refinement",
)


@pytest.fixture
def url(databases: Databases) -> str:
    """A database of the version before."""
    url = databases.create()
    migrate(url, "0013")
    execute(url, "INSERT INTO videos (id, identifier, cloud_url) VALUES (1, 'talk', 'file:///talk.mp4')")
    return url


def add_run(
    url: str,
    *,
    run_type: str = "full",
    status: str = "running",
    stages: dict[str, Any] | None = None,
    current_stage: str | None = None,
    attempts: int = 1,
) -> None:
    stage = "NULL" if current_stage is None else f"'{current_stage}'"
    execute(
        url,
        f"""
        INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at)
        VALUES ('run', 1, '{run_type}', '{status}', now());
        INSERT INTO pipeline.work (run_id, subject, request, stages, current_stage, attempts, owner, seen_at, rung_at,
                                   is_cancelled, raw_answer, callback_status, callback_tries)
        SELECT id, 'subject', '{{"max_moments": 4}}', '{json.dumps(stages or {})}', {stage}, {attempts},
               CASE status WHEN 'running' THEN 'worker' END, '2026-11-28', '2026-11-27', true, 'raw', 'waiting', 2
        FROM pipeline_history;
        """,
    )


def fetch_run(url: str) -> tuple[Any, ...]:
    (row,) = fetch(url, "SELECT stage, attempt, owner, heartbeat_at, notified_at FROM pipeline.runs")
    return row


@pytest.mark.parametrize(
    ("run_type", "stages", "stage"),
    [
        ("full", {}, "download"),
        ("full", {"download": _SKIPPED}, "audio"),
        ("full", {"download": _SKIPPED, "audio": _DONE, "audio_upload": _BUSY}, "audio_upload"),
        ("full", {"download": _DONE, "audio": {"status": "waiting"}}, "audio"),
        ("full", {**dict.fromkeys(_STAGES[:4], _DONE), "generation": {"status": "pending"}}, "generation"),
        ("full", {**dict.fromkeys(_STAGES[:5], _DONE), "clips": _FAILED}, "clips"),
        ("full", dict.fromkeys(_STAGES, _DONE), "refinement"),
        ("audio_only", {}, "audio"),
        ("audio_only", {"audio": _DONE}, "audio_upload"),
        ("audio_only", {"audio": _DONE, "audio_upload": _DONE}, "audio_upload"),
        ("transcript_only", {}, "transcript"),
        ("moments_only", {"generation": _BUSY}, "generation"),
        ("clips_only", {}, "clips"),
        ("clips_only", {"clips": _DONE}, "clip_upload"),
        ("refinement_only", {"refinement": _DONE}, "refinement"),
        ("applause_only", {}, "transcript"),
    ],
)
def test_a_running_run_waits_at_its_first_stage_that_is_not_done(
    url: str, run_type: str, stages: dict[str, Any], stage: str
) -> None:
    add_run(url, run_type=run_type, stages=stages, current_stage="transcript", attempts=2)
    migrate(url)
    assert fetch_run(url) == (stage, 1, None, None, None)  # the worker of the second attempt has not died
    kept = "subject, request, stages, raw_answer, cancel_requested, callback_status, callback_attempts, last_error"
    assert fetch(url, f"SELECT {kept} FROM pipeline.runs") == [
        ("subject", {"max_moments": 4}, stages, "raw", True, "waiting", 2, None)
    ]


@pytest.mark.parametrize("status", ["completed", "partial", "failed", "cancelled"])
def test_an_ended_run_keeps_what_it_has_on_the_way_up_and_down(url: str, status: str) -> None:
    add_run(
        url,
        status=status,
        stages={"download": _SKIPPED, "audio": _FAILED, "audio_upload": {"status": "pending"}},
        current_stage="audio",
        attempts=3,
    )
    before = fetch(url, "SELECT * FROM pipeline.work")
    migrate(url)
    stage, attempt, owner, *times = fetch_run(url)
    assert (stage, attempt, owner) == ("audio", 3, None)
    assert None not in times
    run_alembic(url, "downgrade", "0013")
    assert fetch(url, "SELECT * FROM pipeline.work") == before


@pytest.mark.parametrize(
    ("stage", "stages", "current_stage"),
    [
        ("download", {}, None),
        ("audio", {"download": _SKIPPED}, None),
        ("transcript", {"download": _SKIPPED, "audio": _DONE, "audio_upload": _DONE}, "audio_upload"),
        ("transcript", {"audio": _DONE, "transcript": {"status": "waiting"}}, "transcript"),
        ("transcript", {"audio": _DONE, "transcript": _BUSY, "generation": {"status": "pending"}}, "transcript"),
    ],
)
def test_a_running_run_waits_for_the_version_before_on_the_way_down(
    url: str, stage: str, stages: dict[str, Any], current_stage: str | None
) -> None:
    add_run(url, stages=stages)
    migrate(url)
    execute(
        url,
        f"UPDATE pipeline.runs SET stage = '{stage}', owner = 'new', heartbeat_at = now(), notified_at = now(), "
        "attempt = 1, last_error = 'No room'",
    )
    run_alembic(url, "downgrade", "0013")
    columns = "current_stage, attempts, owner, seen_at, rung_at, stages"
    assert fetch(url, f"SELECT {columns} FROM pipeline.work") == [(current_stage, 1, None, None, None, stages)]
    accepted = fetch(
        url, "SELECT other_type FROM pipeline.accept_run('talk', 'second', 'full', '', now()::timestamp, '{}', '{}')"
    )
    assert accepted == [("full",)]


def test_a_run_of_a_version_before_runs_were_kept_is_left_alone(url: str) -> None:
    execute(
        url,
        "INSERT INTO pipeline_history (identifier, video_id, pipeline_type, status, started_at) "
        "VALUES ('old', 1, 'full', 'running', now())",
    )
    migrate(url)
    run_alembic(url, "downgrade", "0013")
    assert fetch(url, "SELECT status FROM pipeline_history") == [("running",)]
