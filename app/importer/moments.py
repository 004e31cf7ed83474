"""Identifiers, parents and clips for the rows of a legacy moments file."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from urllib.parse import unquote, urlsplit

from app.importer.legacy_files import to_storable_text
from app.importer.moments_file import LegacyMoment
from app.importer.report import EntryKind, FileReporter
from app.models import Moment
from app.models.rows import CLIP_PADDING_SECONDS

_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,20}")


MomentTimes = tuple[float, float, bool]  # start and end in seconds, and whether it is refined


@dataclass(frozen=True, slots=True)
class IdentifiedMoment:
    """A moment with the identifier it is stored under; `parent` is the index of its parent in the list."""

    moment: LegacyMoment
    identifier: str
    parent: int | None


def merge_duplicate_moments(moments: Sequence[LegacyMoment], reporter: FileReporter) -> list[LegacyMoment]:
    """Return the first of all moments with the same id, parent, times, title and config; report the others."""
    kept: dict[tuple[object, ...], LegacyMoment] = {}
    for moment in moments:
        key = (*_moment_identity_fields(moment), moment.title, moment.config_key, moment.model)
        first = kept.setdefault(key, moment)
        if first is not moment:
            clip_path, clip_url = first.clip_path or moment.clip_path, first.clip_url or moment.clip_url
            kept[key] = replace(first, clip_path=clip_path, clip_url=clip_url)
            reason = f"says the same as row {first.row}"
            reporter.add_entry(EntryKind.MERGED, reason, _moment_as_report_content(moment), moment.row)
    return list(kept.values())


def assign_moment_identifiers(
    moments: Sequence[LegacyMoment],
    video_identifier: str,
    stored: Mapping[str, MomentTimes],
    ids_of_other_videos: Collection[str],
    reporter: FileReporter,
) -> list[IdentifiedMoment]:
    """Return the moments with an identifier and a parent for each, in the order of the file.

    `stored` are the times of the video's moments in the database, by identifier. The same moments get the same
    identifiers however often they are imported, and whatever is appended to them.
    """
    identifiers = _IdentifierAssigner(moments, video_identifier, stored, ids_of_other_videos).assign_identifiers()
    parents = _find_parent_positions(moments, reporter)
    for moment, identifier in zip(moments, identifiers, strict=True):
        if identifier != moment.legacy_id:
            reason = _explain_new_identifier(moment, ids_of_other_videos)
            reporter.add_entry(EntryKind.RENAMED, reason, {"from": moment.legacy_id, "to": identifier}, moment.row)
    return [IdentifiedMoment(*identified) for identified in zip(moments, identifiers, parents, strict=True)]


def choose_original(moments: Sequence[LegacyMoment], positions: Sequence[int]) -> int:
    """Return which of several positions of one id is meant: the first that is not refined, else the first."""
    return min(positions, key=lambda position: (moments[position].is_refined, position))


def group_positions_by_legacy_id(moments: Sequence[LegacyMoment]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = defaultdict(list)
    for position, moment in enumerate(moments):
        if moment.legacy_id is not None:
            positions[moment.legacy_id].append(position)
    return dict(positions)


def moment_times(moment: LegacyMoment | Moment) -> MomentTimes:
    return moment.start_time, moment.end_time, moment.is_refined


class _IdentifierAssigner:
    """Gives one moment of each id that id, and every other an identifier that is a hash of its values."""

    def __init__(
        self,
        moments: Sequence[LegacyMoment],
        video_identifier: str,
        stored: Mapping[str, MomentTimes],
        ids_of_other_videos: Collection[str],
    ) -> None:
        self._moments = moments
        self._stored = stored
        self._ids_of_other_videos = ids_of_other_videos
        self._hash_inputs = _make_identifier_hash_inputs(moments, video_identifier)

    def assign_identifiers(self) -> list[str]:
        identifiers = dict(self._keep_legacy_ids())
        used = set(identifiers.values())
        for position, hash_input in enumerate(self._hash_inputs):
            if position not in identifiers:
                candidates = (_hash_identifier(hash_input, attempt) for attempt in count())
                identifiers[position] = next(each for each in candidates if each not in used)
                used.add(identifiers[position])
        return [identifiers[position] for position in range(len(self._moments))]

    def _keep_legacy_ids(self) -> Iterator[tuple[int, str]]:
        """Yield position and id of the moments that keep the id which they have in the file."""
        for legacy_id, positions in group_positions_by_legacy_id(self._moments).items():
            if _IDENTIFIER.fullmatch(legacy_id) and legacy_id not in self._ids_of_other_videos:
                holder = self._choose_id_holder(legacy_id, positions)
                if not self._was_renamed_before(holder):
                    yield holder, legacy_id

    def _choose_id_holder(self, legacy_id: str, positions: Sequence[int]) -> int:
        """Return which position keeps an id: the moment stored with it, the original, else the first."""
        stored, moments = self._stored.get(legacy_id), self._moments
        return min(positions, key=lambda each: (moment_times(moments[each]) != stored, moments[each].is_refined, each))

    def _was_renamed_before(self, position: int) -> bool:
        moment = self._moments[position]
        holds_it = moment.legacy_id is not None and self._stored.get(moment.legacy_id) == moment_times(moment)
        return not holds_it and _hash_identifier(self._hash_inputs[position], 0) in self._stored


def _make_identifier_hash_inputs(moments: Sequence[LegacyMoment], video_identifier: str) -> list[str]:
    """Return for each moment the text that its identifier is a hash of; equal moments are numbered."""
    seen: Counter[tuple[object, ...]] = Counter()
    hash_inputs = []
    for moment in moments:
        identity = _moment_identity_fields(moment)
        hash_inputs.append("\0".join(map(repr, (video_identifier, *identity, seen[identity]))))
        seen[identity] += 1
    return hash_inputs


def _hash_identifier(hash_input: str, attempt: int) -> str:
    return hashlib.sha256(f"{hash_input}\0{attempt}".encode(errors="surrogatepass")).hexdigest()[:16]


def _moment_identity_fields(moment: LegacyMoment) -> tuple[object, ...]:
    return (moment.legacy_id, moment.legacy_parent, *moment_times(moment))


def _find_parent_positions(moments: Sequence[LegacyMoment], reporter: FileReporter) -> list[int | None]:
    positions = group_positions_by_legacy_id(moments)
    parents: list[int | None] = [None] * len(moments)
    for position, moment in enumerate(moments):
        if moment.legacy_parent is None:
            continue
        candidates = sorted(
            positions.get(moment.legacy_parent, []),
            key=lambda other: (moments[other].is_refined, other > position, other),
        )
        parents[position] = next((other for other in candidates if not _is_descendant(parents, other, position)), None)
        if parents[position] is None:
            reason = "parent_id is its own id, and no other row has it" if candidates else "no row has its parent_id"
            reporter.add_entry(EntryKind.CHANGED, reason, {"parent_id": moment.legacy_parent}, moment.row)
    return parents


def _is_descendant(parents: Sequence[int | None], position: int | None, ancestor: int) -> bool:
    while position is not None:
        if position == ancestor:
            return True
        position = parents[position]
    return False


def _explain_new_identifier(moment: LegacyMoment, ids_of_other_videos: Collection[str]) -> str:
    if moment.legacy_id is None:
        return "has no id"
    if _IDENTIFIER.fullmatch(moment.legacy_id) is None:
        return "its id does not fit the column"
    if moment.legacy_id in ids_of_other_videos:
        return "a moment of another video has its id"
    return "another row of the file has its id"


def _moment_as_report_content(moment: LegacyMoment) -> dict[str, object]:
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
    """The part of a video that a clip shows, in seconds: recorded by a refinement, or else computed."""

    start: float
    end: float
    is_recorded: bool = False


def legacy_clip_name(video_identifier: str, legacy_id: str) -> str:
    return f"{video_identifier}_{legacy_id}_clip.mp4"


def find_remote_clip_url(moment: LegacyMoment, bucket: str | None) -> str | None:
    """Return the URL of a moment's clip in a bucket or on another host; None without a clip or a known bucket."""
    named_bucket, path = _split_cloud_storage_url(moment.clip_url) if moment.clip_url else (None, None)
    path, bucket = moment.clip_path or path, bucket or named_bucket
    if path and bucket:
        return to_storable_text(f"gs://{bucket}/{path}")
    return moment.clip_url.partition("?")[0] if moment.clip_url else None


def choose_clip_window(
    moment: LegacyMoment,
    recorded_windows: Sequence[tuple[float, float]],
    word_times: Sequence[tuple[float, float]],
    video_seconds: float | None,
) -> LegacyClipWindow:
    """Return the first window that a refinement recorded, else the moment padded by 30 s, moved to words."""
    if recorded_windows:
        start, end = recorded_windows[0]
    else:
        padded_start = min(max(0.0, moment.start_time - CLIP_PADDING_SECONDS), moment.start_time)
        padded = padded_start, moment.end_time + CLIP_PADDING_SECONDS
        start, end = _move_to_words(padded, word_times)
        start, end = (start, end) if start < end else padded
    if video_seconds is not None and video_seconds > start:
        end = min(end, video_seconds)
    return LegacyClipWindow(start, end, bool(recorded_windows))


def list_word_times(words: Iterable[Mapping[str, Any]]) -> list[tuple[float, float]]:
    times = [(word.get("start"), word.get("end")) for word in words]
    return [
        (float(start), float(end))
        for start, end in times
        if isinstance(start, int | float) and isinstance(end, int | float)
    ]


def _move_to_words(window: tuple[float, float], word_times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the first start of a word at or after the window's start, and the first end at or after its end."""
    if not word_times:
        return window
    start = next((start for start, _ in word_times if start >= window[0]), word_times[0][0])
    end = next((end for _, end in word_times if end >= window[1]), word_times[-1][1])
    return start, end


def _split_cloud_storage_url(url: str) -> tuple[str | None, str | None]:
    """Return bucket and path of a URL of Google Cloud Storage, in any of its three forms; None for what it lacks."""
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
