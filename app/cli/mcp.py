"""`python -m app mcp`: the tools for assistants over standard input and output."""

import asyncio
from typing import TYPE_CHECKING

import typer

from app.cli.servers import open_migrated_servers
from app.core.console import open_console

if TYPE_CHECKING:
    from app.core.config import Settings


def serve_mcp_over_stdio() -> int:
    """Serve the tools for assistants over standard input and output, until the input ends.

    It uses the servers of the settings, or those that `make run` started, with all rights: no API key is needed.
    """
    from app.api.mcp import is_mcp_installed

    if not is_mcp_installed():
        open_console(stderr=True).print(
            "The package mcp is not installed: install requirements-local.txt", markup=False
        )
        raise typer.Exit(1)
    with open_migrated_servers(redis=True, log_level="warning") as settings:
        asyncio.run(_serve(settings))
    return 0


async def _serve(settings: "Settings") -> None:
    from app.api.mcp_tools import open_mcp_server
    from app.main import create_app

    app = create_app(settings.model_copy(update={"api_keys": (), "run_pipeline_worker": False, "worker_metrics": None}))
    async with app.router.lifespan_context(app), open_mcp_server(app, settings) as server:
        await server.run_stdio_async()
