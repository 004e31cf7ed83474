"""A PgBouncer in front of the test server, where one is installed."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from app.embedded.process import find_unprivileged_account
from tests.serving import free_port

PROGRAM = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")

needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")

_CONFIGURATION = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = {pool_mode}
server_login_retry = 1
default_pool_size = {pool_size}
auth_type = trust
auth_file = {folder}/users.txt
logfile = {folder}/pgbouncer.log
"""


class PgBouncer:
    """The address of a pooler; `url` gives that of a database behind it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url(self, direct_url: str) -> str:
        parameters = conninfo_to_dict(direct_url)
        return f"postgresql://{parameters['user']}@127.0.0.1:{self._port}/{parameters['dbname']}"


@contextmanager
def run_pgbouncer(server_url: str, pool_size: int = 20, pool_mode: str = "transaction") -> Iterator[PgBouncer]:
    """Run a PgBouncer for the user of `server_url`, as another account where this one is root, which it refuses."""
    parameters = conninfo_to_dict(server_url)
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    port = free_port()
    (folder / "pgbouncer.ini").write_text(
        _CONFIGURATION.format(
            host=parameters["host"],
            server_port=parameters.get("port", 5432),
            port=port,
            pool_size=pool_size,
            pool_mode=pool_mode,
            folder=folder,
        )
    )
    (folder / "users.txt").write_text(f'"{parameters["user"]}" "{parameters.get("password") or ""}"\n')
    account = find_unprivileged_account() if os.geteuid() == 0 else None
    if account:
        for path in (folder, *folder.iterdir()):
            os.chown(path, account.uid, account.gid)
    command = [str(PROGRAM), "-q", str(folder / "pgbouncer.ini")]
    process = subprocess.Popen(
        command,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_port(port, process)
        yield PgBouncer(port)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def server_settings(url: str, *names: str) -> list[str]:
    """Return what each of these settings is on the server connection that the next client of the pooler gets."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as conn:
        rows = [conn.execute("SELECT current_setting(%s)", [name]).fetchone() for name in names]
    return [str(row[0]) for row in rows if row]


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            continue
        return
    pytest.fail("pgbouncer did not start")
