"""The moments of a video: originals and their refinements, overlaps, and deletion."""

from collections.abc import Iterable, Sequence

from app.database import Connection
from app.models import Moment
from app.models.rows import find_root_moment
from app.repositories import MomentRepository
from app.repositories.contents import VideoContentsRepository


def map_moments_to_originals(moments: Iterable[Moment]) -> dict[int, Moment]:
    """Return the original of each moment, by the moment's id; an original is its own.

    A moment whose parents lead to no original, as in some imported rows, is missing.
    """
    known = {moment.id: moment for moment in moments}
    parents = {moment.id: moment.parent_id if moment.is_refined else None for moment in known.values()}
    roots = {moment_id: find_root_moment(moment_id, parents) for moment_id in known}
    originals = {moment.id: moment for moment in known.values() if not moment.is_refined}
    return {moment_id: originals[root] for moment_id, root in roots.items() if root is not None and root in originals}


def list_manual_moments(moments: Iterable[Moment]) -> list[Moment]:
    """Return the moments that a user added by hand, and their refinements; edited ones of a model are left out."""
    moments = list(moments)
    originals = map_moments_to_originals(moments)
    return [moment for moment in moments if (original := originals.get(moment.id)) and not _is_found_by_model(original)]


def group_refinements_by_original(moments: Iterable[Moment]) -> dict[int, list[Moment]]:
    moments = list(moments)
    originals = map_moments_to_originals(moments)
    groups: dict[int, list[Moment]] = {moment.id: [] for moment in moments if not moment.is_refined}
    for moment in moments:
        if moment.is_refined and moment.id in originals:
            groups[originals[moment.id].id].append(moment)
    return groups


def overlaps_any_moment(start: float, end: float, moments: Iterable[Moment]) -> bool:
    return any(start < moment.end_time and end > moment.start_time for moment in moments)


def _is_found_by_model(original: Moment) -> bool:
    return original.generation_config_id is not None or original.generation_model is not None


async def delete_moments(conn: Connection, video_id: int, moment_ids: Sequence[int]) -> set[str]:
    """Delete moments and their clips from the database, and return the URLs of files that no row names any more."""
    if not moment_ids:
        return set()
    before = await list_file_urls_of_video(conn, video_id)
    await MomentRepository(conn).delete_many(moment_ids)
    return before - await list_file_urls_of_video(conn, video_id)


async def list_file_urls_of_video(conn: Connection, video_id: int) -> set[str]:
    return {file.url for file in await VideoContentsRepository(conn).list_file_references(video_id)}
