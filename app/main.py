"""The application and its lifespan: `uvicorn app.main:app`."""

import contextlib
import gc
import logging
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from types import FrameType

import psycopg.pq
from fastapi import FastAPI
from starlette.routing import Route

from app import __version__
from app.api import (
    health,
    jobs,
    media,
    models,
    moments,
    provenance,
    run_requests,
    runs,
    search,
    thumbnails,
    transcripts,
    uploads,
    videos,
)
from app.api.access import ApiKeyMiddleware, OpenServerWarningMiddleware
from app.api.browser_policy import BrowserPolicyMiddleware, PolicyAnswerMiddleware, warn_of_wildcard_settings
from app.api.docs import add_docs_pages
from app.api.errors import install_error_handlers
from app.api.mcp import MCP_PATH, McpEndpoint
from app.api.middleware import BodyLimitMiddleware, RequestContextMiddleware, SlashRedirect
from app.api.openapi import TAGS, Application, make_operation_id
from app.api.runs import make_run_status_feeds
from app.core.config import Settings, get_settings
from app.core.errors import ConfigurationError
from app.core.logging import configure_logging
from app.core.private_files import prepare_data_folder
from app.core.text import escape_controls
from app.database import Connection, OpenConnection, get_connection
from app.database.migrations import list_migration_revisions
from app.resources import Resources, make_resources, open_resources
from app.services.health import ServerHealth

_log = logging.getLogger(__name__)

# Young objects between two collections. Requests make few cycles, and a large answer makes many more objects than the
# 700 after which Python would look for some.
_GC_THRESHOLD = 50_000

# Their routes are searched first and without their routers, which FastAPI asks twice.
_FREQUENT = (videos.reads, moments.reads, transcripts.reads, media.reads, videos.lists)
_ROUTERS = (
    thumbnails.router,
    videos.router,
    moments.router,
    search.router,
    jobs.router,
    runs.router,
    run_requests.videos,
    run_requests.pipelines,
    runs.failed,
    provenance.lineage,
    provenance.prompts,
    provenance.configs,
    transcripts.router,
    media.router,
    media.static,
    transcripts.static,
    models.router,
    uploads.router,
    health.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or get_settings()
    app = Application(
        title="VideoMoments",
        version=__version__,
        description="Find, clip and refine the best moments of a video.",
        lifespan=_open_application,
        docs_url=None,  # FastAPI's own pages load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # SlashRedirect does it
        openapi_tags=TAGS,
        generate_unique_id_function=make_operation_id,
    )
    app.needs_keys = bool(settings.api_keys)

    def open_connection_or_override() -> AsyncGenerator[Connection]:
        open_dependency: OpenConnection = app.dependency_overrides.get(get_connection, get_connection)
        return open_dependency()

    resources = app.state.resources = make_resources(settings, open_connection_or_override)
    app.state.run_feeds = make_run_status_feeds(resources)
    for router in _FREQUENT:
        app.router.routes += router.routes
    for router in _ROUTERS:
        app.include_router(router)
    add_docs_pages(app)
    app.state.mcp = McpEndpoint(app, settings)
    app.router.routes.append(Route(MCP_PATH, app.state.mcp, methods=["POST"], include_in_schema=False))
    app.router.default = SlashRedirect(app.router)
    install_error_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes)
    if settings.api_keys:
        app.add_middleware(ApiKeyMiddleware, keys=settings.api_keys)
    app.add_middleware(PolicyAnswerMiddleware)
    if not settings.api_keys:
        app.add_middleware(OpenServerWarningMiddleware)
    app.add_middleware(RequestContextMiddleware)
    app.add_middleware(
        BrowserPolicyMiddleware, settings=settings
    )  # the outermost, so that errors carry its headers too
    return app


@asynccontextmanager
async def _open_application(app: FastAPI) -> AsyncIterator[None]:
    """The lifespan: configure logging, open the resources, and run the worker if it is enabled."""
    resources: Resources = app.state.resources
    settings = resources.settings
    configure_logging(settings)
    warn_of_wildcard_settings(settings)
    if psycopg.pq.__impl__ == "python":
        _log.warning(
            "psycopg's compiled part is missing, and queries are several times slower: install psycopg[binary]"
        )
    list_migration_revisions()  # read from disk now, not at the first request
    if settings.storage_url is None or settings.data_dir.exists():
        with contextlib.suppress(OSError):  # what needs it says so
            prepare_data_folder(settings)
    async with open_resources(resources), aclosing(app.state.mcp):
        gc.set_threshold(_GC_THRESHOLD)
        gc.collect()
        gc.freeze()
        with _report_unready_at_sigterm(resources.health):
            async with _run_worker_if_enabled(resources):
                yield
        resources.health.is_stopping = True


@asynccontextmanager
async def _run_worker_if_enabled(resources: Resources) -> AsyncIterator[None]:
    settings = resources.settings
    if not settings.run_pipeline_worker:
        yield
        return
    from app.worker.metrics import load_metrics_middleware  # imports that only workers need
    from app.worker.worker import run_worker

    try:
        load_metrics_middleware(settings)
    except ConfigurationError as error:  # as in each process but one of a server with several
        _log.error("%s", error)
        resources = replace(resources, settings=settings.model_copy(update={"worker_metrics": None}))
    async with run_worker(resources):
        yield


@contextmanager
def _report_unready_at_sigterm(health: ServerHealth) -> Iterator[None]:
    """When SIGTERM arrives in the block, mark the server as stopping and call uvicorn's own handler."""
    if threading.current_thread() is not threading.main_thread():  # as in a test client
        yield
        return
    server_handler = signal.getsignal(signal.SIGTERM)

    def handle_sigterm(number: int, frame: FrameType | None) -> None:
        health.is_stopping = True
        if callable(server_handler):
            server_handler(number, frame)
        else:
            raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, handle_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server_handler)


def _create_app_or_exit() -> FastAPI:
    try:
        return create_app()
    except ConfigurationError as error:
        raise SystemExit(escape_controls(str(error))) from None


app = _create_app_or_exit()
