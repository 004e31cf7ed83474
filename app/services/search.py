"""Search as a user sees it: hits with snippets that are safe to put into a page."""

import html
from dataclasses import dataclass

from app.core.errors import InvalidInput
from app.database import Connection
from app.models.video import shown_title
from app.repositories.search import MARK_START, MARK_STOP, SearchHit, SearchRepository

# Segments of a hit that a player may jump to.
_SEGMENTS = 10


@dataclass(frozen=True, slots=True)
class FoundTranscript:
    """A hit; `snippet` is HTML in which only `<mark>` is markup."""

    hit: SearchHit
    snippet: str

    @property
    def video_title(self) -> str:
        return shown_title(self.hit.video_identifier, self.hit.video_title)


async def search_transcripts(conn: Connection, query: str, limit: int) -> list[FoundTranscript]:
    """Return the best `limit` transcripts for what a user typed, best first."""
    if "\0" in query:
        raise InvalidInput("q: must not hold the character U+0000")
    hits = await SearchRepository(conn).search_transcripts(query, limit, _SEGMENTS)
    return [FoundTranscript(hit, _mark(hit.snippet)) for hit in hits]


def _mark(text: str) -> str:
    return html.escape(text).replace(MARK_START, "<mark>").replace(MARK_STOP, "</mark>")
