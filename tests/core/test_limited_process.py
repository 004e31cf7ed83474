"""Child processes within limits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.core.limited_process import make_limited_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has all of the limits")

_MEMORY, _SECONDS = 512 * 1024**2, 100


def run(code: str, memory: int = _MEMORY, seconds: float = _SECONDS) -> "subprocess.CompletedProcess[str]":
    command = make_limited_command([sys.executable, "-I", "-c", code], memory, seconds)
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_child_has_its_limits() -> None:
    names = "RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_CORE"
    code = f"import resource; print([resource.getrlimit(getattr(resource, name)) for name in {names}])"
    assert run(code).stdout == f"{[(_MEMORY, _MEMORY), (100, 105), (0, 0)]}\n"


def test_a_child_gets_no_more_memory() -> None:
    assert "MemoryError" in run("bytearray(10**9)").stderr


def test_a_child_that_computes_too_long_is_killed() -> None:
    assert run("while True: pass", seconds=1).returncode in (-signal.SIGXCPU, -signal.SIGKILL)


def test_limits_that_hold_already_are_not_raised() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path.cwd())!r}); "
    code += "from app.core.limited_process import make_limited_command; "
    code += "import subprocess; inner = [sys.executable, '-c', 'import resource; print(resource.getrlimit(9))']; "
    code += "subprocess.run(make_limited_command(inner, 2**40, 10**6))"
    assert run(code).stdout == f"({_MEMORY}, {_MEMORY})\n"


def test_a_program_that_is_not_there_is_one_line() -> None:
    command = make_limited_command(["/nowhere/program"], _MEMORY, _SECONDS)
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    sleep = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(300)"
    code = f"""
import subprocess, sys, time
sys.path.insert(0, {str(Path.cwd())!r})
from app.core.limited_process import make_limited_command
subprocess.Popen(make_limited_command([sys.executable, "-c", {sleep!r}], {_MEMORY}, {_SECONDS}))
time.sleep(300)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        pid = _wait_for_number(tmp_path / "pid")
        parent.kill()
    deadline = time.monotonic() + 30
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(pid)


def _wait_for_number(path: Path) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.is_file() and (text := path.read_text()):
            return int(text)
        time.sleep(0.02)
    raise AssertionError("The child did not start")


def _is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody may have reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" and os.getpgid(pid) >= 0
    except OSError:
        return False
