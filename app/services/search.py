"""Searching transcripts and titles by words, phrases and meaning, with the times to jump to and safe snippets."""

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from app.core.errors import InvalidInput
from app.core.text import find_control_character, to_nfc
from app.database import Connection, Database
from app.models.videos import display_title
from app.repositories.search import (
    FacetCount,
    FoundMoment,
    FoundPassage,
    FoundVideo,
    PassagePosition,
    RankedPassage,
    RankedTitle,
    SearchRepository,
)
from app.repositories.search_conditions import SearchFilters
from app.repositories.search_index import SearchIndexRepository
from app.repositories.search_vectors import NearPassage, SearchVectorRepository
from app.search.occurrences import MarkedText, Occurrence, choose_occurrences
from app.search.query import parse_query, replace_words
from app.search.ranking import fuse_ranks
from app.services.cursors import decode_cursor, encode_cursor, make_invalid_cursor_error
from app.services.search_index import count_indexed, index_if_little
from app.services.search_query import PreparedQuery, prepare_query
from app.services.search_vectors import QueryEmbedder, QueryVector

_MAX_HITS = 400  # videos, and moments, that the pages of one search have together
_MAX_OCCURRENCES = 10  # of a hit, that a player may jump to
_OCCURRENCE_GAP = 30_000  # milliseconds between occurrences of several words
_MAX_PASSAGES = 5  # of a hit, that are looked at
_MANY_PASSAGES = 40  # of a page, after which only the best of each hit is looked at
_MAX_PHRASE_OCCURRENCES = 100  # of a hit, where a phrase is asked for
_MIN_SIMILARITY = 0.25  # cosine, below which nothing has to do with a query


class SearchMode(StrEnum):
    """What finds a passage: its words, its meaning, or either, of which the best of both come first."""

    TEXT = "text"
    SEMANTIC = "semantic"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class VideoHit:
    """A video in which it is said; occurrences in its order. `snippet` is HTML whose only markup is `<mark>`."""

    video: FoundVideo
    rank: float
    snippet: str
    occurrences: list[Occurrence]

    @property
    def video_title(self) -> str:
        return display_title(self.video.identifier, self.video.title)


@dataclass(frozen=True, slots=True)
class MomentHit:
    """A moment whose title says it."""

    moment: FoundMoment
    rank: float
    snippet: str

    @property
    def video_title(self) -> str:
        return display_title(self.moment.video_identifier, self.moment.video_title)


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of found videos and moments, best first; `next_cursor` is None on the last page.

    `facets` count the videos of all pages, on the first page, where they were asked for. `did_you_mean` is the query in
    another spelling, with which these were found, since nothing was with the given one. `is_semantic` where passages
    were found by their meaning.
    """

    videos: list[VideoHit]
    moments: list[MomentHit]
    facets: list[FacetCount] | None
    did_you_mean: str | None
    is_semantic: bool
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search for, where and how."""

    text: str
    filters: SearchFilters = field(default_factory=SearchFilters)
    mode: SearchMode = SearchMode.HYBRID
    as_you_type: bool = False

    def normalize(self) -> "SearchRequest":
        """Return it as the index has texts. Raises `InvalidInput` for one with control characters."""
        for name, value in [("q", self.text), *asdict(self.filters).items()]:
            if found := find_control_character(value if isinstance(value, str) else ""):
                raise InvalidInput(f"{name} must not hold the character {found}")
        video, speaker = (value and to_nfc(value) for value in (self.filters.video, self.filters.speaker))
        return replace(self, text=to_nfc(self.text), filters=replace(self.filters, video=video, speaker=speaker))

    @property
    def cursor_key(self) -> list[Any]:
        return ["search", self.text, self.mode, self.as_you_type, *asdict(self.filters).values()]


async def search_library(
    database: Database,
    embedder: QueryEmbedder,
    request: SearchRequest,
    limit: int,
    cursor: str = "",
    *,
    with_facets: bool = False,
) -> SearchPage:
    """Return a page of the best videos and moments. Raises `InvalidInput` for a wrong query or cursor.

    A cursor holds the hits that are still to come, in their order: whatever changes meanwhile, none is skipped and none
    comes twice.
    """
    request = request.normalize()
    list_key = request.cursor_key
    hits = _Hits.decode(decode_cursor(list_key, cursor)) if cursor else None
    query = parse_query(request.text, as_you_type=request.as_you_type)
    wants_vector = request.mode is not SearchMode.TEXT and not query.has_phrases
    vector = await embedder.embed(query.to_plain_text()) if wants_vector else None
    async with database.connect() as conn:
        size = await index_if_little(conn) if hits is None else await count_indexed(conn)
        if hits and hits.corrected:
            request = replace(request, text=hits.corrected)
        search = await _Search.prepare(conn, request, vector, size)
        facets: list[FacetCount] | None = None
        if hits is None:
            hits = await search.rank_hits()
            if search.finds_no_words and (corrected := await search.correct_spelling()):
                search = await _Search.prepare(conn, replace(request, text=corrected), vector, size)
                hits = replace(await search.rank_hits(), corrected=corrected)
            if with_facets:
                facets = await SearchRepository(conn).count_facets(hits.video_ids)
        page, rest = hits.split(limit)
        videos, moments = await search.load_videos(page), await search.load_moments(page)
    return SearchPage(
        videos,
        moments,
        facets,
        hits.corrected if hits else None,
        vector is not None,
        encode_cursor(list_key, rest.encode()) if rest else None,
    )


@dataclass(frozen=True, slots=True)
class _ScoredPassage:
    """A passage that was found; `part` is the first and the last of its words that mean what was asked for."""

    id: int
    video_id: int
    score: float
    part: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Ranking:
    """Passages, the best first, and the scores of titles by the ids of their videos."""

    passages: Sequence[_ScoredPassage]
    titles: dict[int, float]

    @classmethod
    def make(
        cls, by_words: Sequence[RankedPassage], titles: Sequence[RankedTitle], by_meaning: Sequence[NearPassage]
    ) -> "_Ranking":
        """Rank what was found by words and what was found by meaning together, by their ranks in both lists."""
        scores = {passage.id: passage.score for passage in by_words}
        scores |= {-title.video_id: title.score for title in titles if title.video_id}  # unlike ids of passages
        parts: dict[int, NearPassage] = {}
        for near in by_meaning:
            parts.setdefault(near.passage_id, near)
        if parts:
            scores = fuse_ranks([sorted(scores, key=lambda each: -scores[each]), list(parts)])
        videos = {passage.id: passage.video_id for passage in by_words}
        videos |= {passage_id: near.video_id for passage_id, near in parts.items()}
        passages = [
            _ScoredPassage(
                each, videos[each], score, (parts[each].first_word, parts[each].last_word) if each in parts else None
            )
            for each, score in scores.items()
            if each > 0
        ]
        passages.sort(key=lambda passage: (-passage.score, passage.id))
        return cls(passages, {-each: score for each, score in scores.items() if each < 0})

    def list_videos(self) -> list[int]:
        """Return the ids of the videos, each as good as its best passage or its title, the best first."""
        best = dict(self.titles)
        for passage in self.passages:
            best[passage.video_id] = max(best.get(passage.video_id, 0.0), passage.score)
        return sorted(best, key=lambda video_id: (-best[video_id], video_id))


class _Search:
    """A query over the library, with what was found so far."""

    def __init__(
        self, conn: Connection, request: SearchRequest, query: PreparedQuery, vector: QueryVector | None
    ) -> None:
        self._repository = SearchRepository(conn)
        self._index = SearchIndexRepository(conn)
        self._vectors = SearchVectorRepository(conn)
        self._request = request
        self._query = query
        self._vector = vector
        self._uses_words = vector is None or request.mode is not SearchMode.SEMANTIC
        self._asked = query.list_asked_lexemes()
        self._ranking: _Ranking | None = None
        self.finds_no_words = False

    @classmethod
    async def prepare(
        cls, conn: Connection, request: SearchRequest, vector: QueryVector | None, size: int
    ) -> "_Search":
        query = parse_query(request.text, as_you_type=request.as_you_type)
        return cls(conn, request, await prepare_query(conn, query, size), vector)

    async def correct_spelling(self) -> str | None:
        """Return the query with words of the library instead of unknown ones; None where no word is spelt alike."""
        similar = await self._index.find_similar_words(self._query.unknown) if self._query.unknown else {}
        return replace_words(self._request.text, similar) if similar else None

    async def rank_hits(self) -> "_Hits":
        """Return the ids of the videos and of the moments, the best first."""
        conditions = self._query.conditions
        if conditions is None:
            return _Hits(0, [], [])
        every_word = replace(conditions, matches=[(word.to_tsquery(), weight) for word, weight in self._query.words])
        filters = self._request.filters
        titles = await self._repository.rank_titles(every_word, filters) if self._uses_words else []
        self._ranking = await self._rank_passages(titles)
        moments = [title.moment_id for title in titles if title.moment_id]
        return _Hits(0, self._ranking.list_videos()[:_MAX_HITS], moments[:_MAX_HITS])

    async def _rank_passages(self, titles: Sequence[RankedTitle], video_ids: Sequence[int] | None = None) -> _Ranking:
        conditions, filters = self._query.conditions, self._request.filters
        if conditions is None:
            return _Ranking([], {})
        by_words = await self._repository.rank_passages(conditions, filters, video_ids) if self._uses_words else []
        by_meaning: list[NearPassage] = []
        if self._vector is not None:
            near = await self._vectors.find_nearest(
                self._vector.model, self._vector.values, filters, conditions, video_ids
            )
            by_meaning = [each for each in near if each.similarity >= _MIN_SIMILARITY]
        self.finds_no_words = self._uses_words and not by_words and not titles
        return _Ranking.make(by_words, titles, by_meaning)

    async def load_videos(self, page: "_Hits") -> list[VideoHit]:
        if not page.video_ids:
            return []
        ranking = self._ranking or await self._rank_passages([], page.video_ids)
        has_phrases = bool(self._query.phrases)
        most, many = (_MAX_PHRASE_OCCURRENCES, math.inf) if has_phrases else (_MAX_PASSAGES, _MANY_PASSAGES)
        chosen = _choose_passages(ranking.passages, page.video_ids, most, many)
        positions = [PassagePosition(each.id, each.part) for passages in chosen.values() for each in passages]
        loaded = {each.id: each for each in await self._repository.get_passages(positions, self._asked)}
        videos = {video.id: video for video in await self._repository.get_videos(page.video_ids, self._asked)}
        return [
            self._make_video_hit(videos[each], rank, chosen[each], loaded)
            for each, rank in page.iterate_ranks(page.video_ids)
            if each in videos
        ]

    def _make_video_hit(
        self,
        video: FoundVideo,
        rank: float,
        passages: Sequence[_ScoredPassage],
        loaded: Mapping[int, FoundPassage],
    ) -> VideoHit:
        occurrences: list[tuple[Occurrence, MarkedText]] = []
        for passage in passages:
            if found := loaded.get(passage.id):
                text = MarkedText(found.text, found.positions, found.times)
                occurrences += [(each, text) for each in self._find_occurrences(text, passage)]
        if not occurrences:
            title = MarkedText(display_title(video.identifier, video.title), video.positions)
            return VideoHit(video, rank, title.make_html(self._query.list_marked(title)), [])
        best, text = max(occurrences, key=lambda found: found[0].weight)
        snippet = text.make_snippet(best, self._query.list_marked(text))
        most = _MAX_PHRASE_OCCURRENCES if self._query.phrases else _MAX_OCCURRENCES
        gap = 0 if self._query.phrases or len(self._query.words) == 1 else _OCCURRENCE_GAP
        return VideoHit(video, rank, snippet, choose_occurrences([each for each, _ in occurrences], most, gap))

    def _find_occurrences(self, text: MarkedText, passage: _ScoredPassage) -> list[Occurrence]:
        """Return where the words are said, or else where the part that means it begins."""
        found = self._query.find_occurrences(text) if self._uses_words else []
        if self._vector is None:
            return found
        heaviest = max((each.weight for each in found), default=1.0)
        found = [replace(each, weight=passage.score * each.weight / heaviest) for each in found]
        if passage.part and not any(passage.part[0] <= each.first <= passage.part[1] for each in found):
            found.append(text.make_occurrence(*passage.part, passage.score))
        return found

    async def load_moments(self, page: "_Hits") -> list[MomentHit]:
        if not page.moment_ids:
            return []
        moments = {each.id: each for each in await self._repository.get_moments(page.moment_ids, self._asked)}
        return [
            self._make_moment_hit(moments[each], rank)
            for each, rank in page.iterate_ranks(page.moment_ids)
            if each in moments
        ]

    def _make_moment_hit(self, moment: FoundMoment, rank: float) -> MomentHit:
        title = MarkedText(moment.title, moment.positions)
        return MomentHit(moment, rank, title.make_html(self._query.list_marked(title)))


def _choose_passages(
    ranked: Sequence[_ScoredPassage], video_ids: Sequence[int], most: int, many: float
) -> dict[int, list[_ScoredPassage]]:
    """Return the best passages of each video, at most `most`, of those at least half as good as its best one.

    After `many` passages of all videos, only the best one of each is added.
    """
    chosen: dict[int, list[_ScoredPassage]] = {video_id: [] for video_id in video_ids}
    count = 0
    for passage in ranked:
        of_video = chosen.get(passage.video_id)
        if of_video is None or len(of_video) >= (most if count < many else 1):
            continue
        if not of_video or passage.score >= of_video[0].score / 2:
            of_video.append(passage)
            count += 1
    return chosen


@dataclass(frozen=True, slots=True)
class _Hits:
    """Ids of hits, the best first; `first` hits of each list have come before. `corrected` is the query's spelling."""

    first: int
    video_ids: Sequence[int]
    moment_ids: Sequence[int]
    corrected: str | None = None

    def __bool__(self) -> bool:
        return bool(self.video_ids or self.moment_ids)

    def split(self, limit: int) -> "tuple[_Hits, _Hits]":
        page = replace(self, video_ids=self.video_ids[:limit], moment_ids=self.moment_ids[:limit])
        rest = replace(self, video_ids=self.video_ids[limit:], moment_ids=self.moment_ids[limit:])
        return page, replace(rest, first=self.first + limit)

    def iterate_ranks(self, ids: Sequence[int]) -> list[tuple[int, float]]:
        """Return each id with its rank: 1 for the first hit of the search, 1/2 for the second, and so on."""
        return [(each, 1 / rank) for rank, each in enumerate(ids, self.first + 1)]

    def encode(self) -> list[Any]:
        return [self.first, _pack_ids(self.video_ids), _pack_ids(self.moment_ids), self.corrected]

    @staticmethod
    def decode(position: Any) -> "_Hits":
        match position:
            case [int(first), str(videos), str(moments), None | str() as corrected] if (
                0 < first < 2**31 and (videos or moments) and not find_control_character(corrected or "")
            ):
                return _Hits(first, _unpack_ids(videos), _unpack_ids(moments), corrected)
            case _:
                raise make_invalid_cursor_error()


def _pack_ids(ids: Sequence[int]) -> str:
    return base64.b64encode(struct.pack(f"<{len(ids)}I", *ids)).decode()


def _unpack_ids(text: str) -> list[int]:
    try:
        packed = base64.b64decode(text, validate=True)
        ids = struct.unpack(f"<{len(packed) // 4}I", packed)
    except (ValueError, struct.error):
        raise make_invalid_cursor_error() from None
    if len(ids) > _MAX_HITS or not all(0 < each < 2**31 for each in ids):
        raise make_invalid_cursor_error()
    return list(ids)
