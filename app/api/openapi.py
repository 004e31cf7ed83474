"""What the documentation says of every route alike: keys, and the errors that any route can answer with."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.access import READS, is_open, needs_admin

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
_KEY = (
    "A key of `python -m app keys new`. The scope `read` (`--read-only`) allows to read, `write` to change everything "
    "but models, and `admin` (`--admin`) to change models too"
)
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": _KEY},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key"},
}
# What `BrowserPolicy` answers, and, with 400, what the length of a body is refused with.
_POLICY_REFUSALS = {
    "400": "A header of the request is not valid",
    "403": "The request comes from a web page that is not listed",
    "421": "The request names a host that this server is not known as",
}
_LISTED_ERRORS = ("HTTPValidationError", "ValidationError")  # FastAPI's own: their `detail` is no text

# Subjects, in the order in which the documentation shows them.
TAGS = [
    {"name": "videos", "description": "The library: list, upload, change and delete videos"},
    {"name": "media", "description": "Videos and clips to play, with byte ranges, and their addresses"},
    {"name": "thumbnails", "description": "Still pictures of videos and clips"},
    {"name": "transcripts", "description": "What is said, as JSON, captions and plain text"},
    {"name": "moments", "description": "The moments of a video: list, add, change and delete them"},
    {"name": "search", "description": "Full-text search over transcripts and titles"},
    {"name": "pipeline", "description": "Full runs: start, follow, cancel and retry them, and their history"},
    {"name": "starts", "description": "Start a single stage for a video or a moment"},
    {"name": "status", "description": "How far each stage is"},
    {"name": "lineage", "description": "All that came of a video, as one tree"},
    {"name": "prompts", "description": "What models were asked, and what came of it"},
    {"name": "generation_configs", "description": "With which parameters models were asked, and what came of it"},
    {"name": "models", "description": "The registry of AI models; changing it needs a key of the scope `admin`"},
    {"name": "static", "description": "Media at the addresses that older clients know"},
    {"name": "health", "description": "Whether this server, and those behind it, can serve"},
]


def make_operation_id(route: APIRoute) -> str:
    """Return what a generated client calls the route's method: the name of its function."""
    return route.name


class Application(FastAPI):
    """FastAPI with a complete documentation."""

    needs_keys = False

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        components = schema.setdefault("components", {})
        if "securitySchemes" not in components:  # it is made once, and kept
            components["securitySchemes"] = _SCHEMES
            for path, method, operation in _operations(schema):
                _complete(operation, path, method, self.needs_keys)
            for name in _LISTED_ERRORS:
                components.get("schemas", {}).pop(name, None)
        return schema


def _operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _complete(operation: dict[str, Any], path: str, method: str, keys_are_needed: bool) -> None:
    responses = operation["responses"]
    for status, description in _POLICY_REFUSALS.items():
        responses.setdefault(status, _error(description))
    if _LISTED_ERRORS[0] in str(responses.get("422")):
        responses["422"] = _error("The request is not as documented")
    if is_open(path):
        return
    anybody: list[dict[str, list[str]]] = [] if keys_are_needed else [{}]
    operation["security"] = [*anybody, *({name: []} for name in _SCHEMES)]
    responses.setdefault("401", _error("No valid API key") | {"headers": _header("WWW-Authenticate", "Bearer")})
    if needs_admin(path, method):
        reason = "the API key is not of the scope `admin`, which changing models needs"
        responses["403"] = _error(f"{_POLICY_REFUSALS['403']}, or {reason}")
    elif method not in READS:
        responses["403"] = _error(f"{_POLICY_REFUSALS['403']}, or the API key may only read")
    if "requestBody" in operation:
        responses.setdefault("413", _error("The body is too large"))
    unavailable = responses.setdefault("503", _error("A server behind this one cannot answer now"))
    unavailable["headers"] = _header("Retry-After", "5")


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": _ERROR}


def _header(name: str, example: str) -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}, "example": example}}
