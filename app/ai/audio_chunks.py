"""Audio chunks: a long WAV file split for services that take short ones, and their transcripts joined."""

import io
import struct
import wave
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from app.ai.protocols import Segment, Word
from app.ai.transcript_parsing import TimedTranscript, sort_words

# OpenAI's limit, which compatible services share.
MAX_UPLOAD_BYTES = 25 * 1024**2
_READ_BYTES = 64 * 1024
CHUNK_SECONDS = 600.0
OVERLAP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """A part of an audio file; times are seconds of the whole file."""

    start: float
    end: float


def plan_audio_chunks(
    duration_seconds: float, chunk_seconds: float = CHUNK_SECONDS, overlap_seconds: float = OVERLAP_SECONDS
) -> Sequence[AudioChunk]:
    """Split a duration into equal chunks of at most `chunk_seconds`, which overlap their neighbours."""
    step = chunk_seconds - overlap_seconds
    count = max(1, -(-(duration_seconds - overlap_seconds) // step))
    step = (duration_seconds - overlap_seconds) / count
    starts = [number * step for number in range(int(count))]
    return [AudioChunk(start, min(start + step + overlap_seconds, duration_seconds)) for start in starts]


class WavSliceFile(io.RawIOBase):
    """A chunk of a WAV file as a WAV file of its own, read from disk on demand."""

    def __init__(self, path: Path, chunk: AudioChunk) -> None:
        self._source = wave.open(str(path), "rb")  # noqa: SIM115  it is closed with this file
        rate, frames = self._source.getframerate(), self._source.getnframes()
        self._first = min(round(chunk.start * rate), frames)
        self._width = self._source.getnchannels() * self._source.getsampwidth()
        count = min(round((chunk.end - chunk.start) * rate), frames - self._first)
        self._header = _build_wav_header_bytes(self._source, count)
        self._size = len(self._header) + count * self._width
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, fewer at the end of the header; the rest if `size` is negative."""
        if size < 0:
            return b"".join(iter(lambda: self.read(_READ_BYTES), b""))
        data = self._read_bytes(min(size, self._size - self._position))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = min(max(start + offset, 0), self._size)
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._source.close()
        super().close()

    def _read_bytes(self, size: int) -> bytes:
        if size <= 0:
            return b""
        if self._position < len(self._header):
            return self._header[self._position : self._position + size]
        frame, skipped = divmod(self._position - len(self._header), self._width)
        self._source.setpos(self._first + frame)
        return self._source.readframes(-(-(skipped + size) // self._width))[skipped : skipped + size]


def _build_wav_header_bytes(source: wave.Wave_read, frames: int) -> bytes:
    channels, width, rate = source.getnchannels(), source.getsampwidth(), source.getframerate()
    size = frames * channels * width
    form = (16, 1, channels, rate, rate * channels * width, channels * width, 8 * width)
    return struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", *form, b"data", size)


def join_chunk_transcripts(chunks: Sequence[AudioChunk], timelines: Sequence[TimedTranscript]) -> TimedTranscript:
    """Join the transcripts of overlapping chunks, each timed from its chunk's start, into one.

    Inside an overlap, words come from the first chunk up to the longest pause, and from the second one after it.
    """
    moved = [_shift_transcript_times(timeline, chunk.start) for chunk, timeline in zip(chunks, timelines, strict=True)]
    boundaries = [
        _find_chunk_boundary(earlier, later, following.start, chunk.end)
        for (earlier, later), (chunk, following) in zip(pairwise(moved), pairwise(chunks), strict=True)
    ]
    limits = [float("-inf"), *boundaries, float("inf")]
    kept = [_cut_transcript_to_times(timeline, *limit) for timeline, limit in zip(moved, pairwise(limits), strict=True)]
    words = sort_words(word for timeline in kept for word in timeline.words)
    return TimedTranscript(words, [segment for timeline in kept for segment in timeline.segments])


def _shift_transcript_times(timeline: TimedTranscript, offset: float) -> TimedTranscript:
    return TimedTranscript(
        [Word(word.word, word.start + offset, word.end + offset) for word in timeline.words],
        [Segment(each.text, each.start + offset, each.end + offset) for each in timeline.segments],
    )


def _find_chunk_boundary(earlier: TimedTranscript, later: TimedTranscript, start: float, end: float) -> float:
    """Return the middle of the longest pause in the overlap from `start` to `end`, as both chunks have it."""
    spoken = sorted(
        (max(word.start, start), min(word.end, end))
        for word in (*earlier.words, *later.words)
        if word.end > start and word.start < end
    )
    boundary, longest, silent_since = (start + end) / 2, 0.0, start
    for begins, ends in [*spoken, (end, end)]:
        if begins - silent_since > longest:
            boundary, longest = (silent_since + begins) / 2, begins - silent_since
        silent_since = max(silent_since, ends)
    return boundary


def _cut_transcript_to_times(timeline: TimedTranscript, start: float, end: float) -> TimedTranscript:
    """Return the words between two times; a segment across one of them keeps its words on this side."""
    words = [word for word in timeline.words if start <= _middle_time_of_word(word) < end]
    segments = [
        segment
        for each in timeline.segments
        if (segment := each if start <= each.start and each.end <= end else _keep_words_in_segment(each, words))
        is not None
    ]
    return TimedTranscript(words, segments)


def _keep_words_in_segment(segment: Segment, words: Sequence[Word]) -> Segment | None:
    inside = [word for word in words if segment.start <= _middle_time_of_word(word) <= segment.end]
    if not inside:
        return None
    return replace(segment, text=" ".join(w.word for w in inside), start=inside[0].start, end=inside[-1].end)


def _middle_time_of_word(word: Word) -> float:
    return (word.start + word.end) / 2
