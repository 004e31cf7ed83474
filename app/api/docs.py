"""Swagger UI at `/docs` and Redoc at `/redoc`, which load nothing from other hosts."""

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from starlette.responses import FileResponse, HTMLResponse

_SWAGGER_SCRIPT, _SWAGGER_STYLE = "swagger-ui-bundle.js", "swagger-ui.css"
_REDOC_SCRIPT, _ICON = "redoc.standalone.js", "favicon.png"
_CACHE_ONE_HOUR = {"Cache-Control": "public, max-age=3600"}
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Both use inline styles, Redoc searches in a web worker, and Swagger UI shows media as blobs.
_CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src blob:; font-src data:; connect-src 'self'; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

ASSET_PATHS = tuple(f"/docs/{name}" for name in (_SWAGGER_SCRIPT, _SWAGGER_STYLE, _REDOC_SCRIPT, _ICON))
PAGE_PATHS = ("/docs", "/docs/oauth2-redirect", "/redoc")


def add_docs_pages(app: FastAPI) -> None:
    for path, endpoint in zip(PAGE_PATHS, (_show_swagger_ui, _show_oauth2_redirect_page, _show_redoc), strict=True):
        app.add_route(path, endpoint, include_in_schema=False)
    for path in ASSET_PATHS:
        app.add_route(path, _send_docs_asset, include_in_schema=False)


async def _show_swagger_ui(request: Request) -> HTMLResponse:
    root = _get_proxy_path_prefix(request)
    page = get_swagger_ui_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=request.app.title,
        swagger_js_url=f"{root}/docs/{_SWAGGER_SCRIPT}",
        swagger_css_url=f"{root}/docs/{_SWAGGER_STYLE}",
        swagger_favicon_url=f"{root}/docs/{_ICON}",
        oauth2_redirect_url=f"{root}/docs/oauth2-redirect",
        swagger_ui_parameters=request.app.swagger_ui_parameters,
    )
    return _set_content_security_policy(page)


async def _show_oauth2_redirect_page(request: Request) -> HTMLResponse:
    return _set_content_security_policy(get_swagger_ui_oauth2_redirect_html())


async def _show_redoc(request: Request) -> HTMLResponse:
    root = _get_proxy_path_prefix(request)
    page = get_redoc_html(
        openapi_url=f"{root}{request.app.openapi_url}",
        title=request.app.title,
        redoc_js_url=f"{root}/docs/{_REDOC_SCRIPT}",
        redoc_favicon_url=f"{root}/docs/{_ICON}",
        with_google_fonts=False,
    )
    return _set_content_security_policy(page)


async def _send_docs_asset(request: Request) -> FileResponse:
    name = PurePosixPath(request.scope["path"]).name
    return FileResponse(str(files("fastapi_offline") / "static" / name), headers=_CACHE_ONE_HOUR)


def _set_content_security_policy(page: HTMLResponse) -> HTMLResponse:
    scripts = _INLINE_SCRIPT.findall(bytes(page.body).decode())
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    hashes = "".join(f" 'sha256-{each}'" for each in digests)
    page.headers["Content-Security-Policy"] = _CONTENT_POLICY.format(hashes=hashes)
    return page


def _get_proxy_path_prefix(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")
