"""Conditions of a search as SQL: words and phrases that documents match, and filters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import sql

from app.database.queries import make_and_conditions

_MAX_MATCHES = 5000  # documents of a word; which of them, where it is in more, is left to PostgreSQL
WEIGHT_UNIT = 1_000_000  # weights are integers in SQL: the sum of fractions would depend on their order


@dataclass(frozen=True, slots=True)
class SearchFilters:
    """Filters of a search, which all must hold; times are naive UTC, durations seconds.

    `min_score` and `model` ask for such moments and for videos that have one, `speaker` for what that person says.
    """

    video: str | None = None
    language: str | None = None
    min_score: int | None = None
    model: str | None = None
    speaker: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    min_duration: float | None = None
    max_duration: float | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What finds documents: tsqueries as text, and what each adds to the rank of those that match it.

    A passage counts if each of `required` and none of `excluded` is matched by any passage of its transcript; a title
    must match them itself. How often the words of `counted` are said decides between equals.
    """

    matches: Sequence[tuple[str, float]]
    counted: str
    required: Sequence[str] = ()
    excluded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TranscriptConditions:
    """What must and must not be said in a transcript: queries for a WITH clause, and a condition that uses them."""

    queries: sql.Composed
    condition: sql.Composed


def make_matches(
    conditions: Conditions,
    parameters: dict[str, Any],
    columns: LiteralString,
    table: LiteralString,
    filters: sql.Composed,
) -> sql.Composed:
    """Return a SELECT of rows that match, a row for each match with its weight; its parameters are added.

    A word counts once however often it is in a document. No document is read for it: the index knows all words. The
    `filters` hold before the rows are limited.
    """
    parameters["counted"] = conditions.counted
    selects: list[sql.Composed] = []
    for number, (query, weight) in enumerate(conditions.matches):
        parameters |= {f"query{number}": query, f"weight{number}": round(weight * WEIGHT_UNIT)}
        selects.append(
            sql.SQL("(SELECT {}, {}::integer AS weight FROM {} WHERE document @@ {}::tsquery{} LIMIT {})").format(
                sql.SQL(columns),
                sql.Placeholder(f"weight{number}"),
                sql.SQL(table),
                sql.Placeholder(f"query{number}"),
                filters,
                sql.Literal(_MAX_MATCHES),
            )
        )
    return sql.SQL(" UNION ALL ").join(selects)


def make_transcript_conditions(conditions: Conditions, parameters: dict[str, Any]) -> TranscriptConditions:
    """Return the conditions for what is required and excluded, whose tsqueries are added to `parameters`."""
    queries, condition = sql.SQL("").format(), sql.SQL("").format()
    for name, sign, query in _iterate_conditions(conditions):
        parameters[name] = query
        queries += sql.SQL(
            "{} AS MATERIALIZED (SELECT DISTINCT transcript_id FROM search.passages WHERE document @@ {}::tsquery), "
        ).format(sql.Identifier(name), sql.Placeholder(name))
        condition += sql.SQL(" AND {}transcript_id IN (SELECT transcript_id FROM {})").format(
            sql.SQL(sign), sql.Identifier(name)
        )
    return TranscriptConditions(queries, condition)


def make_document_conditions(conditions: Conditions, parameters: dict[str, Any]) -> sql.Composed:
    """Return the same as conditions on a document itself."""
    made = sql.SQL("").format()
    for name, sign, query in _iterate_conditions(conditions):
        parameters[name] = query
        made += sql.SQL(" AND {}document @@ {}::tsquery").format(sql.SQL(sign), sql.Placeholder(name))
    return made


def _iterate_conditions(conditions: Conditions) -> Iterator[tuple[str, LiteralString, str]]:
    for number, query in enumerate(conditions.required):
        yield f"required{number}", "", query
    for number, query in enumerate(conditions.excluded):
        yield f"excluded{number}", "NOT ", query


def make_passage_filters(filters: SearchFilters, video_ids: Sequence[int] | None) -> sql.Composed:
    """Return the conditions on a passage and its video."""
    of_video = make_owner_filters(filters, "transcripts.video_id")
    if video_ids is not None:
        of_video += sql.SQL(" AND video_id = ANY (%(video_ids)s)")
    conditions = make_and_conditions({"%(speaker)s = ANY (speakers)": filters.speaker})
    if not of_video.as_string():
        return conditions
    return conditions + sql.SQL(" AND transcript_id IN (SELECT transcripts.id FROM transcripts WHERE true{})").format(
        of_video
    )


def make_owner_filters(
    filters: SearchFilters, video_id: LiteralString, moment_id: LiteralString = "NULL"
) -> sql.Composed:
    """Return the conditions of filters on a row of a video, or of a moment where `moment_id` is not null."""
    of_video: LiteralString = f"EXISTS (SELECT FROM videos WHERE videos.id = {video_id} AND "
    of_moment: LiteralString = (
        f"EXISTS (SELECT FROM moments WHERE moments.video_id = {video_id} "
        f"AND moments.id = coalesce({moment_id}, moments.id) AND "
    )
    return make_and_conditions(
        {
            of_video + "identifier = %(video)s)": filters.video,
            of_video + "created_at >= %(created_after)s)": filters.created_after,
            of_video + "created_at < %(created_before)s)": filters.created_before,
            of_video + "duration_seconds >= %(min_duration)s)": filters.min_duration,
            of_video + "duration_seconds <= %(max_duration)s)": filters.max_duration,
            f"""EXISTS (
                SELECT FROM transcripts AS spoken WHERE spoken.video_id = {video_id} AND language = %(language)s
            )""": filters.language,
            of_moment + "score >= %(min_score)s)": filters.min_score,
            of_moment + "generation_model = %(model)s)": filters.model,
        }
    )
