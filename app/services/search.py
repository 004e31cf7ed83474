"""Full-text search over transcripts and moments, with snippets that are safe as HTML."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from app.core.errors import InvalidInput
from app.core.text import find_control_character, to_nfc
from app.database import Connection
from app.database.queries import LARGEST_ID
from app.models.videos import display_title
from app.repositories.search import (
    FIRST_PAGE,
    MARK_START,
    MARK_STOP,
    MomentHit,
    SearchCursor,
    SearchFilters,
    SearchRepository,
    TranscriptHit,
)
from app.services.cursors import decode_cursor, encode_cursor, make_invalid_cursor_error

# Segments per hit that a player may jump to.
_SEGMENTS = 10
_LARGEST_RANK = 3e38  # PostgreSQL's `real`

Hit = TypeVar("Hit", TranscriptHit, MomentHit)


@dataclass(frozen=True, slots=True)
class SearchResult(Generic[Hit]):
    """A found transcript or moment; `snippet` is HTML whose only markup is `<mark>`."""

    hit: Hit
    snippet: str

    @property
    def video_title(self) -> str:
        return display_title(self.hit.video_identifier, self.hit.video_title)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of found transcripts and moments, best first; `next_cursor` is None on the last page."""

    transcripts: list[SearchResult[TranscriptHit]]
    moments: list[SearchResult[MomentHit]]
    next_cursor: str | None


async def search_library(
    conn: Connection, query: str, filters: SearchFilters, limit: int, cursor: str = ""
) -> SearchPage:
    """Return a page of the best transcripts and moments. Raises `InvalidInput` for a wrong query or cursor."""
    for name, text in (("q", query), ("video", filters.video), ("language", filters.language)):
        if found := find_control_character(text or ""):
            raise InvalidInput(f"{name} must not hold the character {found}")
    query, filters = to_nfc(query), replace(filters, video=to_nfc(filters.video) if filters.video else None)
    list_key = ["search", query, filters.video, filters.language, filters.min_score]
    transcripts_after, moments_after = (
        _parse_search_cursor(decode_cursor(list_key, cursor)) if cursor else (FIRST_PAGE, FIRST_PAGE)
    )
    hits = SearchRepository(conn)
    # One more than the page holds, to detect a next page.
    transcripts = (
        await hits.search_transcripts(query, filters, limit + 1, _SEGMENTS, transcripts_after)
        if transcripts_after
        else []
    )
    moments = await hits.search_moments(query, filters, limit + 1, moments_after) if moments_after else []
    positions = [_find_next_page_position(transcripts, limit), _find_next_page_position(moments, limit)]
    return SearchPage(
        [SearchResult(hit, _make_snippet_html(hit.snippet)) for hit in transcripts[:limit]],
        [SearchResult(hit, _make_snippet_html(hit.snippet)) for hit in moments[:limit]],
        encode_cursor(list_key, positions) if any(positions) else None,
    )


def _find_next_page_position(hits: Sequence[Hit], limit: int) -> tuple[float, int] | None:
    """Return rank and id of the last hit of a page of `limit` hits; None if no hit follows it."""
    return (hits[limit - 1].rank, hits[limit - 1].id) if len(hits) > limit else None


def _parse_search_cursor(positions: Any) -> list[SearchCursor | None]:
    """Return where transcripts and moments continue, None for a list that has ended. Raises `InvalidInput`."""
    if not isinstance(positions, list) or len(positions) != 2 or not any(positions):
        raise make_invalid_cursor_error()
    return [_parse_search_hit_position(position) for position in positions]


def _parse_search_hit_position(position: Any) -> SearchCursor | None:
    match position:
        case None:
            return None
        case [float(rank), int(row)] if 0 <= rank <= _LARGEST_RANK and 0 < row <= LARGEST_ID and row is not True:
            return SearchCursor(rank, row)
        case _:
            raise make_invalid_cursor_error()


def _make_snippet_html(marked_text: str) -> str:
    return html.escape(marked_text).replace(MARK_START, "<mark>").replace(MARK_STOP, "</mark>")
