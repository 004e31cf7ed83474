"""A video's moments as rows: the ones that are new by COPY, the ones that changed one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from app.importer.moments import PlacedMoment, StoredTimes, place_moments, places_by_legacy_id
from app.importer.report import Kind
from app.importer.written import Target, find_changes
from app.models import Moment
from app.repositories import MomentRepository
from app.repositories.moments import ReservedMoment


@dataclass(frozen=True, slots=True)
class StoredMoment:
    """A moment with the id of its row."""

    id: int
    placed: PlacedMoment


async def write_moments(target: Target) -> list[StoredMoment]:
    """Write the moments in the order of their file and return them in it. What the file does not know stays."""
    moments = MomentRepository(target.conn)
    stored = {} if target.is_new else {row.identifier: row for row in await moments.list_by_video(target.video.id)}
    placed = await _place_moments(target, stored)
    ids = {identifier: row.id for identifier, row in stored.items()} | await _reserve_ids(target, stored, placed)
    rows = [_row(target, each, placed, ids) for each in placed]
    await moments.copy([row for row in rows if row["identifier"] not in stored])
    for row in rows:
        await _update(target, stored.get(row["identifier"]), row)
    _note_kept(target, stored, placed)
    return [StoredMoment(ids[each.identifier], each) for each in placed]


async def _place_moments(target: Target, stored: Mapping[str, Moment]) -> list[PlacedMoment]:
    prepared = target.prepared
    legacy_ids = list(places_by_legacy_id(prepared.moments))
    owners = await MomentRepository(target.conn).find_video_ids(legacy_ids) if legacy_ids else {}
    taken = {legacy_id for legacy_id, owner in owners.items() if owner != target.video.id}
    taken |= prepared.taken - stored.keys()
    times = {
        identifier: StoredTimes(row.start_time, row.end_time, row.is_refined) for identifier, row in stored.items()
    }
    notes = target.notes(prepared.moments_file)
    return place_moments(prepared.moments, prepared.identifier, times, taken, notes)


async def _reserve_ids(target: Target, stored: Mapping[str, Moment], placed: Sequence[PlacedMoment]) -> dict[str, int]:
    new = [each.identifier for each in placed if each.identifier not in stored]
    ids = sorted(await MomentRepository(target.conn).reserve_ids(len(new))) if new else []
    return dict(zip(new, ids, strict=True))


def _row(
    target: Target, placed: PlacedMoment, everyone: Sequence[PlacedMoment], ids: Mapping[str, int]
) -> ReservedMoment:
    moment, configs = placed.moment, target.written.configs.ids
    return {
        "id": ids[placed.identifier],
        "identifier": placed.identifier,
        "video_id": target.video.id,
        "start_time": moment.start_time,
        "end_time": moment.end_time,
        "title": moment.title,
        "is_refined": moment.is_refined,
        "parent_id": ids[everyone[placed.parent].identifier] if placed.parent is not None else None,
        "generation_model": moment.model,
        "generation_config_id": configs.get(moment.config) if moment.config is not None else None,
    }


async def _update(target: Target, stored: Moment | None, row: ReservedMoment) -> None:
    changes = find_changes(stored, cast(dict[str, Any], row)) if stored else {}
    target.written.count("moments", stored, changes)
    if stored and changes:
        await MomentRepository(target.conn).update(stored.id, **changes)


def _note_kept(target: Target, stored: Mapping[str, Moment], placed: Sequence[PlacedMoment]) -> None:
    """Nobody can tell a moment that was added by hand from one whose row is gone from the file: both stay."""
    if target.prepared.moments_file is None:
        return
    named = {each.identifier for each in placed}
    if kept := [identifier for identifier in stored if identifier not in named]:
        notes = target.notes(target.prepared.moments_file)
        notes.add(Kind.KEPT, "moments that no row of the file accounts for stay as they are", kept)
