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
from app.core.text import to_nfc
from app.importer.report import EntryKind, ReportNotes

LIBRARY_FOLDERS = ("videos", "transcripts", "moments", "thumbnails", "audios", "moment_clips", "pipeline_history")
MEDIA_FOLDERS = ("videos", "thumbnails", "audios", "moment_clips")
REGISTRY_FILE = "url_registry.json"

_EXTENSIONS_OF_FOLDER = {
    "videos": MEDIA_EXTENSIONS,
    "transcripts": (".json",),
    "moments": (".json",),
    "thumbnails": (".jpg",),
    "audios": (".wav",),
    "pipeline_history": (".json",),
}
# What the previous backend left beside its files while it wrote them.
_BY_PRODUCTS = (".lock", ".tmp", ".bak")
_LONGEST_IDENTIFIER = 255


class NotALibrary(VideoMomentsError):
    """A folder that is not a legacy library."""


@dataclass(slots=True)
class LegacyVideoFiles:
    """The files of one video; its identifier is the name they share."""

    identifier: str
    video: Path | None = None
    transcript: Path | None = None
    moments: Path | None = None
    thumbnail: Path | None = None
    audio: Path | None = None
    history: Path | None = None


@dataclass(frozen=True, slots=True)
class Library:
    """A legacy library: its videos in the order of their identifiers, and the names of its clip files.

    `clips` has each name in NFC, as identifiers are, and as its file system has it.
    """

    root: Path
    videos: list[LegacyVideoFiles]
    clips: Mapping[str, str]

    def has_media(self) -> bool:
        return any(True for _ in self._media())

    def size_of_media(self) -> int:
        """Return the total bytes of the files that can be copied."""
        return sum(map(_file_size, self._media()))

    def _media(self) -> Iterator[Path]:
        for files in self.videos:
            yield from (path for path in (files.video, files.thumbnail, files.audio) if path is not None)
        yield from (self.root / "moment_clips" / name for name in self.clips.values())


_FIELD_OF_FOLDER = {
    "videos": "video",
    "transcripts": "transcript",
    "moments": "moments",
    "thumbnails": "thumbnail",
    "audios": "audio",
    "pipeline_history": "history",
}


def find_library_root(directory: Path) -> Path:
    """Return the folder with `videos/`, `moments/` …: `directory`, or the `static` in it.

    Raises `NotALibrary`.
    """
    root = Path(os.path.abspath(directory))
    if not root.exists():
        raise NotALibrary(f"{root} does not exist")
    if not root.is_dir():
        raise NotALibrary(f"{root} is no folder")
    for candidate in (root, root / "static"):
        if (candidate / REGISTRY_FILE).is_file() or any((candidate / folder).is_dir() for folder in LIBRARY_FOLDERS):
            return candidate
    raise NotALibrary(
        f"{root} is no legacy library: it has none of {', '.join(LIBRARY_FOLDERS)} and no {REGISTRY_FILE}"
    )


def scan_library(root: Path, registered: set[str], notes: ReportNotes) -> Library:
    """List the library's files. `registered` are the videos of the URL registry, which need no file.

    A file that belongs to no video, that cannot be one of ours, or that cannot be read goes into `notes`.
    """
    videos = {identifier: LegacyVideoFiles(identifier) for identifier in registered}
    _note_other_folders(root, notes)
    for folder in _FIELD_OF_FOLDER:
        for identifier, path in _list_files(root, folder, notes):
            _assign_file(videos, folder, identifier, path, notes)
    for identifier, files in list(videos.items()):
        if identifier not in registered and not (files.video or files.transcript or files.moments or files.history):
            _note_orphans(files, notes)
            del videos[identifier]
    clips = {to_nfc(path.name): path.name for path in _list_usable_files(root, "moment_clips", (".mp4",), notes)}
    return Library(root, [videos[identifier] for identifier in sorted(videos)], clips)


def list_media_folders(root: Path) -> list[Path]:
    """Return the folders with the library's media: its own, and the targets of links to other disks."""
    linked = [(root / folder).resolve() for folder in MEDIA_FOLDERS if (root / folder).is_dir()]
    return [root, *(folder for folder in linked if not folder.is_relative_to(root.resolve()))]


def describe_identifier_problem(identifier: str) -> str | None:
    if not identifier:
        return "it is empty"
    if len(identifier) > _LONGEST_IDENTIFIER:
        return f"it has more than {_LONGEST_IDENTIFIER} characters"
    if "/" in identifier:
        return "it holds a slash"
    return describe_text_problem(identifier)


def describe_text_problem(text: str) -> str | None:
    if "\0" in text:
        return "it holds the character U+0000"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is no character"
    return None


def _assign_file(
    videos: dict[str, LegacyVideoFiles], folder: str, identifier: str, path: Path, notes: ReportNotes
) -> None:
    notes = notes.about(_relative_path(path))
    if problem := describe_identifier_problem(identifier):
        notes.add(EntryKind.REFUSED, f"its name cannot be a video's id: {problem}", identifier)
        return
    files = videos.setdefault(identifier, LegacyVideoFiles(identifier))
    if (other := getattr(files, _FIELD_OF_FOLDER[folder])) is not None:
        notes.add(EntryKind.REFUSED, f"{other.name} has the same id and comes first", identifier)
        return
    setattr(files, _FIELD_OF_FOLDER[folder], path)


def _note_orphans(files: LegacyVideoFiles, notes: ReportNotes) -> None:
    for path, reason in (
        (files.thumbnail, "a thumbnail whose video has nothing else"),
        (files.audio, "the audio of a video that has nothing else"),
    ):
        if path is not None:
            notes.about(_relative_path(path)).add(EntryKind.ORPHAN, reason)


def _list_files(root: Path, folder: str, notes: ReportNotes) -> Iterator[tuple[str, Path]]:
    """Yield identifier and path of a folder's files; the preferred file of an identifier comes first."""
    extensions = _EXTENSIONS_OF_FOLDER[folder]
    paths = _list_usable_files(root, folder, extensions, notes)
    order = {extension: number for number, extension in enumerate(extensions)}
    named = [(to_nfc(path.stem), order[path.suffix.lower()], path.suffix.isupper(), path) for path in paths]
    for identifier, _, _, path in sorted(named):
        yield identifier, path


def _list_usable_files(root: Path, folder: str, extensions: tuple[str, ...], notes: ReportNotes) -> Iterator[Path]:
    """Yield the regular files of a folder with one of the extensions, and note the rest."""
    base = root / folder
    if not base.is_dir():
        return
    inside = (root.resolve(), base.resolve())
    try:
        entries = sorted(os.scandir(base), key=lambda entry: entry.name)
    except OSError as error:
        notes.about(folder).add(EntryKind.REFUSED, f"the folder cannot be read: {error.strerror}")
        return
    for entry in entries:
        path = base / entry.name
        if entry.name.startswith(".") or entry.name.lower().endswith(_BY_PRODUCTS):
            continue
        if problem := _describe_file_problem(entry, path, inside):
            notes.about(_relative_path(path)).add(EntryKind.REFUSED, problem)
        elif path.suffix.lower() not in extensions:
            notes.about(_relative_path(path)).add(EntryKind.ORPHAN, f"no file of the kinds that belong into {folder}/")
        else:
            yield path


def _describe_file_problem(entry: os.DirEntry[str], path: Path, inside: tuple[Path, ...]) -> str | None:
    if entry.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # a RuntimeError is a loop of links
            return "a link to a file that does not exist"
        if not any(target.is_relative_to(folder) for folder in inside):
            return "a link that leads out of the library is not followed"
    if entry.is_dir():
        return "a folder where a file should be"
    return None if entry.is_file() else "no regular file"


def _note_other_folders(root: Path, notes: ReportNotes) -> None:
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        known = entry.name in (*LIBRARY_FOLDERS, REGISTRY_FILE) or entry.name.startswith(".")
        if not known and not entry.name.lower().endswith(_BY_PRODUCTS):
            notes.about(entry.name).add(
                EntryKind.ORPHAN, f"{'a folder' if entry.is_dir() else 'a file'} that has no table"
            )


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _relative_path(path: Path | None) -> str | None:
    return f"{path.parent.name}/{path.name}" if path is not None else None


# Far above the largest file of the previous backend (15 MB), and small enough to be held in memory.
MAX_JSON_BYTES = 256 * 1024 * 1024
_INTEGER_RANGE = range(-(2**31), 2**31)


class UnreadableFile(Exception):
    """A file that holds no JSON, or not what it should; the text says why."""


@dataclass(frozen=True, slots=True)
class JsonDocument:
    """The content of a file. With `strict`, its texts and numbers need no further check."""

    value: Any
    strict: bool


@dataclass(frozen=True, slots=True)
class JsonFlaw:
    """A value that PostgreSQL cannot store, and where it is: `word_timestamps[3].start`."""

    json_path: str
    problem: str
    content: Any


def read_json(path: Path) -> JsonDocument:
    """Read a file. Raises `UnreadableFile`.

    The previous backend wrote and read NaN, infinity and half surrogate pairs without a word.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UnreadableFile(f"it is larger than {MAX_JSON_BYTES // 1024**2} MB")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"it cannot be read: {error.strerror}") from None
    try:
        return JsonDocument(orjson.loads(content), strict=b"\\u0000" not in content)
    except orjson.JSONDecodeError:
        return JsonDocument(_read_json_tolerantly(content), strict=False)


def find_flaw(value: Any) -> JsonFlaw | None:
    """Return the first value in `value` that PostgreSQL cannot store, or None."""
    return next(_find_flaws(value), None)


def read_number(value: Any) -> float | None:
    """Return a finite number, also from text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def read_integer(value: Any) -> int | None:
    """Return a whole number that fits an integer column, or None."""
    number = read_number(value)
    return int(number) if number is not None and number.is_integer() and int(number) in _INTEGER_RANGE else None


def read_text(value: Any, longest: int | None = None) -> str | None:
    if not isinstance(value, str) or (longest is not None and len(value) > longest) or describe_text_problem(value):
        return None
    return value


def _read_json_tolerantly(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError:
        raise UnreadableFile("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise UnreadableFile("it is no UTF-8") from None
    except ValueError as error:
        raise UnreadableFile(f"it is no JSON: {error}") from None


def _find_flaws(root: Any) -> Iterator[JsonFlaw]:
    rest: list[tuple[str, Any]] = [("", root)]
    while rest:
        json_path, value = rest.pop()
        match value:
            case dict():
                for name in value:
                    if problem := describe_text_problem(name):
                        yield JsonFlaw(json_path, f"a name: {problem}", name)
                rest += reversed([(f"{json_path}.{name}".lstrip("."), item) for name, item in value.items()])
            case list():
                rest += reversed([(f"{json_path}[{number}]", item) for number, item in enumerate(value)])
            case float() if not math.isfinite(value):
                yield JsonFlaw(json_path, "it is no finite number", value)
            case int() if not -(2**63) <= value < 2**63:
                yield JsonFlaw(json_path, "it is too large a number", value)
            case str() if problem := describe_text_problem(value):
                yield JsonFlaw(json_path, problem, value)
