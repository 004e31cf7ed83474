"""JSON answers: bytes from orjson, never FastAPI's encoder."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with `content`: dicts, lists, dataclasses, `orjson.Fragment`s of ready JSON, and times of rows, in UTC."""
    return Response(orjson.dumps(content, option=orjson.OPT_NAIVE_UTC), status, headers, "application/json")
