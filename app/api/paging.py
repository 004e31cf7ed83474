"""Pages of rows in the order of their ids."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import Query, Request
from starlette.responses import Response

from app.api.answers import json_answer

MAX_ID = 2**31 - 1  # of a serial column

PageLimit = Annotated[int, Query(ge=1, le=1000, description="Most items to return")]
PageCursor = Annotated[int, Query(ge=0, le=MAX_ID, description="From the Link header of the page before")]

DEFAULT_LIMIT = 100
HEADERS: dict[str, Any] = {
    "Link": {
        "description": 'The next page, with `rel="next"`; missing on the last one',
        "schema": {"type": "string"},
    }
}


class _Row(Protocol):
    @property
    def id(self) -> int: ...


def page_answer(request: Request, limit: int, rows: Sequence[_Row], items: list[Any]) -> Response:
    """Answer with `items`, which show `rows`, and name the next page where there may be one."""
    headers = None
    if len(rows) == limit:
        next_page = request.url.include_query_params(cursor=rows[-1].id)
        headers = {"Link": f'<{next_page.path}?{next_page.query}>; rel="next"'}
    return json_answer(items, headers=headers)
