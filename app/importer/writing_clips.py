"""The clips of a video's moments as rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.importer.clips import Window, clip_window, read_word_times, remote_clip_url
from app.importer.moments import places_by_legacy_id, prefer_original
from app.importer.places import Places
from app.importer.preparing import LocalFile
from app.importer.report import Kind
from app.importer.rows import LegacyMoment
from app.importer.writing_moments import StoredMoment
from app.importer.written import Target, find_changes
from app.models import Clip
from app.repositories import ClipRepository
from app.repositories.clips import NewClip

_WINDOW = ("start_time", "end_time", "padding_left", "padding_right")


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a moment's clip lies; a file of the library is described, too."""

    url: str
    file: LocalFile | None = None


async def write_clips(target: Target, moments: Sequence[StoredMoment], bucket: str | None) -> None:
    """Write the clips that are in the library or that its moments name; a moment has at most one."""
    clips, new = ClipRepository(target.conn), []
    sources = _find_sources(target, [moment.placed.moment for moment in moments], bucket)
    if not sources:
        return
    target.written.elsewhere += sum(source.file is None for source in sources.values())
    word_times = read_word_times(target.prepared.transcript.words) if target.prepared.transcript else []
    stored = {} if target.is_new else {clip.moment_id: clip for clip in await clips.list_by_video(target.video.id)}
    for place, source in sorted(sources.items()):
        window = _find_window(target, moments, place, word_times)
        row = _row(target, moments[place], source, window)
        if (before := stored.get(row["moment_id"])) is None:
            target.written.count("clips", None)
            new.append(row)
        else:
            changes = _find_changes(target.places, source, before, row, window)
            target.written.count("clips", before, changes)
            await clips.update(before.id, **changes)
    await clips.copy(new)


def _find_sources(target: Target, rows: Sequence[LegacyMoment], bucket: str | None) -> dict[int, _Source]:
    """Return each clip by the place of its moment. A file comes before what rows say, the first row before others."""
    meant = {legacy_id: prefer_original(rows, places) for legacy_id, places in places_by_legacy_id(rows).items()}
    sources = {
        meant[legacy_id]: _Source(target.places.url_of(file), file) for legacy_id, file in target.prepared.clips.items()
    }
    for number, row in enumerate(rows):
        named = meant[row.legacy_id] if row.legacy_id is not None else number
        _add_remote(target, sources, number if rows[named].is_refined else named, row, bucket)
    return sources


def _add_remote(target: Target, sources: dict[int, _Source], place: int, row: LegacyMoment, bucket: str | None) -> None:
    """Add the clip that a row names. One that refinement left with the id of its original names the original's."""
    notes = target.notes(target.prepared.moments_file)
    url = remote_clip_url(row, bucket)
    if url is None:
        if row.clip_path and place not in sources:
            reason = "nobody knows the bucket of its clip: give it with --bucket"
            notes.add(Kind.REFUSED, reason, {"gcs_clip_path": row.clip_path}, row=row.row)
        elif row.clip_path:
            notes.add(Kind.DROPPED, "its clip is a file of the library", {"gcs_clip_path": row.clip_path}, row=row.row)
    elif sources.setdefault(place, _Source(url)).url != url:
        notes.add(Kind.DROPPED, "its moment has a clip at another address", {"cloud_url": url}, row=row.row)


def _find_window(
    target: Target, moments: Sequence[StoredMoment], place: int, word_times: Sequence[tuple[float, float]]
) -> Window:
    recorded = [
        each.placed.moment.window
        for each in moments
        if each.placed.parent == place and each.placed.moment.window is not None
    ]
    return clip_window(moments[place].placed.moment, recorded, word_times, target.video.duration_seconds)


def _row(target: Target, moment: StoredMoment, source: _Source, window: Window) -> NewClip:
    media = source.file.media if source.file else None
    return {
        "moment_id": moment.id,
        "video_id": target.video.id,
        "cloud_url": source.url,
        "start_time": window.start,
        "end_time": window.end,
        "padding_left": max(0.0, moment.placed.moment.start_time - window.start),
        "padding_right": max(0.0, window.end - moment.placed.moment.end_time),
        "file_size_kb": source.file.file_size_kb if source.file else None,
        "format": media.format if media else None,
        "video_codec": media.video_codec if media else None,
        "audio_codec": media.audio_codec if media else None,
        "resolution": media.resolution if media else None,
    }


def _find_changes(places: Places, source: _Source, stored: Clip, row: NewClip, window: Window) -> dict[str, Any]:
    """A better address stays, and a window that was only worked out does not replace the one that is stored."""
    changes = find_changes(stored, {name: value for name, value in row.items() if value is not None})
    if places.keeps(stored.cloud_url, source.url):
        is_its_copy = source.file is not None and stored.cloud_url == places.copies[source.file.url]
        changes = {name: value for name, value in changes.items() if is_its_copy and name in _WINDOW}
    elif places.rank(source.url) < places.rank(stored.cloud_url):
        return {}
    return {name: value for name, value in changes.items() if window.is_recorded or name not in _WINDOW}
