"""Alembic inside the test's process and outside of it, and a look at the result."""

import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config

from app.core.config import get_settings
from app.database.catalog import Catalog, read_catalog

ROOT = Path(__file__).resolve().parents[2]
INI = ROOT / "alembic.ini"
VERSIONS = ROOT / "db" / "migrations" / "versions"


def run_alembic(url: str, name: str, *arguments: str, config: Config | None = None, **environment: str) -> None:
    """Run one of Alembic's commands on the database at `url`."""
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in {"DATABASE_URL": url, **environment}.items():
            patch.setenv(variable, value)
        get_settings.cache_clear()
        getattr(command, name)(config or Config(INI), *arguments)
    get_settings.cache_clear()


def start_alembic(url: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start the command `alembic` at the root of the repository with nothing but `DATABASE_URL` set."""
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=ROOT,
        env={"DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fail_alembic(url: str, *arguments: str) -> str:
    """Return what a command that fails with status 1 says on standard error."""
    process = start_alembic(url, *arguments)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    return said


def write_sql(span: str) -> str:
    """Return what `alembic upgrade --sql` prints."""
    output = StringIO()
    command.upgrade(Config(INI, output_buffer=output), span, sql=True)
    return output.getvalue()


def catalog_of(url: str) -> Catalog:
    with psycopg.connect(url) as conn:
        return read_catalog(conn)


def execute(url: str, script: str) -> None:
    """Run a script of several statements, one after the other, as psql would."""
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in re.split(r";\n+(?=\S)", script):  # a line inside a function is indented
            conn.execute(statement.encode())


def fetch(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(statement.encode()).fetchall()


def other_folder(config_folder: Path) -> Config:
    """Return a configuration with one more folder of migrations."""
    config = Config(INI)
    config.set_main_option("version_locations", os.pathsep.join([str(VERSIONS), str(config_folder)]))
    return config
