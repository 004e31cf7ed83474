"""What a line of the log shows."""

import json
import logging
from collections.abc import Iterator

import pytest

from app.core.config import Settings
from app.core.logging import configure_logging

FOREIGN = "no\nERROR forged \x1b[2J\u202e\u2028end \u00fc"
SHOWN = r"no\nERROR forged \x1b[2J\u202e\u2028end \u00fc".replace(r"\u00fc", "ü")


@pytest.fixture(autouse=True)
def _restore_handlers() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_others_have_written_stays_on_its_line(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging(Settings.model_validate({"log_format": log_format}))
    logging.getLogger("tests").warning("yt-dlp: %s", FOREIGN)
    logging.getLogger("tests").warning("100 % without arguments")
    first, second = capsys.readouterr().err.splitlines()
    message = json.loads(first)["message"] if log_format == "json" else first
    assert f"yt-dlp: {SHOWN}" in message
    assert "100 % without arguments" in second


def test_a_traceback_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="text"))
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("tests").exception("failed")
    assert capsys.readouterr().err.splitlines()[-1] == "ValueError: broken"
