"""Imports run downwards only, as `pyproject.toml` says."""

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def test_imports_run_downwards_only() -> None:
    check = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    result = subprocess.run([*check, "--no-cache"], cwd=_ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
