"""The moments of a video, with their configs and clips, as rows."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from cachetools import LRUCache

from app.core.errors import PromptHashCollision
from app.database import Connection
from app.importer.locations import FileLocations
from app.importer.moments import (
    IdentifiedMoment,
    LegacyClipWindow,
    assign_moment_identifiers,
    choose_clip_window,
    choose_original,
    find_remote_clip_url,
    group_positions_by_legacy_id,
    list_word_times,
    moment_times,
)
from app.importer.moments_file import LegacyConfig, LegacyMoment
from app.importer.prepared_videos import LibraryFile, PreparedVideo
from app.importer.report import EntryKind, FileReporter, ReportEntry, RowCounts
from app.models import Clip, Moment, Video
from app.repositories import ClipRepository, GenerationConfigRepository, MomentRepository, PromptRepository
from app.repositories.clips import NewClip
from app.repositories.moments import NewMomentWithId
from app.repositories.provenance import prompt_hash

_MAX_CACHED_CONFIGS = 4096
_CONFIG_PARAMETERS = [each.name for each in fields(LegacyConfig) if each.name not in ("user_prompt", "system_prompt")]


@dataclass(slots=True)
class VideoConfigs:
    """The generation configs of one video: their row ids, and those that belong to no transcript, by key.

    `new_rows` has each prompt and config, by table and key, and whether its row is new.
    """

    ids: dict[LegacyConfig, int] = field(default_factory=dict)
    new_rows: dict[tuple[str, bytes], bool] = field(default_factory=dict)
    shared_ids: dict[bytes, int] = field(default_factory=dict)


class ConfigCache:
    """The row ids of generation configs of no transcript, which never change, and counts of all that were used."""

    def __init__(self) -> None:
        self._shared_ids: LRUCache[bytes, int] = LRUCache(_MAX_CACHED_CONFIGS)
        self._new_rows: dict[tuple[str, bytes], bool] = {}

    def find_config_id(self, key: bytes) -> int | None:
        return self._shared_ids.get(key)

    def clear_config_ids(self) -> None:
        self._shared_ids.clear()

    def add_configs(self, configs: VideoConfigs, is_stored: bool) -> None:
        """Count the configs of a video, and cache their ids where its transaction was committed."""
        for key, is_new in configs.new_rows.items():
            self._new_rows[key] = self._new_rows.get(key, False) or is_new
        if is_stored:
            self._shared_ids.update(configs.shared_ids)

    def count_prompt_and_config_rows(self) -> RowCounts:
        return Counter((table, "new" if is_new else "unchanged") for (table, _), is_new in self._new_rows.items())


async def find_or_create_configs(
    conn: Connection,
    configs: Iterable[LegacyConfig],
    transcript_id: int | None,
    cache: ConfigCache,
    reporter: FileReporter,
) -> VideoConfigs:
    used, unknown = VideoConfigs(), []
    for key, config in sorted({_config_key(config): config for config in set(configs)}.items()):
        if (config_id := cache.find_config_id(key)) is not None:
            used.ids[config] = config_id
        else:
            unknown.append((key, config))
    if unknown:
        await _find_or_create_uncached_configs(conn, unknown, transcript_id, used, reporter)
    return used


async def _find_or_create_uncached_configs(
    conn: Connection,
    configs_by_key: Iterable[tuple[bytes, LegacyConfig]],
    transcript_id: int | None,
    used: VideoConfigs,
    reporter: FileReporter,
) -> None:
    cursor = await conn.execute("SELECT now() AT TIME ZONE 'utc'")
    (began,) = await anext(cursor)
    for key, config in configs_by_key:
        try:
            prompt = await PromptRepository(conn).get_or_create(config.user_prompt, config.system_prompt)
        except PromptHashCollision as error:
            reporter.add_entry(EntryKind.REFUSED, f"its moments have no config: {error}", asdict(config))
            continue
        stored = await GenerationConfigRepository(conn).get_or_create(
            prompt_id=prompt.id, transcript_id=transcript_id, **_config_parameters(config)
        )
        used.ids[config] = stored.id
        used.new_rows["prompts", bytes.fromhex(prompt.prompt_hash)] = prompt.created_at == began
        used.new_rows["generation_configs", key] = stored.created_at == began
        if stored.transcript_id is None:
            used.shared_ids[key] = stored.id


def _config_key(config: LegacyConfig) -> bytes:
    """Return a hash of a config; it starts with the hash of its prompt, so that prompts are written in order."""
    name = prompt_hash(config.user_prompt, config.system_prompt)
    rest = repr([len(config.user_prompt), _config_parameters(config)])
    return bytes.fromhex(name) + hashlib.sha256(rest.encode()).digest()


def _config_parameters(config: LegacyConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _CONFIG_PARAMETERS}


@dataclass(slots=True)
class VideoWriteResult:
    """What the transaction of a video changed; it counts once the transaction is committed.

    `in_place` counts the files that are served from the library, `elsewhere` the rows whose files are in a bucket or
    on another host.
    """

    row_counts: RowCounts = field(default_factory=Counter)
    configs: VideoConfigs = field(default_factory=VideoConfigs)
    entries: list[ReportEntry] = field(default_factory=list)
    in_place: int = 0
    elsewhere: int = 0

    def count_written_row(self, table: str, stored: object, changes: Mapping[str, Any] | None = None) -> None:
        self.row_counts[table, "new" if stored is None else "changed" if changes else "unchanged"] += 1


@dataclass(frozen=True, slots=True)
class VideoTransaction:
    """The open transaction of one video: its prepared files, its row and what was written so far."""

    conn: Connection
    prepared: PreparedVideo
    locations: FileLocations
    video: Video
    is_new: bool
    written: VideoWriteResult

    def reporter_for(self, file: Path | None) -> FileReporter:
        return FileReporter(None, self.prepared.identifier, self.written.entries).for_file(file)


def find_changed_columns(stored: object, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if getattr(stored, name) != value}


async def write_moments_and_clips(transaction: VideoTransaction, bucket: str | None) -> None:
    """Write the moments and clips of a video; moments of the video that the file does not have stay."""
    moments = MomentRepository(transaction.conn)
    stored_rows = [] if transaction.is_new else await moments.list_by_video(transaction.video.id)
    stored = {row.identifier: row for row in stored_rows}
    identified = await _identify_moments(transaction, stored)
    new = [each.identifier for each in identified if each.identifier not in stored]
    new_ids = sorted(await moments.reserve_moment_ids(len(new))) if new else []
    ids = {identifier: row.id for identifier, row in stored.items()} | dict(zip(new, new_ids, strict=True))
    rows = [_make_moment_row(transaction, each, identified, ids) for each in identified]
    await moments.insert_many([row for row in rows if row["identifier"] not in stored])
    for row in rows:
        before = stored.get(row["identifier"])
        changes = find_changed_columns(before, cast(dict[str, Any], row)) if before else {}
        transaction.written.count_written_row("moments", before, changes)
        if before and changes:
            await moments.update(before.id, **changes)
    _report_unmatched_moments(transaction, stored, identified)
    await _write_clips(transaction, identified, ids, bucket)


async def _identify_moments(transaction: VideoTransaction, stored: Mapping[str, Moment]) -> list[IdentifiedMoment]:
    """Return the moments of a video with the identifiers of their rows, which no moment of another video has."""
    prepared = transaction.prepared
    legacy_ids = list(group_positions_by_legacy_id(prepared.moments))
    owners = (
        await MomentRepository(transaction.conn).map_moment_identifiers_to_video_ids(legacy_ids) if legacy_ids else {}
    )
    ids_of_other_videos = {legacy_id for legacy_id, owner in owners.items() if owner != transaction.video.id}
    ids_of_other_videos |= prepared.ids_of_other_videos - stored.keys()
    times = {identifier: moment_times(row) for identifier, row in stored.items()}
    reporter = transaction.reporter_for(prepared.files.moments)
    return assign_moment_identifiers(prepared.moments, prepared.identifier, times, ids_of_other_videos, reporter)


def _make_moment_row(
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


def _report_unmatched_moments(
    transaction: VideoTransaction, stored: Mapping[str, Moment], identified: Sequence[IdentifiedMoment]
) -> None:
    moments_file = transaction.prepared.files.moments
    named = {each.identifier for each in identified}
    kept = [identifier for identifier in stored if identifier not in named]
    if moments_file is not None and kept:
        reason = "moments that no row of the file accounts for stay as they are"
        transaction.reporter_for(moments_file).add_entry(EntryKind.KEPT, reason, kept)


_WINDOW_COLUMNS = ("start_time", "end_time", "padding_left", "padding_right")


@dataclass(frozen=True, slots=True)
class _ClipSource:
    """The URL of a moment's clip, and its file where it is in the library."""

    url: str
    file: LibraryFile | None = None


async def _write_clips(
    transaction: VideoTransaction, identified: Sequence[IdentifiedMoment], ids: Mapping[str, int], bucket: str | None
) -> None:
    clips, new = ClipRepository(transaction.conn), []
    sources = _find_clip_sources(transaction, bucket)
    if not sources:
        return
    transaction.written.elsewhere += sum(source.file is None for source in sources.values())
    transcript = transaction.prepared.transcript
    word_times = list_word_times(transcript.words) if transcript else []
    stored_clips = [] if transaction.is_new else await clips.list_by_video(transaction.video.id)
    stored = {clip.moment_id: clip for clip in stored_clips}
    for position, source in sorted(sources.items()):
        refinements = [each.moment for each in identified if each.parent == position]
        recorded_windows = [moment.window for moment in refinements if moment.window is not None]
        moment, video_seconds = identified[position].moment, transaction.video.duration_seconds
        window = choose_clip_window(moment, recorded_windows, word_times, video_seconds)
        row = _make_clip_row(transaction, moment, ids[identified[position].identifier], source, window)
        if (before := stored.get(row["moment_id"])) is None:
            transaction.written.count_written_row("clips", None)
            new.append(row)
        else:
            changes = _find_changed_clip_columns(transaction.locations, source, before, row, window)
            transaction.written.count_written_row("clips", before, changes)
            await clips.update(before.id, **changes)
    await clips.insert_many(new)


def _find_clip_sources(transaction: VideoTransaction, bucket: str | None) -> dict[int, _ClipSource]:
    """Return each clip by the position of its moment. A file wins over a URL, the first row over later ones.

    The URL of a refined row with its original's id means the original's clip.
    """
    moments = transaction.prepared.moments
    positions = {
        legacy_id: choose_original(moments, candidates)
        for legacy_id, candidates in group_positions_by_legacy_id(moments).items()
    }
    sources = {
        positions[legacy_id]: _ClipSource(transaction.locations.url_of(file), file)
        for legacy_id, file in transaction.prepared.clips.items()
    }
    for number, moment in enumerate(moments):
        named = positions[moment.legacy_id] if moment.legacy_id is not None else number
        _add_remote_clip(transaction, sources, number if moments[named].is_refined else named, moment, bucket)
    return sources


def _add_remote_clip(
    transaction: VideoTransaction,
    sources: dict[int, _ClipSource],
    position: int,
    moment: LegacyMoment,
    bucket: str | None,
) -> None:
    """Add the clip of a moment's URL to `sources` unless there is one, and report a URL that is not used."""
    reporter, path = transaction.reporter_for(transaction.prepared.files.moments), {"gcs_clip_path": moment.clip_path}
    url = find_remote_clip_url(moment, bucket)
    if url is None and moment.clip_path and position not in sources:
        reason = "the bucket of its clip is not known: give it with --bucket"
        reporter.add_entry(EntryKind.REFUSED, reason, path, moment.row)
    elif url is None and moment.clip_path:
        reporter.add_entry(EntryKind.DROPPED, "its clip is a file of the library", path, moment.row)
    elif url is not None and sources.setdefault(position, _ClipSource(url)).url != url:
        reporter.add_entry(
            EntryKind.DROPPED, "its moment has a clip at another address", {"cloud_url": url}, moment.row
        )


def _make_clip_row(
    transaction: VideoTransaction, moment: LegacyMoment, moment_id: int, source: _ClipSource, window: LegacyClipWindow
) -> NewClip:
    media = source.file.media if source.file else None
    return {
        "moment_id": moment_id,
        "video_id": transaction.video.id,
        "cloud_url": source.url,
        "start_time": window.start,
        "end_time": window.end,
        "padding_left": max(0.0, moment.start_time - window.start),
        "padding_right": max(0.0, window.end - moment.end_time),
        "file_size_kb": source.file.file_size_kb if source.file else None,
        "format": media.format if media else None,
        "video_codec": media.video_codec if media else None,
        "audio_codec": media.audio_codec if media else None,
        "resolution": media.resolution if media else None,
    }


def _find_changed_clip_columns(
    locations: FileLocations, source: _ClipSource, stored: Clip, row: NewClip, window: LegacyClipWindow
) -> dict[str, Any]:
    changes = find_changed_columns(stored, {name: value for name, value in row.items() if value is not None})
    if locations.keeps_stored_url(stored.cloud_url, source.url):
        is_its_copy = source.file is not None and stored.cloud_url == locations.copy_urls[source.file.url]
        changes = {name: value for name, value in changes.items() if is_its_copy and name in _WINDOW_COLUMNS}
    elif locations.rank_url(source.url) < locations.rank_url(stored.cloud_url):
        return {}
    return {name: value for name, value in changes.items() if window.is_recorded or name not in _WINDOW_COLUMNS}
