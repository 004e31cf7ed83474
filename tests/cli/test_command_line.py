"""`python -m app …` as a user runs it: real processes, servers of their own, signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from app import __version__
from app.cli.command_line import main
from app.core.config import Settings
from app.database import open_async_connection
from app.database.migrations import list_migration_revisions
from app.embedded import EmbeddedValkey
from app.models.stages import RunType, WorkKind
from tests.conftest import Databases
from tests.factories import make_video
from tests.media.movies import make_movie
from tests.runs import enqueue_run
from tests.serving import free_port

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = Path(sys.executable).with_name("videomoments")


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """The environment of a user who has set nothing but these variables, with the data in `folder`."""
    ours = {name.upper() for name in Settings.model_fields}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"DATA_DIR": str(folder), "PYTHONPATH": str(_ROOT)} | variables


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m app` in an empty folder, where no `.env` lies, to its end."""
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(
        command, cwd=folder.parent, env=environment(folder, **variables), capture_output=True, text=True, timeout=300
    )


class Server:
    """A `python -m app run`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder.parent / f"run-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "run"],
                cwd=folder.parent,
                env=environment(folder, PORT=str(port)),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.output
            return _is_ready(self.url)

        until(is_ready)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(120)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def open_to_others(folder: Path) -> list[Path]:
    """What other users may read, write or look into."""
    found = [folder, *folder.rglob("*")]
    return [path for path in found if path.lstat().st_mode & 0o077 and not path.is_symlink()]


@contextmanager
def serving(folder: Path, port: int) -> Iterator[Server]:
    server = Server(folder, port)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of the previous backend with one transcript and one moment."""
    static = tmp_path / "static"
    (static / "transcripts").mkdir(parents=True)
    (static / "moments").mkdir()
    words = [{"word": "Hello", "start": 0.5, "end": 1.0}]
    transcript = {
        "transcription": "Hello",
        "processing_time": 0.5,
        "word_timestamps": words,
        "segment_timestamps": [{"text": "Hello", "start": 0.5, "end": 1.0, "word_count": 1}],
        "metadata": {"total_segments": 1, "total_words": 1, "duration": 1.0},
    }
    (static / "transcripts" / "my talk.json").write_text(json.dumps(transcript))
    moments = [{"start_time": 0.5, "end_time": 1.0, "title": "Greeting", "id": "0123456789abcdef"}]
    (static / "moments" / "my talk.json").write_text(json.dumps(moments))
    return static


def servers_over(folder: Path) -> list[str]:
    """Command lines of the processes that work in a folder or name it, as /proc shows them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            place, command = os.readlink(process / "cwd"), (process / "cmdline").read_bytes()
        except OSError:
            continue
        if place.startswith(str(folder)) or str(folder).encode() in command:
            found.append(command.decode(errors="replace"))
    return found


def test_run_import_kill_and_run_again_keeps_everything(data: Path, port: int, library: Path) -> None:
    with serving(data, port) as server:
        assert httpx.get(f"{server.url}/health").json()["database"] == "connected"
        for address in (server.url, f"{server.url}/docs", f"{server.url}/health", str(data), "make import DIR="):
            assert address in server.output
        imported = run(data, "import", str(library))
        assert imported.returncode == 0, imported.stdout + imported.stderr
        before = _everything(server)
        assert before["/api/videos"][0]["id"] == "my talk"
        assert open_to_others(data) == []
        shown = run(data, "db", "psql", "--", "-Atc", "SELECT current_user, identifier FROM videos")
        assert (shown.stdout, shown.stderr) == ("videomoments|my talk\n", "")
        assert before["/api/search?q=hello"]["hits"][0]["segments"] == [{"start_time": 0.5, "end_time": 1.0}]
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with serving(data, port) as server:
        assert _everything(server) == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_stays_behind(data: Path, port: int, number: signal.Signals) -> None:
    with serving(data, port) as server:
        assert servers_over(data)
        assert server.end(number) == (-number if number is signal.SIGKILL else 0)
        until(lambda: not servers_over(data))
        assert "Traceback" not in server.output


def test_a_closed_terminal_ends_a_server_as_sigterm_does(data: Path, port: int) -> None:
    with serving(data, port) as server:
        assert server.end(signal.SIGHUP) == 0
        assert not list(data.glob("*.address"))


def test_a_closed_terminal_ends_a_server_that_is_about_to_run(data: Path, port: int) -> None:
    server = Server(data, port)
    until((data / "postgres.lock").exists)
    assert server.end(signal.SIGHUP) == 0
    assert not servers_over(data)


@pytest.mark.parametrize(
    ("command", "module", "status"), [("run", "typer", 0), ("run", "uvicorn", 0), ("settings", "typer", 130)]
)
def test_ctrl_c_while_the_imports_run_shows_no_traceback(
    tmp_path: Path, command: str, module: str, status: int
) -> None:
    (tmp_path / f"{module}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"
    )
    paths = os.pathsep.join((str(tmp_path), str(_ROOT)))
    ended = run(tmp_path / "data", command, PYTHONPATH=paths)
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make is installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_make_run_ends_quietly(data: Path, port: int, number: signal.Signals) -> None:
    options = ("-f", str(_ROOT / "Makefile"), "-o", ".venv/.server", f"BIN={Path(sys.executable).parent}")
    with (data.parent / "make.log").open("wb") as log:
        make = subprocess.Popen(
            ["make", *options, "run"],  # noqa: S607  that of the machine
            cwd=data.parent,
            env=environment(data, PORT=str(port)),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: _is_ready(f"http://127.0.0.1:{port}"))
        os.killpg(make.pid, number)  # as a terminal does for Ctrl-C
        make.wait(120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)
    said = (data.parent / "make.log").read_text()
    assert "***" not in said
    assert "Traceback" not in said
    assert not servers_over(data)


def test_a_server_that_nohup_started_outlives_the_terminal(data: Path, port: int) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(data, port) as server:
            server.process.send_signal(signal.SIGHUP)
            assert httpx.get(f"{server.url}/health/ready").status_code == 200
            assert server.end(signal.SIGTERM) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_run_on_the_same_folder_says_who_is_there(data: Path, port: int) -> None:
    with serving(data, port) as server:
        second = run(data, "run", PORT=str(port))
        assert second.returncode == 1
        assert str(server.process.pid) in second.stderr
        assert "end that command first" in second.stderr
        assert "or set DATA_DIR to another folder" in second.stderr
        assert "Traceback" not in second.stderr
        assert httpx.get(f"{server.url}/health").json()["database"] == "connected"


def test_a_library_is_imported_without_a_running_server_too(data: Path, port: int, library: Path) -> None:
    assert run(data, "import", str(library)).returncode == 0
    with serving(data, port) as server:
        assert [video["id"] for video in httpx.get(f"{server.url}/api/videos").json()] == ["my talk"]


def test_an_import_waits_for_a_server_that_is_about_to_run(data: Path, port: int, library: Path) -> None:
    server = Server(data, port)
    try:
        until((data / "postgres.lock").exists)
        imported = run(data, "import", str(library))
        assert imported.returncode == 0, imported.stderr
        server.wait_until_ready()
        assert [video["id"] for video in httpx.get(f"{server.url}/api/videos").json()] == ["my talk"]
    finally:
        server.end(signal.SIGTERM)


def test_imports_at_once_end_well(data: Path, library: Path) -> None:
    with ThreadPoolExecutor() as threads:
        results = list(threads.map(lambda _: run(data, "import", str(library)), range(3)))
    assert [result.returncode for result in results] == [0, 0, 0], [result.stderr for result in results]


def test_the_database_is_created_migrated_and_checked(databases: Databases, tmp_path: Path) -> None:
    url = databases.url_of(f"videomoments_new_{os.getpid()}")

    def db(action: str) -> subprocess.CompletedProcess[str]:
        return run(tmp_path / "data", "db", action, DATABASE_URL=url)

    try:
        missing = db("current")
        assert missing.returncode == 1
        assert "does not exist" in missing.stderr
        assert len(missing.stderr.strip().splitlines()) == 1
        assert db("create").returncode == 0
        assert "exists already" in db("create").stdout
        assert db("upgrade").returncode == 0
        assert f"database {list_migration_revisions()[0]}" in db("current").stdout
        clean = db("check")
        assert clean.returncode == 0, clean.stdout
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("CREATE INDEX idx_by_hand ON moments (title)")
            conn.execute("ALTER TABLE moments DROP CONSTRAINT moments_score_check")
        differs = db("check")
        assert differs.returncode == 1
        assert "idx_by_hand" in differs.stdout
        assert "moments_score_check" in differs.stdout
        assert db("rebuild-search").returncode == 0
    finally:
        databases.drop(f"videomoments_new_{os.getpid()}")


@pytest.mark.parametrize(
    ("command", "variable", "value", "word"),
    [
        ("run", "DATABASE_URL", "mysql://root:secret@host/db", "DATABASE_URL"),
        ("run", "DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/db", "127.0.0.1:1"),
        ("import", "DATABASE_URL", "postgresql://u:secret@127.0.0.1:1/db", "127.0.0.1:1"),
        ("run", "DATABASE_SYNC_URL", "postgresql://u:secret@127.0.0.1:1/db", "DATABASE_URL is not: set both"),
        ("import", "DATABASE_SYNC_URL", "postgresql://u:secret@127.0.0.1:1/db", "DATABASE_URL is not: set both"),
        ("db upgrade", "DATABASE_POOL_SIZE", "0", "DATABASE_POOL_SIZE"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    tmp_path: Path, library: Path, command: str, variable: str, value: str, word: str
) -> None:
    arguments = [*command.split(), *([str(library)] if command == "import" else [])]
    result = run(tmp_path / "data", *arguments, **{variable: value, "REDIS_URL": "redis://127.0.0.1:1/0"})
    assert result.returncode == 1
    (line,) = result.stderr.strip().splitlines()
    assert word in line
    assert "secret" not in line


@pytest.mark.parametrize("action", ["upgrade", "current", "check", "rebuild-search"])
def test_a_database_that_only_alembic_knows_is_enough_to_maintain_it(
    action: str, own_database_url: str, tmp_path: Path
) -> None:
    result = run(tmp_path / "data", "db", action, DATABASE_SYNC_URL=own_database_url)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken_is_one_sentence_and_no_address(own_database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = run(tmp_path / "data", "run", DATABASE_URL=own_database_url, REDIS_URL="redis://h/0", PORT=port)
    assert result.returncode == 1
    assert result.stderr == f"Cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert result.stdout == ""


@pytest.mark.parametrize("host", ["203.0.113.1", "2001:db8::1"])
def test_an_address_of_another_machine_is_one_sentence(host: str, own_database_url: str, tmp_path: Path) -> None:
    result = run(tmp_path / "data", "run", DATABASE_URL=own_database_url, REDIS_URL="redis://h/0", HOST=host)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Cannot listen on {host}:7005: ")


def test_settings_are_printed_without_starting_anything(tmp_path: Path) -> None:
    result = run(tmp_path / "data", "settings")
    assert "DATABASE_POOL_SIZE=5" in result.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_an_option_that_cannot_be_is_reported_in_words(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    unreadable = "a valid integer, unable to parse string as an integer"
    for option, words in (
        ("--min-length", "a number of seconds above 0 is needed"),
        ("--max-moments", f"Input should be {'greater than or equal to 1' if value == '-1' else unreadable}"),
    ):
        assert main(["run", "talk.mp4", f"{option}={value}"]) == 2
        assert capsys.readouterr().err.endswith(f"Invalid value for '{option}': {words}\n")


def test_sigterm_ends_tasks_quietly() -> None:
    code = """
import asyncio, os, signal, sys
from app.cli import command_line
from app.core import config
async def end():
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(30)
async def work():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(30))
        tasks.create_task(end())
config.describe_settings = lambda: asyncio.run(work())
sys.exit(command_line.main(["settings"]))
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout, result.stderr) == (143, "", "")


@pytest.mark.parametrize("option", ["--prompt", "--model"])
def test_an_option_in_another_encoding_than_utf_8_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "talk.mp4", f"{option}=caf\udce9"]) == 2
    assert capsys.readouterr().err.endswith(f"Invalid value for '{option}': text in UTF-8 is needed\n")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"VideoMoments {__version__}\n"


def test_a_shell_completes_commands_and_options(tmp_path: Path) -> None:
    for words, completed in (("models s", ["show", "seed", "set"]), ("models set --base", ["--base-url"])):
        ended = subprocess.run(
            [_PROGRAM],
            cwd=tmp_path,
            env=environment(
                tmp_path / "data",
                COMP_WORDS=f"videomoments {words}",
                COMP_CWORD=str(len(words.split())),
                _VIDEOMOMENTS_COMPLETE="complete_bash",
            ),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (ended.returncode, ended.stdout.split()) == (0, completed), ended.stderr


def test_no_command_imports_what_only_runs_need() -> None:
    code = "import sys, app.__main__; print([name for name in ('taskiq', 'numpy', 'httpx') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, timeout=300)
    assert result.stdout == "[]\n", result.stderr


@pytest.fixture
async def waiting_run(own_database_url: str, tmp_path: Path) -> str:
    """The address of a database with a run that was accepted a minute ago, and no worker knows of."""
    video_file = make_movie(tmp_path / "library" / "talk.mp4")
    async with open_async_connection(Settings(database_url=own_database_url)) as conn:
        await make_video(conn, identifier="talk", cloud_url=video_file.as_uri())
        await enqueue_run(conn, run_type=RunType.AUDIO)
        await conn.execute("UPDATE pipeline.runs SET notified_at = notified_at - interval '1 minute'")
    return own_database_url


def test_a_worker_does_the_runs_that_wait_and_ends_on_sigterm(waiting_run: str, tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    with EmbeddedValkey(tmp_path / "valkey") as valkey, log.open("wb") as output:
        libraries = str(tmp_path / "library")
        variables = {"DATABASE_URL": waiting_run, "REDIS_URL": valkey.url, "LIBRARY_DIRS": libraries}
        worker = subprocess.Popen(
            [sys.executable, "-m", "app", "worker", "--concurrency", "1"],
            cwd=tmp_path,
            env=environment(tmp_path / "data", **variables),
            stderr=output,
        )
        try:
            until(lambda: worker.poll() is not None or _status_of_run(waiting_run) != "running")
            worker.send_signal(signal.SIGTERM)
            status = worker.wait(120)
        finally:
            worker.kill()
            worker.wait()
    assert status == 0, log.read_text()
    assert _status_of_run(waiting_run) == "completed", log.read_text()
    assert f"executes 1 stages at once: {', '.join(WorkKind)}" in log.read_text()


def _status_of_run(url: str) -> str:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT status FROM pipeline_history").fetchone()
    assert row
    return str(row[0])


def _everything(server: Server) -> dict[str, Any]:
    paths = ["", "/my talk", "/my talk/moments", "/my talk/transcript"]
    addresses = [f"/api/videos{path}" for path in paths] + ["/api/search?q=hello"]
    return {address: httpx.get(server.url + address).json() for address in addresses}
