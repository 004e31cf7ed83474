"""`python -m app keys new`, and what a server does with what it prints."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.cli.test_command_line import environment, run
from tests.serving import free_port, serving

ALL = "0.0.0.0"  # noqa: S104  a start that others can reach is what is tested


def make_key(folder: Path, *options: str) -> tuple[str, str]:
    """Run the command in a folder and return the key and its entry."""
    result = run(folder / "data", "keys", "new", *options)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    return first.split()[-1], second.split()[-1]


def test_a_key_opens_the_server_that_has_its_entry(tmp_path: Path, own_database_url: str, redis_url: str) -> None:
    (full, first), (reader, second) = make_key(tmp_path), make_key(tmp_path, "--read-only", "--name", "ci")
    admin, third = make_key(tmp_path, "--admin", "--name", "owner")
    assert (second[:8], third[:12]) == ("ci:read:", "owner:admin:")
    keys = f"{first},{second},{third}"
    with serving(tmp_path, database_url=own_database_url, redis_url=redis_url, api_keys=keys) as server:

        def post(headers: dict[str, str]) -> int:
            return httpx.post(f"{server.url}/api/admin/models/seed", headers=headers).status_code

        assert [post({}), post({"X-API-Key": reader}), post({"X-API-Key": full})] == [401, 403, 403]
        assert post({"Authorization": f"Bearer {admin}"}) == 200
        assert httpx.get(f"{server.url}/api/videos", headers={"X-API-Key": reader}).status_code == 200
        assert full not in server.output
        assert reader not in server.output


def test_making_a_key_writes_and_starts_nothing(tmp_path: Path) -> None:
    make_key(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_key_has_one_scope(tmp_path: Path) -> None:
    result = run(tmp_path / "data", "keys", "new", "--admin", "--read-only")
    assert (result.returncode, result.stdout) == (2, "")


def test_a_name_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    result = run(tmp_path / "data", "keys", "new", "--name", "a:b")
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("host", "keys", "warns"), [(ALL, 0, True), (ALL, 1, False), ("127.0.0.1", 0, False)])
def test_a_start_that_others_can_reach_warns_where_there_is_no_key(
    tmp_path: Path, own_database_url: str, redis_url: str, host: str, keys: int, warns: bool
) -> None:
    port = free_port()
    entry = make_key(tmp_path)[1] if keys else ""
    settings = {"DATABASE_URL": own_database_url, "REDIS_URL": redis_url, "HOST": host, "PORT": str(port)}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "run"],
            cwd=tmp_path,
            env=environment(tmp_path / "data", API_KEYS=entry, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 120
        while "Application startup complete" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert ("set API_KEYS" in log.read_text()) is warns
    finally:
        process.terminate()
        process.wait(60)
