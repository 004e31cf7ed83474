"""The legacy registry of URLs: where each video was downloaded from."""

from dataclasses import dataclass
from typing import Any

from app.core.text import to_nfc
from app.importer.layout import identifier_problem
from app.importer.reading import Document, Unreadable, read_text
from app.importer.report import Kind, Notes

_COLUMNS = frozenset({"url", "video_id"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a video came from, and the size of what was downloaded, in bytes."""

    url: str
    file_size: int | None


def parse_registry(document: Document, notes: Notes) -> dict[str, Source]:
    """Return each video's newest source; everything else goes into `notes`. Raises `Unreadable`."""
    if not isinstance(document.value, dict) or not isinstance(document.value.get("entries"), list):
        raise Unreadable("it holds no object with a list of entries")
    sources: dict[str, tuple[str, Source]] = {}
    for number, entry in enumerate(document.value["entries"], start=1):
        if problem := _entry_problem(entry):
            notes.add(Kind.REFUSED, problem, entry, row=number)
            continue
        _keep_newest(sources, entry, number, notes)
    _note_the_rest(document.value, notes)
    return {identifier: source for identifier, (_, source) in sources.items()}


def _entry_problem(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return "no object"
    if not isinstance(entry.get("video_id"), str):
        return "no video_id"
    if problem := identifier_problem(entry["video_id"]):
        return f"video_id cannot be a video's id: {problem}"
    return None if read_text(entry.get("url")) else "url is no text that can be stored"


def _keep_newest(sources: dict[str, tuple[str, Source]], entry: dict[str, Any], number: int, notes: Notes) -> None:
    identifier, downloaded_at = to_nfc(entry["video_id"]), str(entry.get("downloaded_at") or "")
    known = sources.get(identifier)
    source = Source(entry["url"], _file_size(entry))
    if known is None or downloaded_at >= known[0]:
        sources[identifier] = (downloaded_at, source)
    if known is not None:
        older = known[1] if sources[identifier][1] is source else source
        if older.url != sources[identifier][1].url:
            reason = f"{identifier} was downloaded from here before {sources[identifier][1].url}"
            notes.add(Kind.DROPPED, reason, older.url, row=number)
    if dropped := {name: value for name, value in entry.items() if name not in _COLUMNS}:
        notes.add(Kind.DROPPED, "the table has no column for this", {"video_id": identifier, **dropped}, row=number)


def _file_size(entry: dict[str, Any]) -> int | None:
    size = entry.get("file_size")
    return size if isinstance(size, int) and 0 <= size < 2**62 else None


def _note_the_rest(value: dict[str, Any], notes: Notes) -> None:
    """The map repeats the entries; what it says beyond them, and what else the file holds, is noted."""
    dropped = {name: item for name, item in value.items() if name not in ("entries", "url_to_latest_video_id")}
    latest = value.get("url_to_latest_video_id")
    known = {(entry.get("url_hash"), entry.get("video_id")) for entry in value["entries"] if isinstance(entry, dict)}
    if not isinstance(latest, dict):
        dropped |= {"url_to_latest_video_id": latest} if latest is not None else {}
    elif others := {name: video for name, video in latest.items() if (name, video) not in known}:
        dropped["url_to_latest_video_id"] = others
    if dropped:
        notes.add(Kind.DROPPED, "the entries say nothing of this", dropped)
