"""What is drawn of audio that has no picture."""

import io
from pathlib import Path

import pytest

from app.media import waveform
from app.media.still import NoPicture
from app.media.waveform import draw_waveform
from tests.media.movies import make_audio
from tests.media.test_still import open_picture, size

_WIDTH, _HEIGHT = 640, 360


def drawn_height(jpeg: bytes, share: float) -> int:
    """Return how many pixels of the brightest of the columns around a share of the width are not background."""
    pixels = open_picture(jpeg).to_ndarray()
    middle = round(share * _WIDTH)
    return int((pixels[:, middle - 8 : middle + 8, 1] > 100).sum(axis=0).max())


@pytest.mark.parametrize("whole_seconds", [600.0, 1.0])
@pytest.mark.parametrize(
    ("name", "codec"), [("talk.m4a", "aac"), ("talk.mp3", "libmp3lame"), ("talk.wav", "pcm_s16le")]
)
def test_bars_are_tall_where_it_is_loud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, whole_seconds: float
) -> None:
    monkeypatch.setattr(waveform, "_DECODED_WHOLE_SECONDS", whole_seconds)
    path = make_audio(tmp_path / name, 8, [(0, 4)], codec)
    with path.open("rb") as file:
        jpeg = draw_waveform(file)
    assert size(open_picture(jpeg)) == (_WIDTH, _HEIGHT)
    assert (drawn_height(jpeg, 0.3) > 200, drawn_height(jpeg, 0.7) < 20) == (True, True)


def test_silence_is_a_line(tmp_path: Path) -> None:
    path = make_audio(tmp_path / "talk.flac", 0.01, [(5, 6)], "flac")
    with path.open("rb") as file:
        assert drawn_height(draw_waveform(file), 0.5) < 20


@pytest.mark.parametrize("whole_seconds", [600.0, 1.0])
def test_channels_do_not_cancel_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_seconds: float
) -> None:
    monkeypatch.setattr(waveform, "_DECODED_WHOLE_SECONDS", whole_seconds)
    path = make_audio(tmp_path / "talk.flac", 8, [(0, 4)], "flac", gains=(1.0, -1.0))
    with path.open("rb") as file:
        jpeg = draw_waveform(file)
    assert (drawn_height(jpeg, 0.3) > 200, drawn_height(jpeg, 0.7) < 20) == (True, True)


@pytest.mark.parametrize("whole_seconds", [600.0, 1.0])
def test_audio_whose_channels_and_rate_change_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_seconds: float
) -> None:
    monkeypatch.setattr(waveform, "_DECODED_WHOLE_SECONDS", whole_seconds)
    mono = make_audio(tmp_path / "mono.mp3", 4, [(0, 4)], "libmp3lame")
    stereo = make_audio(tmp_path / "stereo.mp3", 4, [(3.9, 4)], "libmp3lame", gains=(1.0, 1.0), rate=32_000)
    jpeg = draw_waveform(io.BytesIO(mono.read_bytes() + stereo.read_bytes()))
    assert (drawn_height(jpeg, 0.2) > 200, drawn_height(jpeg, 0.8) < 20) == (True, True)


def test_what_has_no_audio_is_not_drawn() -> None:
    with pytest.raises(NoPicture):
        draw_waveform(io.BytesIO(b"no audio at all"))
