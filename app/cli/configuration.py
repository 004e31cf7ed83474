"""`python -m app settings` and `python -m app keys new`: what a server is configured with."""

from typing import Annotated

import typer

from app.core.console import open_console

keys = typer.Typer(rich_markup_mode=None)

_console = open_console()


@keys.callback()
def _describe_group() -> None:
    """The keys that clients of the API send."""


@keys.command("new")
def make_key(
    read_only: Annotated[bool, typer.Option("--read-only", help="a key that may read and change nothing")] = False,
    admin: Annotated[
        bool, typer.Option("--admin", help="a key that may change models too, and where they are called")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="what the log calls it; without one it gets a name of its own")
    ] = None,
) -> int:
    """Make a key and print it once."""
    from app.core.api_keys import Access, make_api_key

    if read_only and admin:
        raise typer.BadParameter("not allowed with --read-only", param_hint="'--admin'")
    access: Access = "read" if read_only else "admin" if admin else "write"
    secret, kept = make_api_key(name, access)
    _console.print(f"Key, which is shown this once:  {secret}", markup=False)
    _console.print(f"Entry for API_KEYS:             {kept}", markup=False)
    return 0


def print_settings() -> int:
    """Print every setting with its default."""
    from app.core.config import describe_settings

    for name, default, meaning in describe_settings():
        _console.print(f"{name}={default}  # {meaning}", markup=False)
    return 0
