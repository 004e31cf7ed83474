"""`python -m app intake …`: the requests of other programs on the command line."""

import argparse
import asyncio
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.core.config import Settings
from app.core.console import open_console
from app.core.text import escape_controls
from app.database import connect
from app.repositories.requests import RejectedRequest, RejectedRequestRepository

_COLUMNS = ("entry", "received (UTC)", "reason")
_USUAL_LIMIT, _LARGEST_LIMIT = 100, 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the actions to `parser`."""
    parser.description = "What other programs have put into the stream pipeline:requests."
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    rejected = actions.add_parser("rejected", help="list the requests that could not become runs, the newest first")
    rejected.add_argument(
        "--limit", metavar="N", type=_count, default=_USUAL_LIMIT, help=f"how many to list at most ({_USUAL_LIMIT})"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Print the rejected requests and return the exit status."""
    console = open_console()
    rejected = asyncio.run(_load_rejected(settings, options.limit))
    if console.is_terminal:
        _print_table(rejected, console)
    else:
        for request in rejected:
            console.file.write("\t".join(map(escape_controls, _row(request))) + "\n")
    return 0


async def _load_rejected(settings: Settings, limit: int) -> list[RejectedRequest]:
    async with connect(settings) as conn:
        return await RejectedRequestRepository(conn).list_newest(limit)


def _print_table(rejected: Iterable[RejectedRequest], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name != "reason")
    for request in rejected:
        table.add_row(*map(Text, _row(request)))
    console.print(table if table.row_count else "No request was rejected")


def _row(request: RejectedRequest) -> tuple[str, str, str]:
    return request.entry_id, request.received_at.isoformat(" ", "seconds"), request.reason


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= _LARGEST_LIMIT):
        raise argparse.ArgumentTypeError(f"a number from 1 to {_LARGEST_LIMIT} is needed")
    return int(text)
