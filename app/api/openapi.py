"""The OpenAPI document: tags, and what all routes share: API keys and common errors."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.access import SAFE_METHODS, needs_admin_key, needs_no_api_key

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_KEY = (
    "A key of `python -m app keys new`. The scope `read` (`--read-only`) allows to read, `write` to change everything "
    "but models, and `admin` (`--admin`) to change models too"
)
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": _KEY},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key"},
}
# The refusals of `BrowserPolicyMiddleware`; 400 is also the answer to a wrong Content-Length.
_COMMON_REFUSALS = {
    "400": "A header of the request is not valid",
    "403": "The request comes from a web page that is not listed",
    "421": "The request names a host that this server is not known as",
}
_FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")  # FastAPI's own: their `detail` is not a text

# Subjects, in the order in which the documentation shows them.
TAGS = [
    {"name": "videos", "description": "The library: list, upload, change and delete videos"},
    {"name": "media", "description": "Videos and clips to play, with byte ranges, and their addresses"},
    {"name": "thumbnails", "description": "JPEG frames of videos and clips"},
    {"name": "transcripts", "description": "The spoken text as JSON, captions and plain text"},
    {"name": "moments", "description": "The moments of a video: list, add, change and delete them"},
    {"name": "search", "description": "Full-text search over transcripts and titles"},
    {"name": "pipeline", "description": "Full runs: start, follow, cancel and retry them, and their history"},
    {"name": "starts", "description": "Start a single stage for a video or a moment"},
    {"name": "status", "description": "The progress of each stage"},
    {"name": "lineage", "description": "All results of a video, as one tree"},
    {"name": "prompts", "description": "The prompts that models were given, and their results"},
    {"name": "generation_configs", "description": "The parameters that models were given, and their results"},
    {"name": "models", "description": "The registry of AI models; changing it needs a key of the scope `admin`"},
    {"name": "static", "description": "Media at the addresses of the previous backend"},
    {"name": "health", "description": "Whether this server and its services are available"},
]


def make_operation_id(route: APIRoute) -> str:
    # Generated clients give this name to their method.
    return route.name


class Application(FastAPI):
    """FastAPI whose OpenAPI document includes the API key schemes and the errors that all routes share."""

    needs_keys = False

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        components = schema.setdefault("components", {})
        if "securitySchemes" not in components:  # it is made once, and kept
            components["securitySchemes"] = _SCHEMES
            for path, method, operation in _iterate_operations(schema):
                _document_keys_and_errors(operation, path, method, self.needs_keys)
            for name in _FASTAPI_ERRORS:
                components.get("schemas", {}).pop(name, None)
        return schema


def _iterate_operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _document_keys_and_errors(operation: dict[str, Any], path: str, method: str, needs_keys: bool) -> None:
    responses = operation["responses"]
    for status, description in _COMMON_REFUSALS.items():
        responses.setdefault(status, _error_response(description))
    if _FASTAPI_ERRORS[0] in str(responses.get("422")):
        responses["422"] = _error_response("The request is not as documented")
    if needs_no_api_key(path):
        return
    without_key: list[dict[str, list[str]]] = [] if needs_keys else [{}]
    operation["security"] = [*without_key, *({name: []} for name in _SCHEMES)]
    responses.setdefault(
        "401", _error_response("No valid API key") | {"headers": _document_header("WWW-Authenticate", "Bearer")}
    )
    if needs_admin_key(path, method):
        reason = "the API key is not of the scope `admin`, which changing models needs"
        responses["403"] = _error_response(f"{_COMMON_REFUSALS['403']}, or {reason}")
    elif method not in SAFE_METHODS:
        responses["403"] = _error_response(f"{_COMMON_REFUSALS['403']}, or the API key may only read")
    if "requestBody" in operation:
        responses.setdefault("413", _error_response("The body is too large"))
    unavailable = responses.setdefault("503", _error_response("The database, Redis or the storage is not available"))
    unavailable["headers"] = _document_header("Retry-After", "5")


def _error_response(description: str) -> dict[str, Any]:
    return {"description": description, "content": _ERROR}


def _document_header(name: str, example: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}, "example": example}}
