"""`/mcp`: tools for assistants over HTTP, where the package mcp is installed."""

import asyncio
import logging
from importlib import import_module
from importlib.util import find_spec

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import error_answer
from app.core.config import Settings

_log = logging.getLogger(__name__)

MCP_PATH = "/mcp"


def is_mcp_installed() -> bool:
    return find_spec("mcp") is not None


class McpEndpoint:
    """The ASGI application at `/mcp`, without sessions: each request is answered by itself.

    The first request starts it, since importing the package takes half a second; after a start that failed, the next
    one. 404 where the package is not installed.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._serving: asyncio.Task[None] | None = None
        self._started: asyncio.Future[ASGIApp]
        self._closing: asyncio.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_mcp_installed():
            await error_answer(404, "The package mcp is not installed on this server")(scope, receive, send)
            return
        if self._serving is None or self._serving.done():
            self._started, self._closing = asyncio.get_running_loop().create_future(), asyncio.Event()
            self._serving = asyncio.create_task(self._serve())
        answer = await asyncio.shield(self._started)
        await answer(scope, receive, send)

    async def aclose(self) -> None:
        if self._serving is not None:
            self._closing.set()
            await self._serving
            self._serving = None

    async def _serve(self) -> None:
        """Keep the session manager open until `aclose`: the task that opens it must close it."""
        try:
            await asyncio.to_thread(import_module, "app.api.mcp_tools")
            from mcp.server.transport_security import TransportSecuritySettings

            from app.api.mcp_tools import open_mcp_server

            async with open_mcp_server(self._app, self._settings) as server:
                answer = server.streamable_http_app(
                    streamable_http_path=MCP_PATH,
                    json_response=True,
                    stateless_http=True,
                    # Names of hosts and origins are checked by BrowserPolicyMiddleware, for all routes.
                    transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
                )
                async with server.session_manager.run():
                    self._started.set_result(answer)
                    await self._closing.wait()
        except Exception as error:
            if self._started.done():
                _log.exception("The tools for assistants have failed")
            else:
                self._started.set_exception(error)
