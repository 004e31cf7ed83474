"""The report of an import: rows per table, and an entry for everything that was not stored unchanged."""

import json
import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, Self

from app.core.text import escape_json

TABLES = (
    "videos",
    "transcripts",
    "prompts",
    "generation_configs",
    "moments",
    "clips",
    "thumbnails",
    "pipeline_history",
)


class EntryKind(StrEnum):
    """What happened to something that was not stored unchanged."""

    FAILED = "failed"  # a whole video: nothing of it was written
    REFUSED = "refused"  # cannot enter its table
    RENAMED = "renamed"  # is stored under another id
    MERGED = "merged"  # says the same as another row
    CHANGED = "changed"  # is stored with a value that differs
    DROPPED = "dropped"  # values for which there is no column
    MISSING = "missing"  # a video without its file
    ORPHAN = "orphan"  # a file that belongs to nothing that is stored
    KEPT = "kept"  # rows of the database that the files do not account for

    @property
    def is_loss(self) -> bool:
        return self in (EntryKind.FAILED, EntryKind.REFUSED)


@dataclass(frozen=True, slots=True)
class ReportEntry:
    """One line of the report. `row` counts from 1 in its file, `content` is what would otherwise vanish."""

    kind: EntryKind
    reason: str
    file: str | None = None
    video: str | None = None
    row: int | None = None
    content: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the values that are set as JSON; numbers that are not finite become text."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: _to_storable_json(value) for name, value in values.items() if value is not None}


@dataclass(slots=True)
class ReportNotes:
    """Collects the report entries about one file."""

    file: str | None
    video: str | None
    entries: list[ReportEntry] = field(default_factory=list)

    def add(self, kind: EntryKind, reason: str, content: Any = None, row: int | None = None) -> None:
        self.entries.append(ReportEntry(kind, reason, self.file, self.video, row, content))

    def about(self, file: str | None) -> Self:
        """Return notes about another file of the same video."""
        return type(self)(file, self.video, self.entries)


@dataclass(slots=True)
class TableCount:
    """How many rows of a table are new, changed, and as they were."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0

    def add(self, other: "TableCount") -> None:
        self.new += other.new
        self.changed += other.changed
        self.unchanged += other.unchanged


@dataclass(slots=True)
class CopyCount:
    """How many files, and bytes in them, were brought into storage and how many were there already."""

    new_files: int = 0
    new_bytes: int = 0
    old_files: int = 0
    old_bytes: int = 0

    def add(self, size: int, is_new: bool) -> None:
        if is_new:
            self.new_files, self.new_bytes = self.new_files + 1, self.new_bytes + size
        else:
            self.old_files, self.old_bytes = self.old_files + 1, self.old_bytes + size


def count_tables() -> dict[str, TableCount]:
    return {table: TableCount() for table in TABLES}


class EntryJournal:
    """The entries, in a temporary file: a report may be larger than what an import should hold in memory."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the journal
        self._end = 0
        self._blocks: list[tuple[str, int, int]] = []  # video, and where its entries begin and end

    def add(self, entries: Iterable[ReportEntry]) -> None:
        """Add entries about one video, or about none."""
        video, content = "", b""
        for entry in entries:
            video = entry.video or ""
            content += _encode_entry(entry) + b"\n"
        if content:
            self._file.seek(self._end)
            self._file.write(content)
            self._blocks.append((video, self._end, self._end + len(content)))
            self._end += len(content)

    def lines(self) -> Iterator[bytes]:
        """Yield each entry as JSON, ordered by video."""
        for _, begin, end in sorted(self._blocks):
            self._file.seek(begin)
            yield from self._file.read(end - begin).splitlines()

    def close(self) -> None:
        self._file.close()


class ImportReport:
    """What was read and written. Give it back with `close`, or use it in a `with` block.

    `in_place` counts the files that are served from where they lie, in `folders`; `note_problem` says why
    those could not be registered. `elsewhere` counts the rows whose files are in a bucket or on another host.
    """

    def __init__(self, directory: Path, dry_run: bool, copy: bool = False) -> None:
        self.directory = directory
        self.dry_run = dry_run
        self.copy = copy
        self.copied = CopyCount()
        self.in_place = 0
        self.elsewhere = 0
        self.folders: list[Path] = []
        self.note_problem: str | None = None
        self.seconds = 0.0
        self.videos = 0
        self.tables = count_tables()
        self.counts: Counter[EntryKind] = Counter()
        self._journal = EntryJournal()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._journal.close()

    def add(self, entries: Iterable[ReportEntry]) -> None:
        """Add entries about one video, or about none."""
        entries = list(entries)
        self.counts.update(entry.kind for entry in entries)
        self._journal.add(entries)

    def add_tables(self, tables: dict[str, TableCount]) -> None:
        for table, count in tables.items():
            self.tables[table].add(count)

    @property
    def rows(self) -> int:
        """Return how many rows the files account for, whether written or unchanged."""
        return sum(count.new + count.changed + count.unchanged for count in self.tables.values())

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def is_complete(self) -> bool:
        """Return whether everything in the files is in the tables."""
        return not any(kind.is_loss for kind in self.counts)

    def entries(self) -> Iterator[dict[str, Any]]:
        return map(json.loads, self._journal.lines())

    def to_json(self) -> dict[str, Any]:
        return {**self._head(), "entries": list(self.entries())}

    def write(self, path: Path) -> None:
        """Write the report to a file atomically."""
        part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            with part.open("wb") as file:
                self._write_to(file)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _write_to(self, file: IO[bytes]) -> None:
        file.write(_encode_json(self._head())[:-1] + b', "entries": [')
        for number, line in enumerate(self._journal.lines()):
            file.write((b",\n" if number else b"\n") + line)
        file.write(b"\n]}\n")

    def _head(self) -> dict[str, Any]:
        return {
            "directory": str(self.directory),
            "dry_run": self.dry_run,
            "complete": self.is_complete,
            "seconds": round(self.seconds, 3),
            "videos": self.videos,
            "rows": self.rows,
            "rows_per_second": round(self.rows_per_second, 1),
            "tables": {
                table: {"new": count.new, "changed": count.changed, "unchanged": count.unchanged}
                for table, count in self.tables.items()
            },
            "files": {
                "copied": self.copied.new_files,
                "copied_bytes": self.copied.new_bytes,
                "copied_before": self.copied.old_files,
                "copied_before_bytes": self.copied.old_bytes,
                "in_place": self.in_place,
                "elsewhere": self.elsewhere,
            },
            "counts": {kind.value: self.counts[kind] for kind in EntryKind if self.counts[kind]},
        }


def _to_storable_json(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case dict():
            return {str(name): _to_storable_json(item) for name, item in value.items()}
        case list() | tuple():
            return [_to_storable_json(item) for item in value]
        case _:
            return value


def _encode_entry(entry: ReportEntry) -> bytes:
    try:
        return _encode_json(entry.to_json())
    except RecursionError:
        return _encode_json(replace(entry, content="it is nested too deeply to be shown").to_json())


def _encode_json(value: Any) -> bytes:
    """Return UTF-8 JSON; lone surrogates are escaped."""
    document = escape_json(json.dumps(value, ensure_ascii=False, allow_nan=False))
    return document.encode("utf-8", "backslashreplace")
