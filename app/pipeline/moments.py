"""Rules over the moments of a video: originals and their refinements, overlaps, and what a deletion frees."""

from collections.abc import Iterable, Mapping, Sequence

from app.database import Connection
from app.models import Moment
from app.repositories import MomentRepository
from app.repositories.parts import PartRepository


def find_originals(moments: Iterable[Moment]) -> dict[int, Moment]:
    """Return the original of each moment by the moment's id; an original is its own.

    Rows of older libraries may hang under refined ones, or go round in a circle: what leads to no original has none.
    """
    known = {moment.id: moment for moment in moments}
    return {moment.id: original for moment in known.values() if (original := _climb(moment, known))}


def list_manual_moments(moments: Iterable[Moment]) -> list[Moment]:
    """Return the moments that a user added by hand, and what was refined from them.

    A moment that a user changed after a model had made it is the model's: no column tells such a change from a score.
    """
    moments = list(moments)
    originals = find_originals(moments)
    return [moment for moment in moments if (original := originals.get(moment.id)) and not _is_by_model(original)]


def group_refinements(moments: Iterable[Moment]) -> dict[int, list[Moment]]:
    """Return what was refined from each original, by the original's id, however deep older rows hang."""
    moments = list(moments)
    originals = find_originals(moments)
    groups: dict[int, list[Moment]] = {moment.id: [] for moment in moments if not moment.is_refined}
    for moment in moments:
        if moment.is_refined and moment.id in originals:
            groups[originals[moment.id].id].append(moment)
    return groups


def overlaps(start: float, end: float, others: Iterable[Moment]) -> bool:
    """Whether a span shares time with one of the moments; to touch is not to overlap."""
    return any(start < other.end_time and end > other.start_time for other in others)


def _climb(moment: Moment, known: Mapping[int, Moment]) -> Moment | None:
    seen: set[int] = set()
    each: Moment | None = moment
    while each is not None and each.is_refined:
        if each.id in seen or each.parent_id is None:
            return None
        seen.add(each.id)
        each = known.get(each.parent_id)
    return each


def _is_by_model(original: Moment) -> bool:
    return original.generation_config_id is not None or original.generation_model is not None


async def delete_moments(conn: Connection, video_id: int, moment_ids: Sequence[int]) -> set[str]:
    """Delete moments with their clips, and return the URLs of files that nothing of the video refers to any more."""
    if not moment_ids:
        return set()
    parts = PartRepository(conn)
    before = {file.url for file in await parts.list_files(video_id)}
    await MomentRepository(conn).delete_many(moment_ids)
    return before - {file.url for file in await parts.list_files(video_id)}
