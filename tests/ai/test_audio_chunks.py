"""A long audio in pieces, and their transcripts as one."""

import io
import wave
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.audio_chunks import AudioChunk, WavSliceFile, join_chunk_transcripts, plan_audio_chunks
from app.ai.protocols import Segment, Word
from app.ai.transcript_parsing import TimedTranscript


def talk(seconds: float, shift: float = 0.0) -> TimedTranscript:
    """A word each second, of 0.8 seconds, and a segment of every five."""
    words = [Word(f"w{n}", shift + n, shift + n + 0.8) for n in range(int(seconds))]
    groups = [words[n : n + 5] for n in range(0, len(words), 5)]
    segments = [Segment(" ".join(w.word for w in group), group[0].start, group[-1].end) for group in groups]
    return TimedTranscript(words, segments)


def hear(whole: TimedTranscript, piece: AudioChunk) -> TimedTranscript:
    """What a service hears of one piece, in the time of the piece: all that lies in it, and halves at its ends."""

    def clip(start: float, end: float) -> tuple[float, float]:
        return max(start, piece.start) - piece.start, min(end, piece.end) - piece.start

    words = [w for w in whole.words if w.end > piece.start and w.start < piece.end]
    segments = []
    for segment in whole.segments:
        inside = [w for w in words if segment.start <= w.start < segment.end]
        if inside:
            times = clip(inside[0].start, inside[-1].end)
            segments.append(Segment(" ".join(w.word for w in inside), *times))
    return TimedTranscript([Word(w.word, *clip(w.start, w.end)) for w in words], segments)


@given(st.floats(0, 20_000), st.floats(30, 1000), st.floats(0, 29))
def test_chunks_cover_all_overlap_and_are_short_enough(duration: float, longest: float, overlap: float) -> None:
    pieces = plan_audio_chunks(duration, longest, overlap)
    assert pieces[0].start == 0
    assert pieces[-1].end == pytest.approx(duration)
    assert all(piece.end - piece.start <= longest + 1e-6 for piece in pieces)
    assert all(one.end - other.start == pytest.approx(overlap, abs=1e-6) for one, other in pairwise(pieces))


def test_a_chunk_of_a_wav_file_is_a_wav_file(tmp_path: Path) -> None:
    path = tmp_path / "whole.wav"
    with wave.open(str(path), "wb") as whole:
        whole.setparams((1, 2, 16000, 0, "NONE", "not compressed"))
        whole.writeframes(b"".join(bytes([n, 0]) * 16000 for n in range(10)))
    with WavSliceFile(path, AudioChunk(2.0, 5.0)) as piece:
        (tmp_path / "part.wav").write_bytes(piece.read())
    with wave.open(str(tmp_path / "part.wav"), "rb") as part:
        assert (part.getframerate(), part.getnframes()) == (16000, 48000)
        assert part.readframes(48000) == b"".join(bytes([n, 0]) * 16000 for n in (2, 3, 4))


def test_a_chunk_can_be_read_in_small_parts_and_again(tmp_path: Path) -> None:
    path = tmp_path / "whole.wav"
    with wave.open(str(path), "wb") as whole:
        whole.setparams((2, 2, 8000, 0, "NONE", "not compressed"))
        whole.writeframes(bytes(range(250)) * 400)
    with WavSliceFile(path, AudioChunk(1.0, 100.0)) as piece:
        content = piece.read()
        assert piece.seek(0, io.SEEK_END) == len(content) == 44 + 100_000 - 32_000
        piece.seek(0)
        assert b"".join(iter(lambda: piece.read(7), b"")) == content
        piece.seek(46)
        assert piece.read(5) == content[46:51]


def test_joined_transcripts_have_every_word_once() -> None:
    whole, pieces = talk(100), plan_audio_chunks(100, 40, 10)
    joined = join_chunk_transcripts(pieces, [hear(whole, piece) for piece in pieces])
    assert [w.word for w in joined.words] == [w.word for w in whole.words]
    assert " ".join(segment.text for segment in joined.segments) == " ".join(w.word for w in whole.words)


def test_a_word_of_both_chunks_at_slightly_different_times_is_there_once() -> None:
    pieces = [AudioChunk(0, 30), AudioChunk(20, 50)]
    first = TimedTranscript([Word("a", 24.0, 24.9), Word("b", 25.1, 25.9)], [Segment("a b", 24.0, 25.9)])
    second = TimedTranscript([Word("a", 4.3, 4.95), Word("b", 5.2, 5.95)], [Segment("a b", 4.3, 5.95)])
    joined = join_chunk_transcripts(pieces, [first, second])
    assert [w.word for w in joined.words] == ["a", "b"]
    assert [segment.text for segment in joined.segments] == ["a b"]


def test_chunks_without_a_word_join_to_nothing() -> None:
    assert join_chunk_transcripts(plan_audio_chunks(100, 40, 10), [TimedTranscript([], [])] * 3) == TimedTranscript(
        [], []
    )


@given(st.integers(0, 60), st.integers(60, 200), st.integers(25, 60))
def test_speech_that_begins_later_comes_out_as_much_later(shift: int, seconds: int, longest: int) -> None:
    duration = float(seconds + 60)
    pieces = plan_audio_chunks(duration, longest, 10)

    def transcribe(whole: TimedTranscript) -> list[Word]:
        return list(join_chunk_transcripts(pieces, [hear(whole, piece) for piece in pieces]).words)

    later = transcribe(talk(seconds, shift=shift))
    assert [w.word for w in later] == [w.word for w in talk(seconds).words]
    assert [w.start for w in later] == pytest.approx([w.start + shift for w in talk(seconds).words])
    assert all(one.end <= other.start + 1e-6 for one, other in pairwise(later))
