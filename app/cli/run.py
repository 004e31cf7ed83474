"""`python -m app run VIDEO`: its arguments, and its exit status."""

import argparse
import asyncio
import math
from dataclasses import replace

from app.cli.run_progress import open_progress
from app.cli.run_result import print_moments
from app.core.config import Settings
from app.core.console import open_console
from app.core.errors import InvalidInput
from app.core.text import is_utf8, to_nfc
from app.models.runs import RunRequest, RunStatus

_DESCRIPTION = """Serve the API. With VIDEO, instead of that, find the moments of one video: of a file, of an http://,
https:// or gs:// address, or of a video of the library, which is named by its id. Ctrl-C cancels the run."""
_EPILOG = "Exit status with VIDEO: 0 when the run has completed, 1 when it has failed, 130 when it was cancelled."
# The options by the names of what they set in a run's request.
_OPTIONS = {
    "model": "generation_model",
    "prompt": "generation_prompt",
    "min_length": "min_moment_length",
    "max_length": "max_moment_length",
    "min_moments": "min_moments",
    "max_moments": "max_moments",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to `parser`."""
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("video", metavar="VIDEO", nargs="?", help="a file, an address, or the id of a video")
    usual, how = RunRequest(), parser.add_argument_group("with VIDEO")
    how.add_argument(
        "--model", metavar="KEY", type=_text, help=f"model that finds and refines ({usual.generation_model})"
    )
    how.add_argument("--prompt", metavar="TEXT", type=_text, help="what to look for")
    for option, metavar, kind, value, meaning in (
        ("--min-length", "SECONDS", _seconds, usual.min_moment_length, "length of the shortest moment"),
        ("--max-length", "SECONDS", _seconds, usual.max_moment_length, "length of the longest moment"),
        ("--min-moments", "COUNT", _count, usual.min_moments, "moments to find at least, where there are so many"),
        ("--max-moments", "COUNT", _count, usual.max_moments, "moments to find at most"),
    ):
        how.add_argument(option, metavar=metavar, type=kind, help=f"{meaning} ({value:g})")


def refuse_options_without_video(options: argparse.Namespace) -> None:
    """Raises `InvalidInput` where there is to be no run, and it is said how it is to be."""
    for name in _OPTIONS:
        if getattr(options, name) is not None:
            raise InvalidInput(f"--{name.replace('_', '-')} needs a VIDEO")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do one run, print the moments that its video has then, and return the exit status."""
    from app.cli.one_run import execute_run  # a second of imports, which no other command needs

    console, errors = open_console(), open_console(stderr=True)
    progress = open_progress(errors)
    try:
        ended = asyncio.run(execute_run(options.video, _read_request(options), settings, progress))
    except KeyboardInterrupt:
        progress.say("The run was cancelled")
        raise
    finally:
        progress.end()
    if ended.message:
        errors.print(ended.message, markup=False)
    if ended.status in (RunStatus.COMPLETED, RunStatus.PARTIAL):
        print_moments(ended.moments, ended.clips, console)
        return 0
    return 130 if ended.status is RunStatus.CANCELLED else 1


def _read_request(options: argparse.Namespace) -> RunRequest:
    given = {field: value for name, field in _OPTIONS.items() if (value := getattr(options, name)) is not None}
    if options.prompt is not None:
        given["generation_prompt"] = to_nfc(options.prompt)
    request = replace(RunRequest(), **given)
    return replace(request, refinement_model=options.model) if options.model else request


def _text(text: str) -> str:
    if not is_utf8(text):  # bytes of another encoding become lone surrogates, which nothing can store
        raise argparse.ArgumentTypeError("text in UTF-8 is needed")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError("a number of seconds above 0 is needed")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError("a whole number from 1 on is needed")
    return value
