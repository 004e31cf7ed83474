"""Everything that a legacy library has of one video, read and checked without the database."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from app.ai.prompts import format_segments, format_words
from app.core.text import to_nfc
from app.importer.legacy_files import JsonDocument, LegacyVideoFiles, Library, UnreadableFile, read_json
from app.importer.legacy_records import LegacyRun, LegacyTranscript, VideoSource, parse_runs, parse_transcript
from app.importer.moments import clip_name, merge_duplicates
from app.importer.moments_file import LegacyMoment, MomentsFile, PastedTranscript, parse_moments
from app.importer.report import EntryKind, ReportNotes
from app.media.probe import MediaInfo, NotMedia, probe_media, size_in_kb
from app.storage import audio_folder_key, clip_folder_key, storable_name, thumbnail_folder_key, video_folder_key

# Accepted unchanged by every file system and URL.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()-]{0,199}\.mp4")


def video_key(video: str, path: Path) -> str:
    return f"{video_folder_key(video)}/{storable_name(video)}{path.suffix.lower()}"


def thumbnail_key(video: str, path: Path) -> str:
    return f"{thumbnail_folder_key(video)}/{storable_name(video)}{path.suffix.lower()}"


def audio_key(video: str, path: Path) -> str:
    return f"{audio_folder_key(video)}/{storable_name(video)}{path.suffix.lower()}"


def clip_key(video: str, legacy_id: str, name: str) -> str:
    """Return the key of a clip; it keeps its file name where possible, because old links use it."""
    return f"{clip_folder_key(video)}/{name if _PLAIN_NAME.fullmatch(name) else f'{storable_name(legacy_id)}.mp4'}"


_T = TypeVar("_T")
_EVERYTHING = (float("-inf"), float("inf"))


class AddressCertainty(IntEnum):
    """How certain an address is; a more certain one replaces another."""

    ASSUMED = 0
    NAMED = 1
    PRESENT = 2


@dataclass(frozen=True, slots=True)
class VideoAddress:
    """The URL of a video, and how certain it is."""

    url: str
    certainty: AddressCertainty


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A file of the library, its size in bytes, and the key of its copy; `media` is None for what is no video."""

    path: Path
    key: str
    size: int
    media: MediaInfo | None = None

    @property
    def url(self) -> str:
        return self.path.as_uri()

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def file_size_kb(self) -> int:
        return size_in_kb(self.size)


@dataclass(slots=True)
class PreparedVideo:
    """One video, ready to be written. `taken` are the moment ids that videos before it in the library have."""

    identifier: str
    address: VideoAddress
    video_file: LibraryFile | None
    file_size_kb: int | None
    source_url: str | None
    transcript: LegacyTranscript | None
    transcript_file: str | None
    moments: list[LegacyMoment]
    moments_file: str | None
    history_file: str | None
    clips: dict[str, LibraryFile]
    thumbnail: LibraryFile | None
    audio: LibraryFile | None
    runs: list[LegacyRun]
    notes: ReportNotes
    taken: frozenset[str] = field(default_factory=frozenset)

    def list_files(self) -> list[LibraryFile]:
        single = [self.video_file, self.thumbnail, self.audio]
        return [file for file in (*single, *self.clips.values()) if file is not None]

    def drop_file(self, file: LibraryFile) -> None:
        """Continue as if the library did not have the file."""
        if file == self.video_file:
            self.video_file, self.file_size_kb = None, None
            self.address = _registered_address(self.source_url) or VideoAddress(file.url, AddressCertainty.ASSUMED)
        self.thumbnail = None if file == self.thumbnail else self.thumbnail
        self.audio = None if file == self.audio else self.audio
        self.clips = {legacy_id: clip for legacy_id, clip in self.clips.items() if clip != file}


def prepare_video(files: LegacyVideoFiles, library: Library, source: VideoSource | None) -> PreparedVideo:
    """Read all files of a video and note what cannot be read or stored. It blocks."""
    notes = ReportNotes(None, files.identifier)
    video_file = _probe_file(files.video, video_key(files.identifier, files.video), notes) if files.video else None
    transcript = _read_file(files.transcript, parse_transcript, notes)
    moments = _read_file(files.moments, parse_moments, notes) or MomentsFile([], [])
    about_moments = notes.about(_file_name(files.moments))
    _note_lost_transcripts(moments.pasted, transcript, about_moments)
    kept = merge_duplicates(moments.moments, about_moments)
    return PreparedVideo(
        identifier=files.identifier,
        address=_find_address(files, video_file, library, source, notes),
        video_file=video_file,
        file_size_kb=_file_size_kb(video_file, source),
        source_url=source.url if source else None,
        transcript=transcript,
        transcript_file=_file_name(files.transcript),
        moments=kept,
        moments_file=_file_name(files.moments),
        history_file=_file_name(files.history),
        clips=_find_clips(files.identifier, kept, library, notes),
        thumbnail=_find_file(files.thumbnail, thumbnail_key, "thumbnail", notes),
        audio=_find_file(files.audio, audio_key, "audio", notes),
        runs=_read_file(files.history, parse_runs, notes) or [],
        notes=notes,
    )


def _read_file(path: Path | None, parse: Callable[[JsonDocument, ReportNotes], _T], notes: ReportNotes) -> _T | None:
    if path is None:
        return None
    notes, content = notes.about(_file_name(path)), None
    try:
        document = read_json(path)
        content = document.value
        return parse(document, notes)
    except Exception as error:  # any defect concerns this file only, not its video
        notes.add(EntryKind.REFUSED, _probe_failure(error), content)
        return None


def _probe_failure(error: Exception) -> str:
    match error:
        case UnreadableFile() | NotMedia():
            return str(error)
        case OSError():
            return f"it cannot be read: {error.strerror}"
        case _:
            return f"{type(error).__name__}: {error}"


def _probe_file(path: Path, key: str, notes: ReportNotes) -> LibraryFile | None:
    try:
        size = path.stat().st_size
        return LibraryFile(path, key, size, probe_media(path))
    except OSError as error:
        notes.about(_file_name(path)).add(EntryKind.REFUSED, _probe_failure(error))
        return None
    except Exception as error:  # as above
        notes.about(_file_name(path)).add(EntryKind.REFUSED, _probe_failure(error))
        return LibraryFile(path, key, size)


def _find_address(
    files: LegacyVideoFiles,
    video_file: LibraryFile | None,
    library: Library,
    source: VideoSource | None,
    notes: ReportNotes,
) -> VideoAddress:
    if video_file is not None:
        return VideoAddress(video_file.url, AddressCertainty.PRESENT)
    if registered := _registered_address(source.url if source else None):
        return registered
    url = (library.root / "videos" / f"{files.identifier}.mp4").as_uri()
    notes.add(EntryKind.MISSING, "no video file: its address is where one would be", url)
    return VideoAddress(url, AddressCertainty.ASSUMED)


def _registered_address(source_url: str | None) -> VideoAddress | None:
    return VideoAddress(source_url, AddressCertainty.NAMED) if source_url and source_url.startswith("gs://") else None


def _file_size_kb(video_file: LibraryFile | None, source: VideoSource | None) -> int | None:
    if video_file is not None:
        return video_file.file_size_kb
    return size_in_kb(source.file_size) if source and source.file_size is not None else None


def _find_file(path: Path | None, key: Callable[[str, Path], str], what: str, notes: ReportNotes) -> LibraryFile | None:
    if path is None:
        return None
    try:
        size = path.stat().st_size
    except OSError as error:
        notes.about(_file_name(path)).add(EntryKind.REFUSED, _probe_failure(error))
        return None
    if size == 0:
        notes.about(_file_name(path)).add(EntryKind.REFUSED, f"the {what} is empty")
        return None
    return LibraryFile(path, key(to_nfc(path.stem), path), size)


def _find_clips(
    identifier: str, moments: Iterable[LegacyMoment], library: Library, notes: ReportNotes
) -> dict[str, LibraryFile]:
    clips = {}
    for legacy_id in {moment.legacy_id: None for moment in moments if moment.legacy_id}:
        name = clip_name(identifier, legacy_id)
        if name not in library.clips:
            continue
        path = library.root / "moment_clips" / library.clips[name]
        clip = _probe_file(path, clip_key(identifier, legacy_id, name), notes)
        if clip is not None and clip.media is not None:
            clips[legacy_id] = clip
    return clips


def _note_lost_transcripts(
    pasted: Iterable[PastedTranscript], transcript: LegacyTranscript | None, notes: ReportNotes
) -> None:
    """Note transcripts in prompts that differ from the stored one: they would be lost."""
    rows: dict[str, list[int]] = {}
    are_stored: dict[str, bool] = {}
    for each in pasted:
        if each.lines not in are_stored:
            are_stored[each.lines] = _is_transcript_stored(each, transcript)
        rows.setdefault(each.lines, []).append(each.row)
    for lines, is_stored in are_stored.items():
        if not is_stored:
            content = {"rows": rows[lines], "transcript": lines}
            notes.add(EntryKind.DROPPED, "the transcript in the prompt is not the stored one", content)


def _is_transcript_stored(pasted: PastedTranscript, transcript: LegacyTranscript | None) -> bool:
    if transcript is None:
        return False
    try:
        return pasted.lines == format_segments(transcript.segments) or pasted.lines == format_words(
            transcript.words, pasted.window or _EVERYTHING, pasted.offset
        )
    except (KeyError, TypeError, ValueError):  # words or segments without times
        return False


def _file_name(path: Path | None) -> str | None:
    return f"{path.parent.name}/{path.name}" if path else None
