"""The moments of a video, with their configs and clips, as rows."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from app.core.errors import PromptHashCollision
from app.database import Connection
from app.importer.locations import FileLocations
from app.importer.moments import (
    IdentifiedMoment,
    LegacyClipWindow,
    StoredTimes,
    assign_moment_identifiers,
    clip_window,
    positions_by_legacy_id,
    prefer_original,
    read_word_times,
    remote_clip_url,
)
from app.importer.moments_file import LegacyConfig, LegacyMoment
from app.importer.prepared_videos import LibraryFile, PreparedVideo
from app.importer.report import EntryKind, ReportEntry, ReportNotes, TableCount, count_tables
from app.models import Clip, Moment, Video
from app.repositories import ClipRepository, GenerationConfigRepository, MomentRepository, PromptRepository
from app.repositories.clips import NewClip
from app.repositories.moments import NewMomentWithId
from app.repositories.provenance import prompt_hash

_REMEMBERED_CONFIGS = 4096
_CONFIG_PARAMETERS = tuple(
    each.name for each in fields(LegacyConfig) if each.name not in ("user_prompt", "system_prompt")
)


@dataclass(slots=True)
class UsedConfigs:
    """The configs of one video: their ids, which rows are new, and which configs belong to no transcript."""

    ids: dict[LegacyConfig, int] = field(default_factory=dict)
    prompts: dict[str, bool] = field(default_factory=dict)
    configs: dict[bytes, bool] = field(default_factory=dict)
    shared: dict[bytes, int] = field(default_factory=dict)


class KnownConfigs:
    """The configs of all videos so far. A config of no transcript never changes, so its id is cached."""

    def __init__(self) -> None:
        self._shared: OrderedDict[bytes, int] = OrderedDict()
        self._prompts: dict[str, bool] = {}
        self._configs: dict[bytes, bool] = {}

    def find_config_id(self, key: bytes) -> int | None:
        return self._shared.get(key)

    def clear_configs(self) -> None:
        """Clear the cache of config ids, after one was deleted."""
        self._shared.clear()

    def cache_configs(self, used: UsedConfigs, is_stored: bool) -> None:
        """Add what a video used; configs that are stored need no second lookup."""
        for name, is_new in used.prompts.items():
            self._prompts[name] = self._prompts.get(name, False) or is_new
        for key, is_new in used.configs.items():
            self._configs[key] = self._configs.get(key, False) or is_new
        if is_stored:
            self._shared.update(used.shared)
            while len(self._shared) > _REMEMBERED_CONFIGS:
                self._shared.popitem(last=False)

    def count_rows(self) -> dict[str, TableCount]:
        """Return how many prompts and configs were used, each counted once."""
        return {
            "prompts": _count_config_rows(self._prompts.values()),
            "generation_configs": _count_config_rows(self._configs.values()),
        }


async def store_configs(
    conn: Connection,
    configs: Iterable[LegacyConfig],
    transcript_id: int | None,
    known: KnownConfigs,
    notes: ReportNotes,
) -> UsedConfigs:
    """Return the configs' ids, inserting new ones in a fixed order to avoid deadlocks."""
    used, unknown = UsedConfigs(), []
    for key, config in sorted({_config_key(config): config for config in set(configs)}.items()):
        if (config_id := known.find_config_id(key)) is not None:
            used.ids[config] = config_id
        else:
            unknown.append((key, config))
    if unknown:
        await _store_unknown_configs(conn, unknown, transcript_id, used, notes)
    return used


async def _store_unknown_configs(
    conn: Connection,
    configs: Iterable[tuple[bytes, LegacyConfig]],
    transcript_id: int | None,
    used: UsedConfigs,
    notes: ReportNotes,
) -> None:
    cursor = await conn.execute("SELECT now() AT TIME ZONE 'utc'")
    (began,) = await anext(cursor)
    for key, config in configs:
        try:
            prompt = await PromptRepository(conn).get_or_create(config.user_prompt, config.system_prompt)
        except PromptHashCollision as error:
            notes.add(EntryKind.REFUSED, f"its moments have no config: {error}", asdict(config))
            continue
        stored = await GenerationConfigRepository(conn).get_or_create(
            prompt_id=prompt.id, transcript_id=transcript_id, **_config_parameters(config)
        )
        used.ids[config] = stored.id
        used.prompts[prompt.prompt_hash] = prompt.created_at == began
        used.configs[key] = stored.created_at == began
        if stored.transcript_id is None:
            used.shared[key] = stored.id


def _config_key(config: LegacyConfig) -> bytes:
    """Return the key of a config; it starts with the prompt's hash, which is the order of writing."""
    name = prompt_hash(config.user_prompt, config.system_prompt)
    rest = repr([len(config.user_prompt), _config_parameters(config)])
    return bytes.fromhex(name) + hashlib.sha256(rest.encode()).digest()


def _config_parameters(config: LegacyConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _CONFIG_PARAMETERS}


def _count_config_rows(are_new: Iterable[bool]) -> TableCount:
    flags = list(are_new)
    return TableCount(new=sum(flags), unchanged=len(flags) - sum(flags))


@dataclass(slots=True)
class VideoWriteResult:
    """The changes of a video's transaction; they count once it is committed.

    `in_place` counts the files that are served from the library, `elsewhere` the rows whose files are in a bucket or
    on another host.
    """

    tables: dict[str, TableCount] = field(default_factory=count_tables)
    configs: UsedConfigs = field(default_factory=UsedConfigs)
    entries: list[ReportEntry] = field(default_factory=list)
    in_place: int = 0
    elsewhere: int = 0

    def count_row(self, table: str, stored: object, changes: Mapping[str, Any] | None = None) -> None:
        count = self.tables[table]
        if stored is None:
            count.new += 1
        elif changes:
            count.changed += 1
        else:
            count.unchanged += 1


@dataclass(frozen=True, slots=True)
class VideoTransaction:
    """The transaction of one video: its prepared files and its row."""

    conn: Connection
    prepared: PreparedVideo
    locations: FileLocations
    video: Video
    is_new: bool
    written: VideoWriteResult

    def notes_about(self, file: str | None) -> ReportNotes:
        return ReportNotes(file, self.prepared.identifier, self.written.entries)


def find_changes(stored: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that differ from the stored row."""
    return {name: value for name, value in values.items() if getattr(stored, name) != value}


@dataclass(frozen=True, slots=True)
class WrittenMoment:
    """A moment with the id of its row."""

    id: int
    identified: IdentifiedMoment


async def write_moments(transaction: VideoTransaction) -> list[WrittenMoment]:
    """Write and return the moments in the order of their file; other moments of the video stay."""
    moments = MomentRepository(transaction.conn)
    stored = (
        {} if transaction.is_new else {row.identifier: row for row in await moments.list_by_video(transaction.video.id)}
    )
    identified = await _assign_moment_identifiers_of_video(transaction, stored)
    ids = {identifier: row.id for identifier, row in stored.items()} | await _reserve_moment_ids(
        transaction, stored, identified
    )
    rows = [_moment_row(transaction, each, identified, ids) for each in identified]
    await moments.insert_many([row for row in rows if row["identifier"] not in stored])
    for row in rows:
        await _update_moment(transaction, stored.get(row["identifier"]), row)
    _report_unmatched_moments(transaction, stored, identified)
    return [WrittenMoment(ids[each.identifier], each) for each in identified]


async def _assign_moment_identifiers_of_video(
    transaction: VideoTransaction, stored: Mapping[str, Moment]
) -> list[IdentifiedMoment]:
    prepared = transaction.prepared
    legacy_ids = list(positions_by_legacy_id(prepared.moments))
    owners = await MomentRepository(transaction.conn).find_video_ids_of_moments(legacy_ids) if legacy_ids else {}
    taken = {legacy_id for legacy_id, owner in owners.items() if owner != transaction.video.id}
    taken |= prepared.taken - stored.keys()
    times = {
        identifier: StoredTimes(row.start_time, row.end_time, row.is_refined) for identifier, row in stored.items()
    }
    notes = transaction.notes_about(prepared.moments_file)
    return assign_moment_identifiers(prepared.moments, prepared.identifier, times, taken, notes)


async def _reserve_moment_ids(
    transaction: VideoTransaction, stored: Mapping[str, Moment], identified: Sequence[IdentifiedMoment]
) -> dict[str, int]:
    new = [each.identifier for each in identified if each.identifier not in stored]
    ids = sorted(await MomentRepository(transaction.conn).reserve_moment_ids(len(new))) if new else []
    return dict(zip(new, ids, strict=True))


def _moment_row(
    transaction: VideoTransaction,
    identified: IdentifiedMoment,
    all_identified: Sequence[IdentifiedMoment],
    ids: Mapping[str, int],
) -> NewMomentWithId:
    moment, configs = identified.moment, transaction.written.configs.ids
    return {
        "id": ids[identified.identifier],
        "identifier": identified.identifier,
        "video_id": transaction.video.id,
        "start_time": moment.start_time,
        "end_time": moment.end_time,
        "title": moment.title,
        "is_refined": moment.is_refined,
        "parent_id": ids[all_identified[identified.parent].identifier] if identified.parent is not None else None,
        "generation_model": moment.model,
        "generation_config_id": configs.get(moment.config) if moment.config is not None else None,
    }


async def _update_moment(transaction: VideoTransaction, stored: Moment | None, row: NewMomentWithId) -> None:
    changes = find_changes(stored, cast(dict[str, Any], row)) if stored else {}
    transaction.written.count_row("moments", stored, changes)
    if stored and changes:
        await MomentRepository(transaction.conn).update(stored.id, **changes)


def _report_unmatched_moments(
    transaction: VideoTransaction, stored: Mapping[str, Moment], identified: Sequence[IdentifiedMoment]
) -> None:
    """Report moments that the file does not have: they may have been added by hand, so they stay."""
    if transaction.prepared.moments_file is None:
        return
    named = {each.identifier for each in identified}
    if kept := [identifier for identifier in stored if identifier not in named]:
        notes = transaction.notes_about(transaction.prepared.moments_file)
        notes.add(EntryKind.KEPT, "moments that no row of the file accounts for stay as they are", kept)


_WINDOW_COLUMNS = ("start_time", "end_time", "padding_left", "padding_right")


@dataclass(frozen=True, slots=True)
class _ClipSource:
    """The URL of a moment's clip, and its file where it is in the library."""

    url: str
    file: LibraryFile | None = None


async def write_clips(transaction: VideoTransaction, moments: Sequence[WrittenMoment], bucket: str | None) -> None:
    """Write the clips of the library or of the rows' URLs; a moment has at most one."""
    clips, new = ClipRepository(transaction.conn), []
    sources = _find_clip_sources(transaction, [moment.identified.moment for moment in moments], bucket)
    if not sources:
        return
    transaction.written.elsewhere += sum(source.file is None for source in sources.values())
    word_times = read_word_times(transaction.prepared.transcript.words) if transaction.prepared.transcript else []
    stored = (
        {} if transaction.is_new else {clip.moment_id: clip for clip in await clips.list_by_video(transaction.video.id)}
    )
    for position, source in sorted(sources.items()):
        window = _find_clip_window(transaction, moments, position, word_times)
        row = _clip_row(transaction, moments[position], source, window)
        if (before := stored.get(row["moment_id"])) is None:
            transaction.written.count_row("clips", None)
            new.append(row)
        else:
            changes = _find_clip_changes(transaction.locations, source, before, row, window)
            transaction.written.count_row("clips", before, changes)
            await clips.update(before.id, **changes)
    await clips.insert_many(new)


def _find_clip_sources(
    transaction: VideoTransaction, rows: Sequence[LegacyMoment], bucket: str | None
) -> dict[int, _ClipSource]:
    """Return each clip by the position of its moment. A file wins over a URL, the first row over later ones."""
    meant = {
        legacy_id: prefer_original(rows, locations) for legacy_id, locations in positions_by_legacy_id(rows).items()
    }
    sources = {
        meant[legacy_id]: _ClipSource(transaction.locations.url_of(file), file)
        for legacy_id, file in transaction.prepared.clips.items()
    }
    for number, row in enumerate(rows):
        named = meant[row.legacy_id] if row.legacy_id is not None else number
        _add_remote_clip(transaction, sources, number if rows[named].is_refined else named, row, bucket)
    return sources


def _add_remote_clip(
    transaction: VideoTransaction, sources: dict[int, _ClipSource], position: int, row: LegacyMoment, bucket: str | None
) -> None:
    """Add the clip of a row's URL. A refined row with its original's id means the original's clip."""
    notes = transaction.notes_about(transaction.prepared.moments_file)
    url = remote_clip_url(row, bucket)
    if url is None:
        if row.clip_path and position not in sources:
            reason = "nobody knows the bucket of its clip: give it with --bucket"
            notes.add(EntryKind.REFUSED, reason, {"gcs_clip_path": row.clip_path}, row=row.row)
        elif row.clip_path:
            notes.add(
                EntryKind.DROPPED, "its clip is a file of the library", {"gcs_clip_path": row.clip_path}, row=row.row
            )
    elif sources.setdefault(position, _ClipSource(url)).url != url:
        notes.add(EntryKind.DROPPED, "its moment has a clip at another address", {"cloud_url": url}, row=row.row)


def _find_clip_window(
    transaction: VideoTransaction,
    moments: Sequence[WrittenMoment],
    position: int,
    word_times: Sequence[tuple[float, float]],
) -> LegacyClipWindow:
    recorded = [
        each.identified.moment.window
        for each in moments
        if each.identified.parent == position and each.identified.moment.window is not None
    ]
    return clip_window(moments[position].identified.moment, recorded, word_times, transaction.video.duration_seconds)


def _clip_row(
    transaction: VideoTransaction, moment: WrittenMoment, source: _ClipSource, window: LegacyClipWindow
) -> NewClip:
    media = source.file.media if source.file else None
    return {
        "moment_id": moment.id,
        "video_id": transaction.video.id,
        "cloud_url": source.url,
        "start_time": window.start,
        "end_time": window.end,
        "padding_left": max(0.0, moment.identified.moment.start_time - window.start),
        "padding_right": max(0.0, window.end - moment.identified.moment.end_time),
        "file_size_kb": source.file.file_size_kb if source.file else None,
        "format": media.format if media else None,
        "video_codec": media.video_codec if media else None,
        "audio_codec": media.audio_codec if media else None,
        "resolution": media.resolution if media else None,
    }


def _find_clip_changes(
    locations: FileLocations, source: _ClipSource, stored: Clip, row: NewClip, window: LegacyClipWindow
) -> dict[str, Any]:
    """Return the changes of a clip; a better URL and a recorded window stay."""
    changes = find_changes(stored, {name: value for name, value in row.items() if value is not None})
    if locations.keeps_stored_url(stored.cloud_url, source.url):
        is_its_copy = source.file is not None and stored.cloud_url == locations.copy_urls[source.file.url]
        changes = {name: value for name, value in changes.items() if is_its_copy and name in _WINDOW_COLUMNS}
    elif locations.rank_url(source.url) < locations.rank_url(stored.cloud_url):
        return {}
    return {name: value for name, value in changes.items() if window.is_recorded or name not in _WINDOW_COLUMNS}
