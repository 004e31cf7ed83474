"""`python -m app models …`, and what it keeps to itself."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from redis import Redis

from app.core.config import Settings
from app.core.errors import VideoMomentsError
from tests.cli.test_command_line import run

SECRET = "sk-never-shown"  # noqa: S105  of nobody


@dataclass
class Command:
    """Runs the command, without a process of its own, over the test's Redis."""

    settings: Settings
    run_with: Callable[..., int]
    capsys: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Return what is printed."""
        self.patch.setattr(sys, "stdin", io.StringIO(stdin))
        assert self.run_with(self.settings, "models", *arguments) == 0
        return self.capsys.readouterr().out

    def show(self, key: str) -> dict[str, str]:
        lines = self.run("show", key).splitlines()
        return {name: value.strip() for name, _, value in (line.partition(" ") for line in lines)}


@pytest.fixture
def command(
    redis_url: str,
    run_with: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    return Command(Settings(redis_url=redis_url), run_with, capsys, monkeypatch)


def test_models_are_listed(command: Command) -> None:
    address = f"http://127.0.0.1:8000/{'x' * 100}"
    command.run("set", "qwen", "--base-url", address)
    lines = [line.split() for line in command.run("list").splitlines()]
    assert [line[0] for line in lines] == ["key", "local", "minimax", "parakeet", "qwen", "qwen3_omni", "qwen3_vl_fp8"]
    assert lines[2][1:5] == ["MiniMax", "chat", "this", "machine"]
    assert lines[4][1:4] == ["Qwen3-VL", "chat", address]


def test_the_fields_that_are_given_are_changed(command: Command) -> None:
    changed = ("--base-url", "http://127.0.0.1:8000/v1", "--model-id", "", "--supports-video", "--top-k", "20")
    command.run("set", "qwen", *changed)
    command.run("set", "qwen", "--top-p", "0.5")
    shown = command.show("qwen")
    assert [shown[name] for name in ("name", "base_url", "model_id", "supports_video", "top_p", "top_k")] == [
        *("Qwen3-VL", "http://127.0.0.1:8000/v1", "", "yes", "0.5", "20")
    ]


def test_a_new_model_is_made(command: Command) -> None:
    command.run("set", "ears", "--kind", "transcription", "--base-url", "http://127.0.0.1:1")
    shown = command.show("ears")
    assert (shown["name"], shown["kind"]) == ("ears", "transcription")


def test_a_deleted_model_is_gone_and_seeding_by_force_brings_it_back(command: Command) -> None:
    assert command.run("delete", "qwen") == "Deleted qwen\n"
    with pytest.raises(VideoMomentsError, match="Model qwen not found; there are: local, "):
        command.run("show", "qwen")
    assert command.run("seed") == "Seeded 0 models\n"
    assert command.run("seed", "--force") == "Seeded 6 models\n"
    assert command.show("qwen")["base_url"] == ""


def test_an_api_key_comes_from_the_environment_or_standard_input_and_is_never_shown(command: Command) -> None:
    command.patch.setenv("MODEL_API_KEY", SECRET)
    printed = [command.run("set", "qwen", "--api-key")]
    command.patch.delenv("MODEL_API_KEY")
    printed += [command.run("set", "minimax", "--api-key", stdin=f"{SECRET}\n"), command.run("list")]
    assert not any(SECRET in each for each in printed)
    assert [command.show(key)["api_key"] for key in ("qwen", "minimax", "parakeet")] == ["set", "set", ""]
    command.run("set", "qwen", "--no-api-key")
    assert command.show("qwen")["api_key"] == ""


@pytest.mark.parametrize(
    ("arguments", "stdin", "sentence"),
    [
        (("set", "qwen"), "", "Name at least one field to change, with a value that is not null"),
        (
            ("set", "qwen", "--base-url", "localhost"),
            "",
            "--base-url must be an http:// or https:// address, or empty",
        ),
        (
            ("set", "qwen", "--base-url", f"http://user:{SECRET}@127.0.0.1:1"),
            "",
            "--base-url must hold no user or password: set the API key instead",
        ),
        (("set", "qwen", "--top-p", "7"), "", "--top-p must be 1 or less"),
        (("set", "qwen", "--api-key"), "", "No API key: set MODEL_API_KEY, or write it to standard input"),
        (("set", "qwen", "--api-key"), f"{SECRET} two", "--api-key must be printable ASCII without spaces"),
        (("set", "seed", "--name", "x"), "", "A model cannot have the key seed"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    command: Command, arguments: tuple[str, ...], stdin: str, sentence: str
) -> None:
    with pytest.raises(VideoMomentsError) as caught:
        command.run(*arguments, stdin=stdin)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "arguments", [("show", "a b"), ("set", "qwen", "--api-key", SECRET), ("set", "x", "--kind", "y")]
)
def test_arguments_that_cannot_be_are_refused(command: Command, arguments: tuple[str, ...]) -> None:
    with pytest.raises(typer.TyperException) as refused:
        command.run(*arguments)
    assert refused.value.exit_code == 2


def test_a_redis_that_is_away_is_one_sentence(tmp_path: Path, own_database_url: str) -> None:
    result = run(tmp_path / "data", "models", "list", DATABASE_URL=own_database_url, REDIS_URL="redis://127.0.0.1:1/0")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", "Redis is not available\n")


def test_an_address_elsewhere_removes_the_api_key_and_says_so(command: Command) -> None:
    command.patch.setenv("MODEL_API_KEY", SECRET)
    command.run("set", "qwen", "--base-url", "http://127.0.0.1:1", "--api-key")
    command.run("set", "qwen", "--base-url", "http://127.0.0.1:1/v1")
    assert command.show("qwen")["api_key"] == "set"
    assert "The API key was removed" in command.run("set", "qwen", "--base-url", "http://127.0.0.1:2")
    assert command.show("qwen")["api_key"] == ""
