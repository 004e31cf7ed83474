"""The files of a legacy library: which there are, to which video each belongs, and what of their JSON can be stored."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from app.core.errors import VideoMomentsError
from app.core.media_types import MEDIA_EXTENSIONS
from app.core.text import is_utf8, to_nfc
from app.importer.report import EntryKind, FileReporter

REGISTRY_FILE = "url_registry.json"
CLIP_FOLDER = "moment_clips"
# The attribute of `LegacyVideoFiles` and the extensions of the files of each folder; the preferred extension first.
_VIDEO_FOLDERS = {
    "videos": ("video", MEDIA_EXTENSIONS),
    "transcripts": ("transcript", (".json",)),
    "moments": ("moments", (".json",)),
    "thumbnails": ("thumbnail", (".jpg",)),
    "audios": ("audio", (".wav",)),
    "pipeline_history": ("history", (".json",)),
}
_LIBRARY_FOLDERS = (*_VIDEO_FOLDERS, CLIP_FOLDER)
_MEDIA_FOLDERS = ("videos", "thumbnails", "audios", CLIP_FOLDER)

# What the previous backend left beside its files while it wrote them.
_BY_PRODUCTS = (".lock", ".tmp", ".bak")
_MAX_IDENTIFIER_LENGTH = 255


class NotALibrary(VideoMomentsError):
    """A folder that is not a legacy library."""


@dataclass(slots=True)
class LegacyVideoFiles:
    """The paths of one video's files; its identifier is the name they share."""

    identifier: str
    video: Path | None = None
    transcript: Path | None = None
    moments: Path | None = None
    thumbnail: Path | None = None
    audio: Path | None = None
    history: Path | None = None


@dataclass(frozen=True, slots=True)
class LibraryContents:
    """The files of a legacy library by video, ordered by identifier; `clips` maps names in NFC to those on disk."""

    root: Path
    videos: list[LegacyVideoFiles]
    clips: Mapping[str, str]

    def list_media_files(self) -> list[Path]:
        media = [path for files in self.videos for path in (files.video, files.thumbnail, files.audio)]
        return [path for path in media if path] + [self.root / CLIP_FOLDER / name for name in self.clips.values()]


def find_library_root(directory: Path) -> Path:
    """Return the folder that has `videos/`, `moments/` …: `directory` or the `static` in it. Raises `NotALibrary`."""
    root = Path(os.path.abspath(directory))
    if not root.exists():
        raise NotALibrary(f"{root} does not exist")
    if not root.is_dir():
        raise NotALibrary(f"{root} is no folder")
    for candidate in (root, root / "static"):
        if (candidate / REGISTRY_FILE).is_file() or any((candidate / folder).is_dir() for folder in _LIBRARY_FOLDERS):
            return candidate
    raise NotALibrary(
        f"{root} is no legacy library: it has none of {', '.join(_LIBRARY_FOLDERS)} and no {REGISTRY_FILE}"
    )


def scan_library(root: Path, registered_identifiers: set[str], reporter: FileReporter) -> LibraryContents:
    """List the files of a library by video, and report those that cannot be imported.

    The videos of the URL registry need no file.
    """
    videos = {identifier: LegacyVideoFiles(identifier) for identifier in registered_identifiers}
    _report_unknown_root_entries(root, reporter)
    for folder in _VIDEO_FOLDERS:
        for identifier, path in _list_files_by_identifier(root, folder, reporter):
            _assign_file_to_video(videos, folder, identifier, path, reporter)
    for identifier, files in list(videos.items()):
        has_content = files.video or files.transcript or files.moments or files.history
        if identifier not in registered_identifiers and not has_content:
            _report_orphaned_thumbnail_and_audio(files, reporter)
            del videos[identifier]
    clips = {to_nfc(path.name): path.name for path in _list_usable_files(root, CLIP_FOLDER, (".mp4",), reporter)}
    return LibraryContents(root, [videos[identifier] for identifier in sorted(videos)], clips)


def list_media_folders(root: Path) -> list[Path]:
    """Return the folders with a library's media: its root, and folders elsewhere that it links to."""
    linked = [(root / folder).resolve() for folder in _MEDIA_FOLDERS if (root / folder).is_dir()]
    return [root, *(folder for folder in linked if not folder.is_relative_to(root.resolve()))]


def explain_invalid_identifier(identifier: str) -> str | None:
    if not identifier:
        return "it is empty"
    if len(identifier) > _MAX_IDENTIFIER_LENGTH:
        return f"it has more than {_MAX_IDENTIFIER_LENGTH} characters"
    if "/" in identifier:
        return "it holds a slash"
    return explain_unstorable_text(identifier)


def explain_unstorable_text(text: str) -> str | None:
    if "\0" in text:
        return "it holds the character U+0000"
    return None if is_utf8(text) else "it holds half of a surrogate pair, which is no character"


def _assign_file_to_video(
    videos: dict[str, LegacyVideoFiles], folder: str, identifier: str, path: Path, reporter: FileReporter
) -> None:
    reporter = reporter.for_file(path)
    if problem := explain_invalid_identifier(identifier):
        reporter.add_entry(EntryKind.REFUSED, f"its name cannot be a video's id: {problem}", identifier)
        return
    files, (attribute, _) = videos.setdefault(identifier, LegacyVideoFiles(identifier)), _VIDEO_FOLDERS[folder]
    if (other := getattr(files, attribute)) is not None:
        reporter.add_entry(EntryKind.REFUSED, f"{other.name} has the same id and comes first", identifier)
        return
    setattr(files, attribute, path)


def _report_orphaned_thumbnail_and_audio(files: LegacyVideoFiles, reporter: FileReporter) -> None:
    for path, reason in (
        (files.thumbnail, "a thumbnail whose video has nothing else"),
        (files.audio, "the audio of a video that has nothing else"),
    ):
        if path is not None:
            reporter.for_file(path).add_entry(EntryKind.ORPHAN, reason)


def _list_files_by_identifier(root: Path, folder: str, reporter: FileReporter) -> list[tuple[str, Path]]:
    """Return (identifier, path) of a folder's files, sorted; the preferred file of an identifier comes first."""
    _, extensions = _VIDEO_FOLDERS[folder]
    named = [
        (to_nfc(path.stem), extensions.index(path.suffix.lower()), path.suffix.isupper(), path)
        for path in _list_usable_files(root, folder, extensions, reporter)
    ]
    return [(identifier, path) for identifier, _, _, path in sorted(named)]


def _list_usable_files(root: Path, folder: str, extensions: tuple[str, ...], reporter: FileReporter) -> Iterator[Path]:
    base = root / folder
    if not base.is_dir():
        return
    allowed_folders = (root.resolve(), base.resolve())
    try:
        entries = sorted(os.scandir(base), key=lambda entry: entry.name)
    except OSError as error:
        reporter.for_file(folder).add_entry(EntryKind.REFUSED, f"the folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        path = base / entry.name
        if entry.name.startswith(".") or entry.name.lower().endswith(_BY_PRODUCTS):
            continue
        file_reporter = reporter.for_file(path)
        if problem := _explain_unusable_file(entry, path, allowed_folders):
            file_reporter.add_entry(EntryKind.REFUSED, problem)
        elif path.suffix.lower() not in extensions:
            file_reporter.add_entry(EntryKind.ORPHAN, f"no file of the kinds that belong into {folder}/")
        else:
            yield path


def _explain_unusable_file(entry: os.DirEntry[str], path: Path, allowed_folders: tuple[Path, ...]) -> str | None:
    if entry.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # a RuntimeError is a loop of links
            return "a link to a file that does not exist"
        if not any(target.is_relative_to(folder) for folder in allowed_folders):
            return "a link that leads out of the library is not followed"
    if entry.is_dir():
        return "a folder where a file should be"
    return None if entry.is_file() else "no regular file"


def _report_unknown_root_entries(root: Path, reporter: FileReporter) -> None:
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        known = entry.name in (*_LIBRARY_FOLDERS, REGISTRY_FILE) or entry.name.startswith(".")
        if not known and not entry.name.lower().endswith(_BY_PRODUCTS):
            kind = "a folder" if entry.is_dir() else "a file"
            reporter.for_file(entry.name).add_entry(EntryKind.ORPHAN, f"{kind} that has no table")


# Far above the largest file of the previous backend (15 MB), and small enough to be held in memory.
MAX_JSON_BYTES = 256 * 1024 * 1024
_INTEGER_RANGE = range(-(2**31), 2**31)


class UnreadableFile(Exception):
    """A file that cannot be read, is not JSON or holds something else than expected; the message says why."""


@dataclass(frozen=True, slots=True)
class JsonDocument:
    """The content of a JSON file; where `is_storable`, PostgreSQL can store all its texts and numbers."""

    value: Any
    is_storable: bool


@dataclass(frozen=True, slots=True)
class UnstorableValue:
    """A value that PostgreSQL cannot store, why, and its path in the document: `word_timestamps[3].start`."""

    json_path: str
    problem: str
    content: Any


def read_json_file(path: Path) -> JsonDocument:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UnreadableFile(f"it is larger than {MAX_JSON_BYTES // 1024**2} MB")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"it cannot be read: {error.strerror}") from None
    try:
        return JsonDocument(orjson.loads(content), is_storable=b"\\u0000" not in content)
    except orjson.JSONDecodeError:
        return JsonDocument(_parse_json_with_nan(content), is_storable=False)


def to_finite_number(value: Any) -> float | None:
    """Return a JSON number, or text that is one, as float; None for anything else, NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def to_32_bit_integer(value: Any) -> int | None:
    number = to_finite_number(value)
    return int(number) if number is not None and number.is_integer() and int(number) in _INTEGER_RANGE else None


def to_storable_text(value: Any, max_length: int | None = None) -> str | None:
    """Return the value where it is text that PostgreSQL can store and not too long, else None."""
    if not isinstance(value, str) or (max_length is not None and len(value) > max_length):
        return None
    return None if explain_unstorable_text(value) else value


def _parse_json_with_nan(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError:
        raise UnreadableFile("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise UnreadableFile("it is no UTF-8") from None
    except ValueError as error:
        raise UnreadableFile(f"it is no JSON: {error}") from None


def find_unstorable_value(document: Any) -> UnstorableValue | None:
    """Return the first value, or name, in JSON data that PostgreSQL cannot store, or None."""
    rest: list[tuple[str, Any]] = [("", document)]
    while rest:
        json_path, value = rest.pop()
        match value:
            case dict():
                for name in value:
                    if problem := explain_unstorable_text(name):
                        return UnstorableValue(json_path, f"a name: {problem}", name)
                rest += reversed([(f"{json_path}.{name}".lstrip("."), item) for name, item in value.items()])
            case list():
                rest += reversed([(f"{json_path}[{number}]", item) for number, item in enumerate(value)])
            case float() if not math.isfinite(value):
                return UnstorableValue(json_path, "it is no finite number", value)
            case int() if not -(2**63) <= value < 2**63:
                return UnstorableValue(json_path, "it is too large a number", value)
            case str() if problem := explain_unstorable_text(value):
                return UnstorableValue(json_path, problem, value)
    return None
