"""What a video's transaction is about and what it did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.database import Connection
from app.importer.configs import UsedConfigs
from app.importer.places import Places
from app.importer.preparing import PreparedVideo
from app.importer.report import Entry, Notes, TableCount, count_tables
from app.models import Video


@dataclass(slots=True)
class Written:
    """What a video's transaction did; it counts only once that is committed.

    `in_place` counts the files that are served from the library, `elsewhere` the rows whose files are in a bucket or
    on another host.
    """

    tables: dict[str, TableCount] = field(default_factory=count_tables)
    configs: UsedConfigs = field(default_factory=UsedConfigs)
    entries: list[Entry] = field(default_factory=list)
    in_place: int = 0
    elsewhere: int = 0

    def count(self, table: str, stored: object, changes: Mapping[str, Any] | None = None) -> None:
        """Count a row: new where nothing is stored, changed, or as it was."""
        count = self.tables[table]
        if stored is None:
            count.new += 1
        elif changes:
            count.changed += 1
        else:
            count.unchanged += 1


@dataclass(frozen=True, slots=True)
class Target:
    """A video that is being written: what the files say, and its row."""

    conn: Connection
    prepared: PreparedVideo
    places: Places
    video: Video
    is_new: bool
    written: Written

    def notes(self, file: str | None) -> Notes:
        """Return notes about a file of the video that count only with the transaction."""
        return Notes(file, self.prepared.identifier, self.written.entries)


def find_changes(stored: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `values` that the stored row does not have."""
    return {name: value for name, value in values.items() if getattr(stored, name) != value}
