"""Pages, each of which names the next one."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol
from urllib.parse import quote

from fastapi import Query, Request
from starlette.responses import Response

from app.api.answers import json_answer
from app.database.queries import LARGEST_ID

PageLimit = Annotated[int, Query(ge=1, le=1000, description="Most items to return")]
PageCursor = Annotated[int, Query(ge=0, le=LARGEST_ID, description="From the Link header of the page before")]

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
    return json_answer(items, headers=next_link(request, rows[-1].id) if len(rows) == limit else None)


def next_link(request: Request, cursor: int | str) -> dict[str, str]:
    """Return the header that names the page behind `cursor`, asked for as this one was."""
    page = request.url.include_query_params(cursor=cursor)
    return {"Link": f'<{quote(page.path)}?{page.query}>; rel="next"'}
