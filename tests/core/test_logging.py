"""What a line of the log shows."""

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from app.core.config import Settings
from app.core.logging import configure_logging, mask_tracebacks

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


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_in_an_error_or_a_field_steers_a_terminal_or_begins_a_record(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    text = "\x1b]0;title\x07 \r\n2026-11-28 INFO    forged \x9b31m\x7f\u202e\u2066\u2028\x85\udcff"
    configure_logging(Settings.model_validate({"log_format": log_format}))
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("tests").exception("failed", extra={"url": text})
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert all(map(str.isprintable, lines))
    assert [line for line in lines if not line.startswith("  ")] == lines[:1]
    if log_format == "json":
        record = json.loads(lines[0])
        assert (record["url"], record["exc_info"].endswith(text)) == (text, True)


def test_a_warning_before_logs_are_configured_is_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    mask_tracebacks()
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.makeLogRecord({"msg": FOREIGN}))
    assert capsys.readouterr().err == f"{SHOWN}\n"


def test_the_lines_of_a_traceback_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="text"))
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("tests").exception("failed")
    assert capsys.readouterr().err.splitlines()[-1] == "  ValueError: broken"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_in_a_message_a_traceback_or_a_field(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    settings = Settings.model_validate(
        {"log_format": log_format, "log_level": "debug", "redis_url": "redis://:Canary-1@redis/0"}
    )
    configure_logging(settings)
    for name in ("tests", "uvicorn", "uvicorn.access", "httpcore.http11", "asyncio"):
        log = logging.getLogger(name)
        monkeypatch.setattr(log, "disabled", False)  # as a server of another test leaves it
        monkeypatch.setattr(log, "propagate", True)
        log.error(
            "GET https://u:Canary-2@host/x?X-Goog-Signature=Canary-3 for %r", {"Authorization": "Bearer Canary-4"}
        )
        try:
            raise ValueError("no answer of Canary-1: Bearer Canary-5")
        except ValueError:
            log.exception("failed", extra={"url": "https://host/?sig=Canary-6", "headers": [("Cookie", "Canary-7=1")]})
    printed = capsys.readouterr().err
    assert printed.count("ValueError: no answer of …: Bearer …") == 5
    assert "Canary" not in printed


def test_what_uvicorn_logs_by_handlers_of_its_own_is_masked_and_escaped() -> None:
    stream = io.StringIO()
    handler, logger = logging.StreamHandler(stream), logging.getLogger("uvicorn.asgi")
    handler.setFormatter(logging.Formatter("uvicorn says %(message)s"))
    logger.addHandler(handler)
    try:
        for _ in range(2):
            configure_logging(Settings(log_format="text"))
        logger.error("Bearer Canary-1")
        try:
            raise ValueError(FOREIGN)
        except ValueError:
            logger.exception("failed: %s\n", FOREIGN)
    finally:
        logger.removeHandler(handler)
    first, second, *traceback = stream.getvalue().removesuffix("\n").split("\n")
    assert (first, second) == ("uvicorn says Bearer …", f"uvicorn says failed: {SHOWN}")
    assert all(line.startswith("  ") and line.isprintable() for line in traceback)


def test_an_error_that_ends_the_process_shows_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    mask_tracebacks()
    error = ValueError("postgresql://u:Canary-1@host")
    sys.excepthook(ValueError, error, None)
    assert capsys.readouterr().err == "ValueError: postgresql://…@host\n"
