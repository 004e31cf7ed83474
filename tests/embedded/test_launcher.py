"""The step between a parent and its server."""

import os
import subprocess
import sys

from app.embedded import launcher

from .servers import linux_only, root_only


def run_launcher(parent: int, account: str, *command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-I", "-S", launcher.__file__, str(parent), "15", account, *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, extra_groups=[7] if account else None)


def test_the_command_runs_in_the_place_of_the_launcher() -> None:
    assert run_launcher(os.getpid(), "", "/bin/echo", "hello").stdout == "hello\n"


@linux_only
def test_nothing_runs_when_the_parent_died_before_it_could_be_watched() -> None:
    assert run_launcher(1, "", "/bin/echo", "hello").stdout == ""


@root_only
def test_root_is_dropped_with_its_groups() -> None:
    assert run_launcher(os.getpid(), "4242:4243", "/usr/bin/id").stdout.split() == [
        "uid=4242",
        "gid=4243",
        "groups=4243",
    ]


def test_a_command_that_cannot_run_is_named() -> None:
    failed = run_launcher(os.getpid(), "", "/nonexistent/server")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: /nonexistent/server cannot run as this user: ")
