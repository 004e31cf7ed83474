"""The one mapping from errors to answers. `detail` is always one short string."""

import logging
from collections.abc import Mapping

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from app.api.answers import json_answer
from app.core.errors import (
    Conflict,
    DatabaseAhead,
    DatabaseUnavailable,
    InvalidInput,
    InvalidMoment,
    ModelNotConfigured,
    NoMatchingRun,
    NotFound,
    PipelineActive,
    RedisUnavailable,
    RunInputMissing,
    SizeLimitExceeded,
    StorageFull,
    StorageUnavailable,
    TooManyFollowers,
    VideoMomentsError,
)
from app.core.masking import mask_secrets
from app.core.redis import describe_redis_error, translate_redis_error
from app.core.text import escape_json
from app.core.validation import describe_validation_error
from app.database.errors import translate_database_error

_log = logging.getLogger(__name__)

_STATUS: Mapping[type[VideoMomentsError], int] = {
    NotFound: 404,
    InvalidMoment: 400,
    PipelineActive: 400,
    NoMatchingRun: 400,
    RunInputMissing: 400,
    InvalidInput: 422,
    Conflict: 409,
    ModelNotConfigured: 503,
    TooManyFollowers: 503,
    DatabaseUnavailable: 503,
    DatabaseAhead: 503,
    RedisUnavailable: 503,
    SizeLimitExceeded: 413,
    StorageUnavailable: 503,
    StorageFull: 507,
}

# FastAPI's word, with status 400, for JSON that is nested too deep or holds a number of too many digits.
_UNREADABLE_BODY = "There was an error parsing the body"
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_RETRY_AFTER_SECONDS = "5"
_INVALID_JSON = "The body is not valid JSON"
_LONGEST_TYPE = 100


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(VideoMomentsError, _answer_domain_error)
    app.add_exception_handler(psycopg.Error, _answer_database_or_redis_error)
    app.add_exception_handler(RedisError, _answer_database_or_redis_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)
    app.add_exception_handler(HTTPException, _answer_http_exception)


def error_answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    body = bytes(json_answer({"detail": detail}).body).decode()
    return Response(escape_json(body), status, headers, "application/json")  # a detail may repeat what was sent


async def _answer_domain_error(request: Request, error: Exception) -> Response:
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)
    headers = {"Retry-After": _RETRY_AFTER_SECONDS} if status == 503 else None
    return error_answer(status, mask_secrets(str(error)), headers)


async def _answer_database_or_redis_error(request: Request, error: Exception) -> Response:
    if isinstance(error, psycopg.Error):
        expected, reason = translate_database_error(error), str(error).partition("\n")[0]
    else:
        expected, reason = translate_redis_error(error), describe_redis_error(error)
    if expected is None:
        raise error
    _log.warning("%s: %s", type(error).__name__, reason)
    return await _answer_domain_error(request, expected)


async def _answer_invalid_request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return error_answer(422, _INVALID_JSON)
    name = ".".join(str(part) for part in problem["loc"][1:])
    if name:
        return error_answer(422, describe_validation_error(name, problem, _list_body_fields(request)))
    if problem["type"] == "value_error":  # it is about several fields, and names them
        return error_answer(422, str(problem["ctx"]["error"]))
    if problem["type"] != "missing" and not _is_sent_as_json(request):
        wrong_type = describe_content_type(request.headers.get("content-type", ""))
        return error_answer(422, f"Send the body as application/json, {wrong_type}")
    return error_answer(422, describe_validation_error("The body", problem))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    if error.detail == _UNREADABLE_BODY:
        return error_answer(422, _INVALID_JSON)
    headers = {"Allow": _list_allowed_methods(request)} if error.status_code == 405 else error.headers
    return error_answer(error.status_code, error.detail, headers)


def _list_body_fields(request: Request) -> list[str]:
    body = getattr(request.scope.get("route"), "body_field", None)
    model = getattr(getattr(body, "field_info", None), "annotation", None)
    return list(getattr(model, "model_fields", ()))


def _is_sent_as_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def describe_content_type(content_type: str) -> str:
    """Return `not as text/html`, say, for the end of a sentence about a wrong or missing Content-Type."""
    shown = content_type[:_LONGEST_TYPE].strip()
    return f"not as {shown}" if shown and shown.isprintable() else "not without a Content-Type"


def _list_allowed_methods(request: Request) -> str:
    # Starlette names only the methods of the first route of a path.
    def is_allowed(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(is_allowed, _METHODS))
