"""Identifiers, parents and clips for the rows of a legacy moments file."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from app.importer.legacy_files import read_text
from app.importer.moments_file import LegacyMoment
from app.importer.report import EntryKind, ReportNotes
from app.models.rows import CLIP_PADDING_SECONDS

_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,20}")


@dataclass(frozen=True, slots=True)
class IdentifiedMoment:
    """A row under the identifier it is stored with. `parent` is the index of its parent in the list."""

    moment: LegacyMoment
    identifier: str
    parent: int | None


@dataclass(frozen=True, slots=True)
class StoredTimes:
    """What is stored under an identifier of the same video."""

    start_time: float
    end_time: float
    is_refined: bool


def merge_duplicates(moments: Sequence[LegacyMoment], notes: ReportNotes) -> list[LegacyMoment]:
    """Return the rows without duplicates: same id, parent, times, title and config. The first one stays."""
    kept: dict[tuple[object, ...], LegacyMoment] = {}
    for moment in moments:
        key = (*_moment_identity(moment), moment.title, moment.config_key, moment.model)
        first = kept.setdefault(key, moment)
        if first is not moment:
            clip_path, clip_url = first.clip_path or moment.clip_path, first.clip_url or moment.clip_url
            kept[key] = replace(first, clip_path=clip_path, clip_url=clip_url)
            notes.add(EntryKind.MERGED, f"says the same as row {first.row}", _moment_content(moment), row=moment.row)
    return list(kept.values())


def assign_moment_identifiers(
    moments: Sequence[LegacyMoment],
    video: str,
    stored: Mapping[str, StoredTimes],
    taken: Collection[str],
    notes: ReportNotes,
) -> list[IdentifiedMoment]:
    """Return the rows with the identifier and the parent of each, in the order of the file.

    `stored` is what the video has already, `taken` the identifiers that belong to other videos. The same rows get the
    same identifiers however often, and whatever is appended to them.
    """
    identifiers = _IdentifierAssigner(moments, video, stored, taken).assign_all()
    parents = _find_parents(moments, notes)
    for moment, identifier in zip(moments, identifiers, strict=True):
        if identifier != moment.legacy_id:
            notes.add(
                EntryKind.RENAMED, _why_renamed(moment, taken), {"from": moment.legacy_id, "to": identifier}, moment.row
            )
    return [IdentifiedMoment(*identified) for identified in zip(moments, identifiers, parents, strict=True)]


def prefer_original(moments: Sequence[LegacyMoment], positions: Sequence[int]) -> int:
    """Return which of several rows with one id is meant: the original, else the earliest."""
    return min(positions, key=lambda position: (moments[position].is_refined, position))


def positions_by_legacy_id(moments: Sequence[LegacyMoment]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = defaultdict(list)
    for position, moment in enumerate(moments):
        if moment.legacy_id is not None:
            positions[moment.legacy_id].append(position)
    return dict(positions)


class _IdentifierAssigner:
    """Gives each row its identifier: the legacy id to one row that has it, and one made from the row to the others."""

    def __init__(
        self,
        moments: Sequence[LegacyMoment],
        video: str,
        stored: Mapping[str, StoredTimes],
        taken: Collection[str],
    ) -> None:
        self._moments = moments
        self._stored = stored
        self._taken = taken
        self._made = _make_identifiers(moments, video)

    def assign_all(self) -> list[str]:
        names = dict(self._keep_legacy_ids())
        used = set(names.values())
        for position, make in enumerate(self._made):
            if position not in names:
                names[position] = _first_free_identifier(make, used)
                used.add(names[position])
        return [names[position] for position in range(len(self._moments))]

    def _keep_legacy_ids(self) -> list[tuple[int, str]]:
        return [
            (holder, legacy_id)
            for legacy_id, positions in positions_by_legacy_id(self._moments).items()
            if self._is_usable(legacy_id) and not self._was_renamed(holder := self._holder(legacy_id, positions))
        ]

    def _is_usable(self, legacy_id: str) -> bool:
        return _IDENTIFIER.fullmatch(legacy_id) is not None and legacy_id not in self._taken

    def _holder(self, legacy_id: str, positions: Sequence[int]) -> int:
        """Return the row that keeps the id: the one stored with it, the original, else the first."""
        stored = self._stored.get(legacy_id)
        return min(
            positions,
            key=lambda position: (
                _moment_times(self._moments[position]) != stored,
                self._moments[position].is_refined,
                position,
            ),
        )

    def _was_renamed(self, position: int) -> bool:
        """Return whether an earlier import renamed the row, though its id may be free by now."""
        moment = self._moments[position]
        holds_it = moment.legacy_id is not None and self._stored.get(moment.legacy_id) == _moment_times(moment)
        return not holds_it and self._made[position](0) in self._stored


def _make_identifiers(moments: Sequence[LegacyMoment], video: str) -> list[Callable[[int], str]]:
    """Return for each row a function that yields its first, second, … candidate identifier."""
    seen: Counter[tuple[object, ...]] = Counter()
    makers = []
    for moment in moments:
        identity = _moment_identity(moment)
        makers.append(_generation_of((video, *identity, seen[identity])))
        seen[identity] += 1
    return makers


def _generation_of(parts: tuple[object, ...]) -> Callable[[int], str]:
    text = "\0".join(map(repr, parts))
    return lambda choice: hashlib.sha256(f"{text}\0{choice}".encode(errors="surrogatepass")).hexdigest()[:16]


def _first_free_identifier(make: Callable[[int], str], used: Collection[str]) -> str:
    choice = 0
    while (identifier := make(choice)) in used:
        choice += 1
    return identifier


def _moment_identity(moment: LegacyMoment) -> tuple[object, ...]:
    """Return what identifies a row when its title or its config changes."""
    return (moment.legacy_id, moment.legacy_parent, moment.start_time, moment.end_time, moment.is_refined)


def _moment_times(moment: LegacyMoment) -> StoredTimes:
    return StoredTimes(moment.start_time, moment.end_time, moment.is_refined)


def _find_parents(moments: Sequence[LegacyMoment], notes: ReportNotes) -> list[int | None]:
    """Return each row's parent, never the row itself or a descendant."""
    positions = positions_by_legacy_id(moments)
    parents: list[int | None] = [None] * len(moments)
    for position, moment in enumerate(moments):
        if moment.legacy_parent is None:
            continue
        candidates = sorted(
            positions.get(moment.legacy_parent, []), key=lambda other: _parent_rank(moments, position, other)
        )
        parents[position] = next((other for other in candidates if not _is_descendant(parents, other, position)), None)
        if parents[position] is None:
            reason = "parent_id is its own id, and no other row has it" if candidates else "no row has its parent_id"
            notes.add(EntryKind.CHANGED, reason, {"parent_id": moment.legacy_parent}, row=moment.row)
    return parents


def _parent_rank(moments: Sequence[LegacyMoment], position: int, other: int) -> tuple[bool, bool, int]:
    return (moments[other].is_refined, other > position, other)


def _is_descendant(parents: Sequence[int | None], position: int | None, ancestor: int) -> bool:
    while position is not None:
        if position == ancestor:
            return True
        position = parents[position]
    return False


def _why_renamed(moment: LegacyMoment, taken: Collection[str]) -> str:
    if moment.legacy_id is None:
        return "has no id"
    if _IDENTIFIER.fullmatch(moment.legacy_id) is None:
        return "its id does not fit the column"
    if moment.legacy_id in taken:
        return "a moment of another video has its id"
    return "another row of the file has its id"


def _moment_content(moment: LegacyMoment) -> dict[str, object]:
    content: dict[str, object] = {
        "id": moment.legacy_id,
        "parent_id": moment.legacy_parent,
        "start_time": moment.start_time,
        "end_time": moment.end_time,
        "title": moment.title,
    }
    return content | ({"gcs_clip_path": moment.clip_path} if moment.clip_path else {})


_STORAGE_HOSTS = ("storage.googleapis.com", "storage.cloud.google.com")


@dataclass(frozen=True, slots=True)
class LegacyClipWindow:
    """A part of a video in seconds. One that a refinement recorded is a fact, the others are worked out."""

    start: float
    end: float
    is_recorded: bool = False


def clip_name(video: str, legacy_id: str) -> str:
    return f"{video}_{legacy_id}_clip.mp4"


def remote_clip_url(moment: LegacyMoment, bucket: str | None) -> str | None:
    """Return the URL of a row's clip, or None where it has none or the bucket is unknown."""
    named_bucket, path = _split_storage_url(moment.clip_url) if moment.clip_url else (None, None)
    path, bucket = moment.clip_path or path, bucket or named_bucket
    if path and bucket:
        return read_text(f"gs://{bucket}/{path}")
    return moment.clip_url.partition("?")[0] if moment.clip_url else None


def clip_window(
    moment: LegacyMoment,
    recorded: Sequence[tuple[float, float]],
    word_times: Sequence[tuple[float, float]],
    duration: float | None,
) -> LegacyClipWindow:
    """Return the part of the video that a clip shows: 30 s of padding on both sides, shortened to words.

    What a refinement of the moment recorded comes first.
    """
    if recorded:
        start, end = recorded[0]
        return LegacyClipWindow(start, min(end, duration) if duration is not None and duration > start else end, True)
    plain = (
        min(max(0.0, moment.start_time - CLIP_PADDING_SECONDS), moment.start_time),
        moment.end_time + CLIP_PADDING_SECONDS,
    )
    start, end = _shorten_to_words(plain, word_times)
    start, end = (start, end) if start < end else plain
    if duration is not None and duration > start:
        end = min(end, duration)
    return LegacyClipWindow(start, end)


def read_word_times(words: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
    times = [(word.get("start"), word.get("end")) for word in words]
    return [
        (float(start), float(end))
        for start, end in times
        if isinstance(start, int | float) and isinstance(end, int | float)
    ]


def _shorten_to_words(plain: tuple[float, float], word_times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the start of the first word in the window and the end of the first word that ends after it."""
    if not word_times:
        return plain
    start = next((start for start, _ in word_times if start >= plain[0]), word_times[0][0])
    end = next((end for _, end in word_times if end >= plain[1]), word_times[-1][1])
    return start, end


def _split_storage_url(url: str) -> tuple[str | None, str | None]:
    """Return bucket and path of a URL of Google Cloud Storage, in any of its three forms."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None, None
    host, path = parts.hostname or "", unquote(parts.path.removeprefix("/"))
    if parts.scheme == "gs":
        return host or None, path or None
    if host in _STORAGE_HOSTS:
        bucket, _, path = path.partition("/")
        return bucket or None, path or None
    for storage in _STORAGE_HOSTS:
        if host.endswith(f".{storage}"):
            return host.removesuffix(f".{storage}"), path or None
    return None, None
