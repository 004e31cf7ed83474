"""`python -m app run`: the server, or one run for VIDEO."""

import math
from dataclasses import replace
from typing import Annotated, Any

import typer

from app.cli.run_output import open_run_progress, print_moments
from app.cli.servers import open_migrated_servers
from app.cli.signals import exit_normally_on_signals
from app.core.console import open_console
from app.core.errors import InvalidInput
from app.core.text import is_utf8, to_nfc
from app.models.runs import RunRequest, RunStatus

_DEFAULTS = RunRequest()


def _parse_utf8_text(text: str) -> str:
    if not is_utf8(text):  # bytes of another encoding become lone surrogates, which nothing can store
        raise typer.BadParameter("text in UTF-8 is needed")
    return to_nfc(text)


def _parse_seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter("a number of seconds above 0 is needed")
    return value


def _make_run_option(flag: str, metavar: str, text: str, **limits: Any) -> Any:
    return typer.Option(flag, metavar=metavar, help=f"{text}; with VIDEO", **limits)


_Video = Annotated[str | None, typer.Argument(metavar="VIDEO", help="a file, an address, or the id of a video")]
_MODEL_HELP = f"model that finds and refines ({_DEFAULTS.generation_model})"
_Model = Annotated[str | None, _make_run_option("--model", "KEY", _MODEL_HELP, parser=_parse_utf8_text)]
_Prompt = Annotated[str | None, _make_run_option("--prompt", "TEXT", "what to look for", parser=_parse_utf8_text)]
_MIN_LENGTH_HELP = f"length of the shortest moment ({_DEFAULTS.min_moment_length:g})"
_MinLength = Annotated[
    float | None, _make_run_option("--min-length", "SECONDS", _MIN_LENGTH_HELP, parser=_parse_seconds)
]
_MAX_LENGTH_HELP = f"length of the longest moment ({_DEFAULTS.max_moment_length:g})"
_MaxLength = Annotated[
    float | None, _make_run_option("--max-length", "SECONDS", _MAX_LENGTH_HELP, parser=_parse_seconds)
]
_MIN_MOMENTS_HELP = f"moments to find at least, where there are so many ({_DEFAULTS.min_moments})"
_MinMoments = Annotated[int | None, _make_run_option("--min-moments", "COUNT", _MIN_MOMENTS_HELP, min=1)]
_MAX_MOMENTS_HELP = f"moments to find at most ({_DEFAULTS.max_moments})"
_MaxMoments = Annotated[int | None, _make_run_option("--max-moments", "COUNT", _MAX_MOMENTS_HELP, min=1)]


def serve_or_run_video(
    video: _Video = None,
    generation_model: _Model = None,
    generation_prompt: _Prompt = None,
    min_moment_length: _MinLength = None,
    max_moment_length: _MaxLength = None,
    min_moments: _MinMoments = None,
    max_moments: _MaxMoments = None,
) -> int:
    """Serve the API, or find the moments of VIDEO.

    VIDEO is a file, an http://, https:// or gs:// address, or a video of the library, which is named by its id. Ctrl-C
    cancels the run.
    """
    options: dict[str, Any] = {
        "generation_model": generation_model,
        "refinement_model": generation_model,
        "generation_prompt": generation_prompt,
        "min_moment_length": min_moment_length,
        "max_moment_length": max_moment_length,
        "min_moments": min_moments,
        "max_moments": max_moments,
    }
    given = {field: value for field, value in options.items() if value is not None}
    if video is not None:
        return _run_and_print_moments(video, replace(_DEFAULTS, **given))
    if given:
        raise InvalidInput("The options of run need a VIDEO")
    with exit_normally_on_signals():
        from app.cli.serving import run_server

        return run_server()
    return 0


def _run_and_print_moments(video: str, request: RunRequest) -> int:
    import asyncio

    with open_migrated_servers(redis=True, log_level="warning") as settings:
        from app.cli.one_run import execute_run  # a second of imports, which no other command needs

        console, errors = open_console(), open_console(stderr=True)
        progress = open_run_progress(errors)
        try:
            ended = asyncio.run(execute_run(video, request, settings, progress))
        except KeyboardInterrupt:
            progress.print_line("The run was cancelled")
            raise
        finally:
            progress.close()
        if ended.message:
            errors.print(ended.message, markup=False)
        if ended.status in (RunStatus.COMPLETED, RunStatus.PARTIAL):
            print_moments(ended.moments, ended.clips, console)
            return 0
        return 130 if ended.status is RunStatus.CANCELLED else 1
