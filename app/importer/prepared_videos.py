"""Everything that a legacy library has of one video, read and checked without the database."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

from app.ai.prompts import format_segments, format_words
from app.core.text import to_nfc
from app.importer.legacy_files import (
    CLIP_FOLDER,
    JsonDocument,
    LegacyVideoFiles,
    LibraryContents,
    UnreadableFile,
    read_json_file,
)
from app.importer.legacy_records import LegacyRun, LegacyTranscript, RegisteredSource, parse_runs, parse_transcript
from app.importer.moments import legacy_clip_name, merge_duplicate_moments
from app.importer.moments_file import LegacyMoment, ParsedMoments, PromptTranscript, parse_moments
from app.importer.report import EntryKind, FileReporter
from app.media.probe import MediaInfo, NotMedia, probe_media, size_in_kb
from app.storage import audio_folder_key, clip_folder_key, storable_name, thumbnail_folder_key, video_folder_key

# File names that every file system and URL accepts unchanged.
_PLAIN_CLIP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()-]{0,199}\.mp4")

_T = TypeVar("_T")
_EVERYTHING = (float("-inf"), float("inf"))


class AddressCertainty(IntEnum):
    """How certain the URL of a video is; a more certain one replaces another."""

    ASSUMED = 0  # where the library would have the file
    NAMED = 1  # in the URL registry
    PRESENT = 2  # of a file that exists


@dataclass(frozen=True, slots=True)
class VideoAddress:
    """The URL of a video, and how certain it is."""

    url: str
    certainty: AddressCertainty


@dataclass(frozen=True, slots=True)
class LibraryFile:
    """A media file of a library: its size in bytes, and the storage key of its copy; `media` only of video files."""

    path: Path
    key: str
    size: int
    media: MediaInfo | None = None

    @property
    def url(self) -> str:
        return self.path.as_uri()

    @property
    def file_size_kb(self) -> int:
        return size_in_kb(self.size)


@dataclass(slots=True)
class PreparedVideo:
    """One video of a library, parsed, ready to be written; `ids_of_other_videos` are moment ids of earlier videos."""

    identifier: str
    files: LegacyVideoFiles
    address: VideoAddress
    video_file: LibraryFile | None
    file_size_kb: int | None
    source_url: str | None
    transcript: LegacyTranscript | None
    moments: list[LegacyMoment]
    clips: dict[str, LibraryFile]
    thumbnail: LibraryFile | None
    audio: LibraryFile | None
    runs: list[LegacyRun]
    reporter: FileReporter
    ids_of_other_videos: frozenset[str] = field(default_factory=frozenset)

    def list_files(self) -> list[LibraryFile]:
        single = [self.video_file, self.thumbnail, self.audio]
        return [file for file in (*single, *self.clips.values()) if file is not None]

    def remove_file(self, file: LibraryFile) -> None:
        """Continue as if the library did not have the file."""
        if file == self.video_file:
            self.video_file, self.file_size_kb = None, None
            self.address = _bucket_address(self.source_url) or VideoAddress(file.url, AddressCertainty.ASSUMED)
        self.thumbnail = None if file == self.thumbnail else self.thumbnail
        self.audio = None if file == self.audio else self.audio
        self.clips = {legacy_id: clip for legacy_id, clip in self.clips.items() if clip != file}


def prepare_video(files: LegacyVideoFiles, library: LibraryContents, source: RegisteredSource | None) -> PreparedVideo:
    """Read all files of a video; report what cannot be read or stored. It blocks."""
    identifier, reporter = files.identifier, FileReporter(None, files.identifier)
    video_file = (
        _probe_video(files.video, _make_file_key(video_folder_key, files.video), reporter) if files.video else None
    )
    file_size = video_file.size if video_file else source.file_size if source else None
    transcript = parse_file_or_report(files.transcript, parse_transcript, reporter.for_file(files.transcript))
    moments_reporter = reporter.for_file(files.moments)
    parsed = parse_file_or_report(files.moments, parse_moments, moments_reporter) or ParsedMoments([], [])
    _report_unstored_prompt_transcripts(parsed.prompt_transcripts, transcript, moments_reporter)
    moments = merge_duplicate_moments(parsed.moments, moments_reporter)
    return PreparedVideo(
        identifier=identifier,
        files=files,
        address=_find_video_address(files, video_file, library, source, reporter),
        video_file=video_file,
        file_size_kb=size_in_kb(file_size) if file_size is not None else None,
        source_url=source.url if source else None,
        transcript=transcript,
        moments=moments,
        clips=_find_clips_by_legacy_id(identifier, moments, library, reporter),
        thumbnail=_find_thumbnail_or_audio(files.thumbnail, thumbnail_folder_key, "thumbnail", reporter),
        audio=_find_thumbnail_or_audio(files.audio, audio_folder_key, "audio", reporter),
        runs=parse_file_or_report(files.history, parse_runs, reporter.for_file(files.history)) or [],
        reporter=reporter,
    )


def parse_file_or_report(
    path: Path | None, parse: Callable[[JsonDocument, FileReporter], _T], reporter: FileReporter
) -> _T | None:
    if path is None:
        return None
    content = None
    try:
        document = read_json_file(path)
        content = document.value
        return parse(document, reporter)
    except Exception as error:  # any defect concerns this file only, not its video
        reporter.add_entry(EntryKind.REFUSED, _explain_unreadable_file(error), content)
        return None


def _explain_unreadable_file(error: Exception) -> str:
    match error:
        case UnreadableFile() | NotMedia():
            return str(error)
        case OSError():
            return f"it cannot be read: {error.strerror}"
        case _:
            return f"{type(error).__name__}: {error}"


def _make_file_key(folder_key: Callable[[str], str], path: Path) -> str:
    identifier = to_nfc(path.stem)
    return f"{folder_key(identifier)}/{storable_name(identifier)}{path.suffix.lower()}"


def _probe_video(path: Path, key: str, reporter: FileReporter) -> LibraryFile | None:
    """Return a video file or clip, without `media` where it is no video; None where it cannot be read."""
    try:
        size = path.stat().st_size
        return LibraryFile(path, key, size, probe_media(path))
    except Exception as error:  # as above
        reporter.for_file(path).add_entry(EntryKind.REFUSED, _explain_unreadable_file(error))
        return None if isinstance(error, OSError) else LibraryFile(path, key, size)


def _find_video_address(
    files: LegacyVideoFiles,
    video_file: LibraryFile | None,
    library: LibraryContents,
    source: RegisteredSource | None,
    reporter: FileReporter,
) -> VideoAddress:
    """Return the URL of the video's file, of its source in a bucket, or of where the library would have the file."""
    if video_file is not None:
        return VideoAddress(video_file.url, AddressCertainty.PRESENT)
    if registered := _bucket_address(source.url if source else None):
        return registered
    url = (library.root / "videos" / f"{files.identifier}.mp4").as_uri()
    reporter.add_entry(EntryKind.MISSING, "no video file: its address is where one would be", url)
    return VideoAddress(url, AddressCertainty.ASSUMED)


def _bucket_address(source_url: str | None) -> VideoAddress | None:
    return VideoAddress(source_url, AddressCertainty.NAMED) if source_url and source_url.startswith("gs://") else None


def _find_thumbnail_or_audio(
    path: Path | None, folder_key: Callable[[str], str], kind: str, reporter: FileReporter
) -> LibraryFile | None:
    if path is None:
        return None
    try:
        size = path.stat().st_size
    except OSError as error:
        reporter.for_file(path).add_entry(EntryKind.REFUSED, _explain_unreadable_file(error))
        return None
    if size == 0:
        reporter.for_file(path).add_entry(EntryKind.REFUSED, f"the {kind} is empty")
        return None
    return LibraryFile(path, _make_file_key(folder_key, path), size)


def _find_clips_by_legacy_id(
    video_identifier: str, moments: Iterable[LegacyMoment], library: LibraryContents, reporter: FileReporter
) -> dict[str, LibraryFile]:
    clips = {}
    for legacy_id in {moment.legacy_id: None for moment in moments if moment.legacy_id}:
        name = legacy_clip_name(video_identifier, legacy_id)
        if name not in library.clips:
            continue
        # A clip keeps its file name where possible, because old links use it.
        key_name = name if _PLAIN_CLIP_NAME.fullmatch(name) else f"{storable_name(legacy_id)}.mp4"
        path = library.root / CLIP_FOLDER / library.clips[name]
        clip = _probe_video(path, f"{clip_folder_key(video_identifier)}/{key_name}", reporter)
        if clip is not None and clip.media is not None:
            clips[legacy_id] = clip
    return clips


def _report_unstored_prompt_transcripts(
    prompt_transcripts: Iterable[PromptTranscript], transcript: LegacyTranscript | None, reporter: FileReporter
) -> None:
    rows: dict[str, list[int]] = {}
    lost: dict[str, bool] = {}
    for each in prompt_transcripts:
        if each.lines not in lost:
            lost[each.lines] = not _equals_video_transcript(each, transcript)
        rows.setdefault(each.lines, []).append(each.row)
    for lines, is_lost in lost.items():
        if is_lost:
            content = {"rows": rows[lines], "transcript": lines}
            reporter.add_entry(EntryKind.DROPPED, "the transcript in the prompt is not the stored one", content)


def _equals_video_transcript(prompt_transcript: PromptTranscript, transcript: LegacyTranscript | None) -> bool:
    if transcript is None:
        return False
    window, offset = prompt_transcript.window or _EVERYTHING, prompt_transcript.offset
    lines = prompt_transcript.lines
    try:
        return lines == format_segments(transcript.segments) or lines == format_words(transcript.words, window, offset)
    except (KeyError, TypeError, ValueError):  # words or segments without times
        return False
