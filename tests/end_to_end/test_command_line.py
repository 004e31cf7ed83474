"""`python -m app run VIDEO` and `make run`, as processes of their own over servers of their own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from app.core.config import Settings
from app.embedded import EmbeddedValkey
from tests.conftest import Databases
from tests.end_to_end.frontend import Frontend
from tests.media.movies import make_movie
from tests.media.talks import Talk
from tests.serving import free_port
from tests.sites import Site, ranging

_ROOT = Path(__file__).resolve().parents[2]
_LIMITS = ("--min-length", "10", "--max-length", "30", "--min-moments", "1")


class Library:
    """A folder, a database and a Valkey that commands share."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, site: Site) -> None:
        self.folder = folder
        ours = {name.upper() for name in Settings.model_fields}
        kept = {name: value for name, value in os.environ.items() if name not in ours}
        self.environment = kept | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "DATA_DIR": str(folder / "data"),
            "ALLOWED_HOSTS": site.host,
            "PYTHONPATH": str(_ROOT),
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.begun(*arguments) as process:
            output, errors = process.communicate(timeout=240)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def list_run_states(self) -> list[tuple[str]]:
        """Return the status of each run of the video `talk`."""
        with psycopg.connect(self.environment["DATABASE_URL"]) as conn:
            return conn.execute(
                "SELECT status FROM pipeline_history AS history JOIN videos ON videos.id = history.video_id"
                " WHERE videos.identifier = 'talk' ORDER BY history.id"
            ).fetchall()

    @contextmanager
    def begun(self, *arguments: str, **variables: str) -> "Iterator[subprocess.Popen[str]]":
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "run", *arguments],
            cwd=self.folder,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def library(
    tmp_path_factory: pytest.TempPathFactory, databases: Databases, template_url: str, site: Site
) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("command-line")
    with EmbeddedValkey(folder / "valkey") as valkey:
        yield Library(folder, databases.create(template_url), valkey.url, site)


def wait_for_line(process: "subprocess.Popen[str]", pattern: str) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(pattern, line):
            return line
    raise AssertionError(f"there was no {pattern!r}")


def test_a_file_becomes_moments_and_a_second_time_the_video_is_there(library: Library, short_talk: Talk) -> None:
    first = library.run(str(short_talk.path), *_LIMITS)
    assert first.returncode == 0, first.stderr
    assert re.search(r"^Upload: done$", first.stderr, re.MULTILINE)
    assert re.search(r"^Transcript: done in [0-9.]+ s$", first.stderr, re.MULTILINE)
    rows = [line.split("\t") for line in first.stdout.splitlines()]
    bread, mars = (row for row in rows if row[2] != "refined")
    assert bread[0].startswith("0:00:0")
    assert mars[0].startswith("0:00:1")
    assert (library.folder / bread[3]).stat().st_size > 1000

    again = library.run(str(short_talk.path), *_LIMITS, "--model", "local")
    assert again.returncode == 0, again.stderr
    assert "Upload" not in again.stderr
    assert "Using the video that the library has" in again.stderr
    assert "Transcript: skipped: Transcript already exists" in again.stderr
    assert len(again.stdout.splitlines()) == len(rows)


def test_what_cannot_be_done_is_one_sentence(library: Library) -> None:
    silent = make_movie(library.folder / "mute.mp4", audio_codec=None)
    (library.folder / "text.mp4").write_text("This is no film.")
    for arguments, reason in (
        (["nowhere"], "There is no file nowhere, and no video of that id"),
        ([str(silent)], "sound|audio"),
        (["text.mp4"], "video"),
        (["--prompt", "jokes"], "The options of run need a VIDEO"),
    ):
        ended = library.run(*arguments)
        assert ended.returncode == 1, (arguments, ended.stderr)
        assert ended.stdout == ""
        assert re.search(reason, ended.stderr.splitlines()[-1]), (arguments, ended.stderr)
        assert "Traceback" not in ended.stderr


def test_another_video_file_of_the_same_name_and_size_is_not_taken_for_the_one_that_is_there(library: Library) -> None:
    mute = make_movie(library.folder / "here" / "alike.mp4", audio_codec=None)
    assert "The video has no audio" in library.run(str(mute)).stderr
    other = library.folder / "there" / "alike.mp4"
    other.parent.mkdir()
    other.write_bytes(mute.read_bytes()[:-1] + b"!")
    assert "The video has no audio" in library.run(str(other)).stderr
    for _ in range(2):
        assert "Using the video that the library has" in library.run(str(other)).stderr


def test_without_moments_the_reason_is_said(library: Library, short_talk: Talk) -> None:
    video_file = library.folder / "short.mp4"
    video_file.write_bytes(short_talk.path.read_bytes())
    ended = library.run(str(video_file), "--min-length", "60")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "No moments were found\n"
    reason = ended.stderr.splitlines()[-1]
    assert re.search(rf"^Moments: skipped: {re.escape(reason)}$", ended.stderr, re.MULTILINE), ended.stderr


def test_ctrl_c_cancels_the_run(library: Library, talk: Talk) -> None:
    with library.begun(str(talk.path)) as process:
        wait_for_line(process, "Transcript: begun")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert output == ""
    assert errors.splitlines()[-1] == "The run was cancelled"
    assert library.list_run_states() == [("cancelled",)]


def test_a_server_that_make_run_starts_works_on_runs_itself_and_a_command_works_beside_it(
    library: Library, short_talk: Talk, site: Site
) -> None:
    port = free_port()
    site.answers["/films/bread-and-mars.mp4"] = ranging(short_talk.path.read_bytes())
    with library.begun(PORT=str(port), LOG_LEVEL="error") as server, Frontend(f"http://127.0.0.1:{port}") as frontend:
        eventually(frontend.is_answered)
        video = frontend.upload(short_talk.path, "served.mp4")
        frontend.press(f"/api/videos/{video}/process-audio")
        frontend.finish_job(f"/api/videos/{video}/audio-extraction-status")
        beside = library.run(f"{site.url}/films/bread-and-mars.mp4", *_LIMITS)
        assert beside.returncode == 0, beside.stderr
        assert re.search(r"^Download: ", beside.stderr, re.MULTILINE)
        assert "media/clips/bread-and-mars/" in beside.stdout
        assert frontend.get("/api/pipeline/bread-and-mars/status")["status"] == "completed"
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=120)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
