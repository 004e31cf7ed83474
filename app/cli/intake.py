"""`python -m app intake …`: the requests of other programs on the command line."""

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.servers import open_servers
from app.core.console import open_console
from app.core.text import escape_controls

if TYPE_CHECKING:
    from app.core.config import Settings
    from app.repositories.requests import RejectedRequest

_COLUMNS = ("entry", "received (UTC)", "reason")
_USUAL_LIMIT, _LARGEST_LIMIT = 100, 1_000_000

intake = typer.Typer(rich_markup_mode=None)


@intake.callback()
def _describe_group() -> None:
    """What other programs have put into the stream pipeline:requests."""


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= _LARGEST_LIMIT):
        raise typer.BadParameter(f"a number from 1 to {_LARGEST_LIMIT} is needed")
    return int(text)


@intake.command("rejected", short_help="List the requests that could not become runs.")
def print_rejected(
    limit: Annotated[
        int | None, typer.Option(metavar="N", parser=_count, help=f"how many to list at most ({_USUAL_LIMIT})")
    ] = None,
) -> int:
    """List the requests that could not become runs, the newest first."""
    console = open_console()
    with open_servers(redis=False) as settings:
        rejected = asyncio.run(_load_rejected(settings, limit or _USUAL_LIMIT))
    if console.is_terminal:
        _print_table(rejected, console)
    else:
        for request in rejected:
            console.file.write("\t".join(map(escape_controls, _row(request))) + "\n")
    return 0


async def _load_rejected(settings: "Settings", limit: int) -> "list[RejectedRequest]":
    from app.database import open_async_connection
    from app.repositories.requests import RejectedRequestRepository

    async with open_async_connection(settings) as conn:
        return await RejectedRequestRepository(conn).list_newest_requests(limit)


def _print_table(rejected: "Iterable[RejectedRequest]", console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name != "reason")
    for request in rejected:
        table.add_row(*map(Text, _row(request)))
    console.print(table if table.row_count else "No request was rejected")


def _row(request: "RejectedRequest") -> tuple[str, str, str]:
    return request.entry_id, request.received_at.isoformat(" ", "seconds"), request.reason
