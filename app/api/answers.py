"""JSON answers: frozen dataclasses that orjson writes, never FastAPI's encoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import cleandoc
from typing import Annotated, Any, TypeVar, dataclass_transform

import orjson
from pydantic import ConfigDict, Field
from starlette.responses import Response

from app.core.validation import InputNumber

AnswerT = TypeVar("AnswerT")
Seconds = Annotated[InputNumber, Field(allow_inf_nan=False, description="seconds")]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def answer(cls: type[AnswerT]) -> type[AnswerT]:
    """Make a frozen dataclass, documented by its docstring, that is both a route's answer and its `response_model`.

    It has no slots: orjson writes an instance's dictionary many times faster.
    """
    if cls.__doc__:
        cls.__pydantic_config__ = ConfigDict(json_schema_extra={"description": cleandoc(cls.__doc__)})  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


@answer
class Error:
    """Every error."""

    detail: Annotated[str, Field(examples=["Video not found"])]


def ready_json(document: bytes | str) -> Any:
    """Return a document that is JSON already, as the value of whichever type it documents."""
    return orjson.Fragment(document)


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with `content`: answers, lists of them, `ready_json`, and times of rows, in UTC."""
    return Response(orjson.dumps(content, option=orjson.OPT_NAIVE_UTC), status, headers, "application/json")
