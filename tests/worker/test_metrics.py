import re
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.models.stages import Stage, WorkKind
from app.worker.metrics import load_metrics_middleware
from tests.cli.test_command_line import environment
from tests.faults.site import Ended, Site, WorkerProcess
from tests.faults.stages import fill_disk
from tests.serving import free_port, serving

COMPLETED = Ended("completed", None, None)


@pytest.fixture
async def site(own_database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(own_database_url, redis_url, tmp_path)
    await site.prepare()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))  # a worker that is killed leaves its folder there
    return site


@contextmanager
def measured(site: Site, **settings: Any) -> Iterator[tuple[WorkerProcess, str]]:
    """Start a worker in another process, and kill it at the end; yield it with the address of its metrics."""
    address = f"127.0.0.1:{free_port()}"
    worker = site.spawn(worker_metrics=address, **settings)
    try:
        yield worker, address
    finally:
        worker.kill()


async def read_counts(address: str, metric: str) -> dict[str, float]:
    """Return a metric's values by the kind of work."""
    async with httpx.AsyncClient() as client:
        try:
            text = (await client.get(f"http://{address}/metrics")).text
        except httpx.ConnectError:  # a worker is ready before its receiver has started, which serves them
            text = ""
    pattern = rf'^{metric}{{task_name="videomoments\.(\w+)"}} ([0-9.]+)$'
    return {kind: float(value) for kind, value in re.findall(pattern, text, re.M)}


async def until_counted(site: Site, address: str, metric: str, *kinds: WorkKind) -> None:
    """Wait until a metric has counted something for these kinds of work, and nothing for the others.

    A message that is received late may have been sent twice.
    """

    async def is_counted() -> bool:
        counts = await read_counts(address, metric)
        return counts.keys() == set(WorkKind) and {kind for kind, count in counts.items() if count} == set(kinds)

    await site.until(is_counted, f"{metric} of {kinds}")


async def test_a_worker_serves_the_counts_and_times_of_each_kind_of_work(site: Site) -> None:
    with measured(site) as (worker, address):
        await worker.ready()
        await until_counted(site, address, "received_tasks_total")
        assert await site.ended(await site.start()) == COMPLETED
        for metric in ("success_tasks_total", "received_tasks_total", "execution_time_count"):
            await until_counted(site, address, metric, *WorkKind)
        await until_counted(site, address, "found_errors_total")


async def test_a_stage_that_fails_is_counted_as_an_error(site: Site) -> None:
    fill_disk(site.folder, Stage.TRANSCRIPT)
    with measured(site) as (worker, address):
        assert (await site.ended(await site.start())).status == "failed"
        await until_counted(site, address, "found_errors_total", WorkKind.TRANSCRIPTION)
        assert "Traceback" not in worker.log.read_text()


async def test_metrics_go_on_after_the_receiver_has_reconnected(site: Site) -> None:
    with measured(site, log_level="debug") as (worker, address):
        assert await site.ended(await site.start()) == COMPLETED
        async with site.redis() as redis:
            await redis.flushdb()  # and with it the consumer groups
        assert await site.ended(await site.start()) == COMPLETED
        assert await site.ended(await site.start()) == COMPLETED

        async def is_counted() -> bool:
            return (await read_counts(address, "received_tasks_total"))["download"] >= 3

        await site.until(is_counted, "the first stage of each run to be counted")
        log = worker.log.read_text()
    assert "Lost the connection to the queue" in log
    assert "ddress already in use" not in log


async def test_the_folder_of_the_metrics_is_private_and_goes_with_its_process(site: Site) -> None:
    scratch = site.folder / "scratch"
    with measured(site) as (worker, _):
        await worker.ready()
        (folder,) = scratch.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        worker.send_signal(signal.SIGTERM)
        assert await worker.left() == 0
    assert list(scratch.iterdir()) == []


async def test_the_workers_of_one_process_share_its_metrics(site: Site) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with site.worker(worker_metrics=address), site.worker(worker_metrics=address):
        assert await site.ended(await site.start()) == COMPLETED
        await until_counted(site, address, "success_tasks_total", *WorkKind)


@pytest.fixture
def taken_address() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_worker_whose_address_is_taken_says_so_and_ends(
    own_database_url: str, redis_url: str, tmp_path: Path, taken_address: str
) -> None:
    variables = {"DATABASE_URL": own_database_url, "REDIS_URL": redis_url, "WORKER_METRICS": taken_address}
    ended = subprocess.run(
        [sys.executable, "-m", "app", "worker"],
        cwd=tmp_path,
        env=environment(tmp_path / "data", **variables),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"Cannot serve WORKER_METRICS at {taken_address}: Address already in use"
    assert "Traceback" not in ended.stderr


def test_a_server_whose_address_is_taken_says_so_and_serves(
    own_database_url: str, redis_url: str, tmp_path: Path, taken_address: str
) -> None:
    settings = {"database_url": own_database_url, "redis_url": redis_url, "data_dir": tmp_path / "data"}
    with serving(tmp_path, **settings, run_pipeline_worker=True, worker_metrics=taken_address) as server:
        assert f"Cannot serve WORKER_METRICS at {taken_address}: Address already in use" in server.output
        assert "Traceback" not in server.output


@pytest.mark.parametrize(
    ("address", "reason"),
    [("nowhere.invalid:9100", "Name or service not known"), ("192.0.2.1:9100", "Cannot assign requested address")],
)
def test_an_address_of_another_machine_is_refused(address: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.worker.metrics._middleware", None)
    with pytest.raises(ConfigurationError, match=f"^Cannot serve WORKER_METRICS at {address}: {reason}$"):
        load_metrics_middleware(Settings(worker_metrics=address))


def test_a_full_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.worker.metrics._middleware", None)
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage(100, 100, 0))
    with pytest.raises(ConfigurationError, match=r"^WORKER_METRICS needs 1 MB of free space in "):
        load_metrics_middleware(Settings(worker_metrics=f"127.0.0.1:{free_port()}"))


_Usage = namedtuple("_Usage", ["total", "used", "free"])
