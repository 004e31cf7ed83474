"""`python -m app intake …`: the requests of other programs on the command line."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column

from app.cli.servers import open_servers
from app.core.console import open_console, print_table

if TYPE_CHECKING:
    from app.core.config import Settings
    from app.repositories.requests import RejectedRequest

_DEFAULT_LIMIT, _MAX_LIMIT = 100, 1_000_000

intake = typer.Typer(rich_markup_mode=None, help="What other programs have put into the stream pipeline:requests.")


@intake.command("rejected", short_help="List the requests that could not become runs.")
def print_rejected_requests(
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=_MAX_LIMIT, help="how many to list at most")
    ] = _DEFAULT_LIMIT,
) -> int:
    """List the requests that could not become runs, the newest first."""
    console = open_console()
    with open_servers(redis=False) as settings:
        rejected = asyncio.run(_load_rejected_requests(settings, limit))
    if console.is_terminal and not rejected:
        console.print("No request was rejected")
        return 0
    columns = [Column("entry", no_wrap=True), Column("received (UTC)", no_wrap=True), Column("reason")]
    rows = [(each.entry_id, each.received_at.isoformat(" ", "seconds"), each.reason) for each in rejected]
    print_table(console, columns, rows)
    return 0


async def _load_rejected_requests(settings: "Settings", limit: int) -> "list[RejectedRequest]":
    from app.database import open_async_connection
    from app.repositories.requests import RejectedRequestRepository

    async with open_async_connection(settings) as conn:
        return await RejectedRequestRepository(conn).list_newest_rejected_requests(limit)
