"""JSON answers and pages of them: frozen dataclasses that orjson writes, never FastAPI's encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from inspect import cleandoc
from typing import Annotated, Any, Protocol, TypeVar, dataclass_transform
from urllib.parse import quote, urlencode

import orjson
from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import MultiDict
from starlette.responses import Response

from app.core.validation import InputNumber
from app.database.queries import LARGEST_ID

AnswerT = TypeVar("AnswerT")
Seconds = Annotated[InputNumber, Field(allow_inf_nan=False, description="seconds")]
Responses = dict[int | str, dict[str, Any]]

_LINK = {"description": 'The next page, with `rel="next"`; missing on the last one', "schema": {"type": "string"}}
PAGE_RESPONSES: Responses = {200: {"headers": {"Link": _LINK}}}
CURSOR_DESCRIPTION = "From the Link header of the page before"


@dataclass_transform(frozen_default=True, kw_only_default=True)
def answer_dataclass(cls: type[AnswerT]) -> type[AnswerT]:
    """Decorate a frozen dataclass that is both a route's answer and its `response_model`, documented by its docstring.

    orjson writes an instance's dictionary 17 times faster than slots, and filling it at once takes a third of the time
    of a frozen dataclass's own `__init__`.
    """
    if cls.__doc__:
        cls.__pydantic_config__ = ConfigDict(json_schema_extra={"description": cleandoc(cls.__doc__)})  # type: ignore[attr-defined]
    made = dataclass(frozen=True, kw_only=True, init=False)(cls)
    defaults = {field.name: field.default for field in fields(made) if field.default is not MISSING}  # type: ignore[arg-type]
    count = len(fields(made))  # type: ignore[arg-type]

    def init_from_fields(self: AnswerT, **values: Any) -> None:
        if defaults:
            values = {**defaults, **values}
        if len(values) != count:  # mypy checks the names
            raise TypeError(f"{cls.__name__} has {count} fields")
        object.__setattr__(self, "__dict__", values)

    made.__init__ = init_from_fields  # type: ignore[method-assign, assignment]
    return made


@answer_dataclass
class Error:
    """The body of every error: one short sentence."""

    detail: Annotated[str, Field(examples=["Video not found"])]


NOT_FOUND: Responses = {404: {"model": Error}}


class PageQuery(BaseModel):
    """Which page of a list that is ordered by id."""

    limit: int = Field(100, ge=1, le=1000, description="Most items to return")
    cursor: int = Field(0, ge=0, le=LARGEST_ID, description=CURSOR_DESCRIPTION)


PageQueryDep = Annotated[PageQuery, Query()]


def embed_json(document: bytes | str) -> Any:
    """Return a value that `json_answer` writes into its JSON as it is, in place of a value of any type."""
    return orjson.Fragment(document)


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_NAIVE_UTC), status, headers, "application/json")


class _RowWithId(Protocol):
    @property
    def id(self) -> int: ...


def page_answer(request: Request, limit: int, rows: Sequence[_RowWithId], items: list[Any]) -> Response:
    """Return a JSON list of `items`, made of `rows`, with a link to the next page if there are `limit` of them."""
    return json_answer(items, headers=next_page_header(request, rows[-1].id) if len(rows) == limit else None)


def next_page_header(request: Request, cursor: int | str) -> dict[str, str]:
    query = MultiDict(request.query_params)
    query.update(cursor=cursor)
    return {"Link": f'<{quote(request.url.path)}?{urlencode(query.multi_items())}>; rel="next"'}
