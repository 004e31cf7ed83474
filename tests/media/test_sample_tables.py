"""Indexes of MP4 and QuickTime files that unpack to far more than the file."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import av
import pytest

from app.media.probe import NotMedia, probe_media
from app.media.sample_tables import has_oversized_index
from tests.media.movies import make_audio, make_movie, peak_megabytes

_MANY = 200_000_000
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def _full(kind: bytes, *numbers: int, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(f">{len(numbers) + 1}I", flags, *numbers))


def _track(
    samples: int,
    handler: bytes = b"vide",
    duration: int = 1,
    edits: int = 1,
    per_chunk: int | None = None,
    chunks: int = 1,
) -> bytes:
    codec = b"avc1" if handler == b"vide" else b"sowt"
    frame = struct.pack(">6xH16xHHIIIH32xHh", 1, 64, 48, 0x480000, 0x480000, 0, 1, 24, -1)
    audio = struct.pack(">6xH8xHHHHI", 1, 1, 16, 0, 0, 8000 << 16)
    entry = _box(codec, frame if handler == b"vide" else audio)
    table = _box(
        b"stbl",
        _box(b"stsd", struct.pack(">II", 0, 1), entry),
        _full(b"stts", 1, samples, duration),
        _full(b"stsc", 1, 1, per_chunk or samples, 1),
        _full(b"stsz", 2, samples),
        _full(b"stco", chunks, *([40] * chunks)),
    )
    head = _box(b"tkhd", struct.pack(">6I16x", 7, 0, 0, 1, 0, 1000), _MATRIX, struct.pack(">II", 64 << 16, 48 << 16))
    media = _box(b"mdhd", struct.pack(">5I4x", 0, 0, 0, 1000, samples)), _box(b"hdlr", bytes(8), handler, bytes(14))
    list_of_edits = _full(b"elst", edits, *([samples, 0, 0x10000] * edits))
    return _box(b"trak", head, _box(b"edts", list_of_edits), _box(b"mdia", *media, _box(b"minf", table)))


def _movie(*tracks: bytes, compressed: bool = False, name: bytes = b"moov") -> bytes:
    head = _box(b"mvhd", struct.pack(">5IIH10x", 0, 0, 0, 1000, 1000, 0x10000, 0x100), _MATRIX, bytes(28))
    header = _box(name, head, *tracks)
    if compressed:
        packed = _box(b"cmvd", struct.pack(">I", len(header)), zlib.compress(header))
        header = _box(b"moov", _box(b"cmov", _box(b"dcom", b"zlib"), packed))
    return _box(b"ftyp", b"isom", bytes(4)) + _box(b"mdat", bytes(2000)) + header


def _fragment(samples: int, flags: int = 0, sizes: int = 0) -> bytes:
    run = _full(b"trun", samples, *([1] * sizes), flags=flags)
    return _box(b"moof", _box(b"traf", _full(b"tfhd", 1, flags=0x20000), run, run))


def _hide(header: bytes, *containers: bytes) -> bytes:
    """Put the tables of a track where FFmpeg takes them from, too."""
    for each in containers:
        header = header.replace(b"stbl", each)
    return header


@pytest.mark.parametrize(
    "content",
    [
        _movie(_track(_MANY)),
        _movie(_track(_MANY), compressed=True),
        _movie(_hide(_track(_MANY), b"wave")),
        _movie(_hide(_track(_MANY), b"odd!")),
        _movie(*[_track(1_000_000)] * 5),
        _movie(_track(300_000, edits=200)),
        _movie(_track(_MANY, handler=b"soun", duration=2)),
        _movie(_track(_MANY, handler=b"soun", per_chunk=_MANY, chunks=50)),
        _movie(_track(100)) + _fragment(_MANY),
        _movie(_track(100)) + _fragment(1_500_000) * 2,
        _movie(_track(100)) + _fragment(_MANY, flags=0x200, sizes=10),
        _box(b"free", bytes(4), _movie(_track(_MANY))[2028:]),
    ],
    ids=[
        "samples",
        "compressed",
        "hidden",
        "unknown",
        "tracks",
        "edits",
        "audio",
        "chunks",
        "run",
        "runs",
        "sizes",
        "free",
    ],
)
def test_an_index_of_far_more_than_the_file_is_found(content: bytes) -> None:
    assert has_oversized_index(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    "content",
    [
        _movie(_track(100), _track(50_000_000, handler=b"soun", per_chunk=4000, chunks=100)),
        _movie(_track(100), compressed=True) + _fragment(50) + _fragment(1000, flags=0x200, sizes=1000),
        _movie(_track(1_000_000)),
        _box(b"\x1a\x45\xdf\xa3", bytes(100)),
        b"\0\0\0\1moov",
        b"",
    ],
)
def test_an_index_that_may_be_one_is_left_to_ffmpeg(content: bytes) -> None:
    assert not has_oversized_index(io.BytesIO(content), len(content))


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("are_in_one", [True, False])
def test_compressed_headers_have_one_budget_for_the_whole_file(are_in_one: bool, is_whole: bool) -> None:
    packed = zlib.compress(_box(b"free", bytes(30 * 1024**2)))
    packed = packed if is_whole else packed[:-8] + b"\xff" * 8  # found out at the end
    bombs = [_box(b"cmvd", bytes(4), packed) for _ in range(3)]
    headers = [bombs] if are_in_one else [[bomb] for bomb in bombs]
    content = b"".join(_box(b"moov", _box(b"cmov", *each)) for each in headers)
    assert has_oversized_index(io.BytesIO(content), len(content))


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_videos_are_not_refused(tmp_path: Path, options: dict[str, str]) -> None:
    _remux(make_movie(tmp_path / "film.mp4", 3), tmp_path / "other.mp4", options)
    assert probe_media(tmp_path / "other.mp4").duration_seconds == pytest.approx(3, abs=0.3)


def test_uncompressed_audio_is_not_refused(tmp_path: Path) -> None:
    assert (
        probe_media(make_audio(tmp_path / "talk.mov", 100, [(0, 1)], "pcm_s16le", rate=48_000)).duration_seconds == 100
    )


def test_an_index_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    video.write_bytes(_movie(_track(50_000_000)))
    with pytest.raises(NotMedia, match="its index lists more than the file can hold"):
        probe_media(video)
    code = "from pathlib import Path; from app.media.probe import probe_media; probe_media(Path(path))"
    assert peak_megabytes(code, video) < 300


def _remux(source: Path, target: Path, options: dict[str, str]) -> None:
    with av.open(str(source)) as video, av.open(str(target), "w", options=options) as copy:
        streams: Sequence[av.stream.Stream] = [*video.streams.video, *video.streams.audio]
        copies = {stream.index: copy.add_stream_from_template(stream) for stream in streams}
        for packet in video.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                copy.mux(packet)
