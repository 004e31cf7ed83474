"""Keeping the search index: what is new or changed is indexed soon after it is stored, by a worker or by a search."""

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import psycopg

from app.database import Connection, Database
from app.database.queries import try_lock_in_transaction
from app.models.videos import display_title
from app.repositories.search_index import (
    NewPassage,
    SearchIndexRepository,
    UnindexedTitle,
    UnindexedTranscript,
)
from app.search.documents import get_stemmer, list_stemmed_forms, make_document
from app.search.passages import Passage, list_speaker_turns, list_speakers, split_into_passages
from app.search.timed_words import list_timed_words
from app.search.tokens import split_into_words

_log = logging.getLogger(__name__)

_TITLES_AT_ONCE = 500
_MOST_INDEXED_BY_SEARCH = 200  # transcripts, and titles
_MOST_BYTES_INDEXED_BY_SEARCH = 50_000  # of texts of transcripts, as they are stored
_GROWTH = 0.1  # of the documents since the words were counted, after which they are counted anew
_QUICKLY_COUNTED_DOCUMENTS = 1000  # within about 50 ms
_SHORT_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', '500ms', true)"

Stems = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class IndexedCount:
    """How many transcripts and titles were indexed."""

    transcripts: int
    titles: int

    def __bool__(self) -> bool:
        return bool(self.transcripts or self.titles)


@dataclass(frozen=True, slots=True)
class SpokenPassage:
    """A passage, and who speaks in it, where that is known."""

    passage: Passage
    speakers: list[str]


async def index_next(conn: Connection) -> IndexedCount:
    """Index a transcript and some titles that wait for it, unless another process does; begins its transactions."""
    return IndexedCount(await _index_next_transcript(conn), await _index_next_titles(conn))


async def index_if_little(conn: Connection) -> int:
    """Index what waits where that takes no longer than a search may, so that what was just stored is found.

    What cannot be indexed now is left to workers. Returns how many documents there were when their words were counted.
    """
    waiting = await SearchIndexRepository(conn).count_unindexed(_MOST_INDEXED_BY_SEARCH)
    is_little = max(waiting.transcripts, waiting.titles) < _MOST_INDEXED_BY_SEARCH
    if not (waiting.transcripts or waiting.titles) or waiting.is_read_only:
        return waiting.indexed
    if not is_little or waiting.bytes > _MOST_BYTES_INDEXED_BY_SEARCH:
        return waiting.indexed
    try:
        async with conn.transaction():
            await conn.execute(_SHORT_LOCK_TIMEOUT)
            while await index_next(conn):
                pass
    except psycopg.Error as error:
        _log.warning("Searching without what waits to be indexed: %s", error)
    return await count_indexed(conn)


async def count_indexed(conn: Connection) -> int:
    """Return how many documents there were when their words were counted."""
    return (await SearchIndexRepository(conn).get_state())[0]


async def index_waiting(database: Database) -> None:
    """Index all that waits, with a connection for each transcript, and count the words of all after a growth."""
    async with database.connect() as conn:
        if not await SearchIndexRepository(conn).has_unindexed(_GROWTH):
            return
    is_done = False
    while not is_done:
        async with database.connect() as conn:
            is_done = not await index_next(conn)
    async with database.connect() as conn:
        await count_words_after_growth(conn)


async def rebuild(conn: Connection, report: Callable[[int, int], None]) -> int:
    """Index everything anew and return the number of transcripts; where a rebuild was interrupted, go on with it.

    Others may search meanwhile, and find what they found before. `report` gets the transcripts done and all of them.
    """
    index = SearchIndexRepository(conn)
    total = await index.count_transcripts()
    if not await index.get_rebuild_progress():
        async with conn.transaction():
            await index.mark_for_rebuild()
    while waiting := await index.get_rebuild_progress():
        report(total - waiting.transcripts, total)
        if not await index_next(conn):
            break  # workers have the last ones
    report(total, total)
    async with conn.transaction():
        await _count_words(conn)
    return total


async def _index_next_transcript(conn: Connection) -> int:
    index = SearchIndexRepository(conn)
    async with conn.transaction():
        transcript = await index.lock_unindexed_transcript()
        if transcript is None:
            return 0
        passages = await asyncio.to_thread(_make_passages, transcript)
        stemmer = get_stemmer(transcript.language)
        forms = {form for each in passages for word in each.passage.words for form in list_stemmed_forms(word.text)}
        stems = await index.find_stems(stemmer, forms) if stemmer and forms else {}
        rows = await asyncio.to_thread(_make_passage_rows, passages, stems)
        try:
            async with conn.transaction():
                await index.replace_passages(transcript.id, rows)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded):
            _log.exception("Transcript %d cannot be searched", transcript.id)
            await index.replace_passages(transcript.id, [])
        await _add_to_state(conn, len(rows), [stemmer] if stemmer else [])
    return 1


async def _add_to_state(conn: Connection, documents: int, stemmers: Collection[str]) -> None:
    """Count documents that were added, and the words anew where that is quick."""
    counted, added = await SearchIndexRepository(conn).add_to_state(documents, stemmers)
    if added > counted * _GROWTH and counted + added < _QUICKLY_COUNTED_DOCUMENTS:
        await _count_words(conn)


async def count_words_after_growth(conn: Connection) -> None:
    """Count the words of all passages anew where many passages are new; begins its transaction."""
    async with conn.transaction():
        counted, added = await SearchIndexRepository(conn).get_state()
        if added > counted * _GROWTH:
            await _count_words(conn)


async def _count_words(conn: Connection) -> None:
    if await try_lock_in_transaction(conn, "search words"):
        await SearchIndexRepository(conn).count_words()


def _make_passages(transcript: UnindexedTranscript) -> list[SpokenPassage]:
    """Return the passages of a transcript; none, and a log line, where its text breaks the code."""
    try:
        words, segments = map(json.loads, (transcript.word_timestamps, transcript.segment_timestamps))  # of any size
        turns = list_speaker_turns(words, segments)
        passages = split_into_passages(list_timed_words(transcript.full_text, words, segments))
        return [SpokenPassage(passage, list_speakers(passage, turns)) for passage in passages]
    except Exception:
        _log.exception("Transcript %d cannot be searched", transcript.id)
        return []


def _make_passage_rows(passages: Sequence[SpokenPassage], stems: Stems) -> list[NewPassage]:
    return [_make_passage_row(each.passage, each.speakers, stems) for each in passages]


def _make_passage_row(passage: Passage, speakers: list[str], stems: Stems) -> NewPassage:
    starts = [_to_milliseconds(word.start) for word in passage.words if word.start is not None]
    ends = [_to_milliseconds(word.end) for word in passage.words if word.end is not None]
    has_times = len(starts) == len(ends) == len(passage.words)
    return NewPassage(
        passage.text,
        starts if has_times else None,
        ends if has_times else None,
        speakers,
        make_document([word.text for word in passage.words], stems),
    )


def _to_milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


async def _index_next_titles(conn: Connection) -> int:
    index = SearchIndexRepository(conn)
    async with conn.transaction():
        ids = await index.lock_unindexed_titles(_TITLES_AT_ONCE)
        titles = await index.get_unindexed_titles(ids) if ids else []
        documents: dict[int, str] = {}
        for stemmer in {_get_stemmer_of_title(title) for title in titles}:
            documents |= await _make_title_documents(
                index, stemmer, [title for title in titles if _get_stemmer_of_title(title) == stemmer]
            )
        if documents:
            await index.set_title_documents(documents)
            stemmers = {stemmer for title in titles if (stemmer := _get_stemmer_of_title(title))}
            await _add_to_state(conn, len(titles), stemmers)
    return len(titles)


def _get_stemmer_of_title(title: UnindexedTitle) -> str | None:
    return get_stemmer(title.language or "en")


async def _make_title_documents(
    index: SearchIndexRepository, stemmer: str | None, titles: Sequence[UnindexedTitle]
) -> dict[int, str]:
    words = {title.id: split_into_words(display_title(title.video_identifier, title.title)) for title in titles}
    forms = {form for each in words.values() for word in each for form in list_stemmed_forms(word)}
    stems = await index.find_stems(stemmer, forms) if stemmer and forms else {}
    return {row: make_document(each, stems) for row, each in words.items()}
