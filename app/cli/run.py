"""`python -m app run`: the server, or one run for VIDEO."""

import math
from dataclasses import replace
from typing import Annotated, Any

import typer

from app.cli.run_progress import open_progress
from app.cli.run_result import print_moments
from app.cli.servers import open_migrated_servers
from app.cli.signals import ended_by_signals
from app.core.console import open_console
from app.core.errors import InvalidInput
from app.core.text import is_utf8, to_nfc
from app.models.runs import RunRequest, RunStatus

_USUAL = RunRequest()
# What the options set in a run's request, where it has another name there.
_REQUEST_FIELDS = {
    "model": "generation_model",
    "prompt": "generation_prompt",
    "min_length": "min_moment_length",
    "max_length": "max_moment_length",
}


def _text(text: str) -> str:
    if not is_utf8(text):  # bytes of another encoding become lone surrogates, which nothing can store
        raise typer.BadParameter("text in UTF-8 is needed")
    return text


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter("a number of seconds above 0 is needed")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise typer.BadParameter("a whole number from 1 on is needed")
    return value


def run(
    video: Annotated[
        str | None, typer.Argument(metavar="VIDEO", help="a file, an address, or the id of a video")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", parser=_text, help=f"model that finds and refines ({_USUAL.generation_model}); with VIDEO"
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", parser=_text, help="what to look for; with VIDEO")
    ] = None,
    min_length: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=_seconds,
            help=f"length of the shortest moment ({_USUAL.min_moment_length:g}); with VIDEO",
        ),
    ] = None,
    max_length: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            parser=_seconds,
            help=f"length of the longest moment ({_USUAL.max_moment_length:g}); with VIDEO",
        ),
    ] = None,
    min_moments: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            parser=_count,
            help=f"moments to find at least, where there are so many ({_USUAL.min_moments}); with VIDEO",
        ),
    ] = None,
    max_moments: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT", parser=_count, help=f"moments to find at most ({_USUAL.max_moments}); with VIDEO"
        ),
    ] = None,
) -> int:
    """Serve the API, or find the moments of VIDEO.

    VIDEO is a file, an http://, https:// or gs:// address, or a video of the library, which is named by its id. Ctrl-C
    cancels the run.
    """
    given = {
        "model": model,
        "prompt": prompt,
        "min_length": min_length,
        "max_length": max_length,
        "min_moments": min_moments,
        "max_moments": max_moments,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if video is not None:
        return _run_once(video, _make_request(options))
    for name in options:
        raise InvalidInput(f"--{name.replace('_', '-')} needs a VIDEO")
    with ended_by_signals():
        from app.cli.serving import run_server

        return run_server()
    return 0


def _run_once(video: str, request: RunRequest) -> int:
    """Do one run, print the moments that its video has then, and return the exit status."""
    import asyncio

    with open_migrated_servers(redis=True, log_level="warning") as settings:
        from app.cli.one_run import execute_run  # a second of imports, which no other command needs

        console, errors = open_console(), open_console(stderr=True)
        progress = open_progress(errors)
        try:
            ended = asyncio.run(execute_run(video, request, settings, progress))
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


def _make_request(options: dict[str, Any]) -> RunRequest:
    given = {_REQUEST_FIELDS.get(name, name): value for name, value in options.items()}
    if "prompt" in options:
        given["generation_prompt"] = to_nfc(options["prompt"])
    request = replace(RunRequest(), **given)
    return replace(request, refinement_model=options["model"]) if options.get("model") else request
