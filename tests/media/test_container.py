"""Which formats, decoders and streams are used, whatever a file says of itself."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from av.video.frame import VideoFrame

from app.core.errors import StageFailed
from app.media import clip, clip_encoding
from app.media.audio import extract_audio
from app.media.clip import cut_clip
from app.media.clip_encoding import find_ffmpeg
from app.media.playable_copy import plan_playable_copy
from app.media.probe import NotMedia, probe_media
from app.media.scene_cuts import find_scene_cuts
from app.media.thumbnail import NoThumbnail, draw_waveform, make_thumbnail
from tests.media.movies import SAMPLE_RATE, make_colour_movie, make_movie, make_movie_with_audio
from tests.media.test_audio import assert_beeps, extract
from tests.media.test_clip import WAYS, loud_from_to, open_video
from tests.media.test_thumbnail import is_coloured, take_thumbnail

RED = (255, 0, 0)


def join(path: Path, parts: Sequence[tuple[Path, str, Disposition | None]], cover: str | None = None) -> Path:
    """Write a file of streams of others, each of a kind and with a disposition, and a cover as its first stream."""
    with av.open(str(path), "w") as target:
        picture: Any = target.add_stream(cover, rate=1) if cover else None
        if picture:
            picture.width, picture.height, picture.pix_fmt = 32, 24, "rgb24" if cover == "png" else "yuvj420p"
        sources = [av.open(str(part)) for part, _, _ in parts]
        packets: list[Any] = []
        for source, (_, kind, disposition) in zip(sources, parts, strict=True):
            stream = getattr(source.streams, kind)[0]
            copy = target.add_stream_from_template(stream)
            if disposition is not None:
                copy.disposition = disposition
            packets += [(packet, copy) for packet in source.demux(stream) if packet.size]
        if picture:
            frame = VideoFrame(32, 24, picture.pix_fmt)
            for packet in picture.encode(frame) + picture.encode(None):
                target.mux(packet)
        for packet, copy in sorted(packets, key=lambda each: each[0].dts * each[0].time_base):
            packet.stream = copy
            target.mux(packet)
        for source in sources:
            source.close()
    return path


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    return make_movie_with_audio(tmp_path / "parts" / "talk.mp4", 4, [(1, 2)])


@pytest.fixture
def other_audio(tmp_path: Path) -> Path:
    return make_movie_with_audio(tmp_path / "parts" / "other.mkv", 4, [(3, 3.5)], "flac", layout="mono")


@pytest.mark.parametrize(("cover", "name"), [("mjpeg", "video.mp4"), ("mjpeg", "video.mkv"), ("png", "video.mov")])
def test_a_cover_that_comes_first_is_not_the_video(tmp_path: Path, talk: Path, cover: str, name: str) -> None:
    red = make_colour_movie(tmp_path / "parts" / "red.mp4", 4, [RED])
    video = join(tmp_path / name, [(red, "video", Disposition(0)), (talk, "audio", None)], cover)
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.name == cover
    info = probe_media(video)
    assert (info.video_codec, info.audio_codec, info.resolution) == ("h264", "aac", "64x48")
    assert info.duration_seconds == pytest.approx(4, abs=0.1)
    assert is_coloured(take_thumbnail(video), RED)


@pytest.mark.parametrize("way", WAYS)
def test_a_clip_of_a_video_whose_cover_comes_first_shows_the_video(tmp_path: Path, talk: Path, way: str) -> None:
    red = make_colour_movie(tmp_path / "parts" / "red.mp4", 4, [RED])
    video = join(tmp_path / "video.mp4", [(red, "video", Disposition(0)), (talk, "audio", None)], "mjpeg")
    with open_video(video, way) as file:
        cut_clip(file, 1, 2, tmp_path / "clip.mp4", threading.Event())
    assert is_coloured(take_thumbnail(tmp_path / "clip.mp4"), RED)


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (Disposition(0), Disposition.default, "flac"),
        (Disposition.default, Disposition(0), "aac"),
        (Disposition.default, Disposition.default, "aac"),
        (Disposition.default | Disposition.visual_impaired, Disposition(0), "flac"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_the_audio_that_is_reported_is_extracted_and_cut(
    tmp_path: Path, talk: Path, other_audio: Path, first: Disposition, second: Disposition, chosen: str, way: str
) -> None:
    parts = [(talk, "video", None), (talk, "audio", first), (other_audio, "audio", second)]
    video = join(tmp_path / "video.mkv", parts)
    beep = {"aac": (1.0, 2.0), "flac": (3.0, 3.5)}[chosen]
    assert probe_media(video).audio_codec == chosen
    assert_beeps(extract(video), beep)
    with open_video(video, way) as file:
        cut_clip(file, 0.5, 4, tmp_path / "clip.mp4", threading.Event())
    assert loud_from_to(tmp_path / "clip.mp4") == pytest.approx([time - 0.5 for time in beep], abs=0.03)


@pytest.mark.parametrize(
    ("first", "second"), [(Disposition(0), Disposition.default), (Disposition.default, Disposition(0))]
)
def test_of_two_videos_the_default_is_taken(tmp_path: Path, first: Disposition, second: Disposition) -> None:
    large = make_movie_with_audio(tmp_path / "parts" / "large.mp4", 2, [(0, 2)])
    small = make_colour_movie(tmp_path / "parts" / "small.mp4", 2, [RED])
    video = join(tmp_path / "video.mkv", [(large, "video", first), (small, "video", second)])
    assert is_coloured(take_thumbnail(video), RED) == (second == Disposition.default)


def change_of_audio(path: Path, first: tuple[int, str], second: tuple[int, str]) -> Path:
    """Write a video whose audio has another sample rate or other channels after three seconds."""
    content = b""
    for number, (rate, layout) in enumerate((first, second)):
        beep, options = (number, number + 0.5), {"output_ts_offset": str(3.2 * number)}
        content += make_movie_with_audio(path, 3, [beep], "mp2", rate, layout, options=options).read_bytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("first", "second"),
    [((SAMPLE_RATE, "stereo"), (44_100, "stereo")), ((SAMPLE_RATE, "mono"), (32_000, "stereo"))],
)
def test_audio_that_changes_inside_a_video_goes_on_in_its_clip(
    tmp_path: Path, first: tuple[int, str], second: tuple[int, str], way: str
) -> None:
    video = change_of_audio(tmp_path / "video.ts", first, second)
    with open_video(video, way) as file:
        cut_clip(file, 1, 6, tmp_path / "clip.mp4", threading.Event())
    assert loud_from_to(tmp_path / "clip.mp4") == pytest.approx((3, 3.5), abs=0.05)


_SCRIPTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\n{url}\n#EXTINF:1,\n{file}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {file}\nfile {url}\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
    "subtitles": "[Script Info]\nScriptType: v4.00+\n[Events]\nDialogue: 0,0:00:00.00,0:00:05.00,,,0,0,0,,{url}\n",
    "smil": '<smil><body><video src="{url}"/></body></smil>',
    "filters": "movie=filename={file}",
}
_USES: dict[str, Callable[[Path], object]] = {
    "probe_media": probe_media,
    "thumbnail": lambda path: make_thumbnail(path.open("rb")),
    "waveform": lambda path: draw_waveform(path.open("rb")),
    "copy": lambda path: plan_playable_copy(path.open("rb"), threading.Event()),
    "audio": lambda path: extract_audio(
        path.open("rb"), path.with_name("a.wav"), threading.Event(), lambda share: None
    ),
    "clip": lambda path: cut_clip(path.open("rb"), 0, 1, path.with_name("clip.mp4"), threading.Event()),
}


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("script", _SCRIPTS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_file_that_names_others_leads_to_none_of_them(tmp_path: Path, listener: socket.socket, script: str) -> None:
    other = make_movie(tmp_path / "other.ts", container_format="mpegts")
    host, port = listener.getsockname()
    text = _SCRIPTS[script].format(url=f"http://{host}:{port}/a.ts", file=other.name, host=host, port=port)
    for name in ("talk.mp4", "talk.m3u8"):
        for use in _USES.values():
            (tmp_path / name).write_text(text)
            with pytest.raises((NotMedia, NoThumbnail, StageFailed)):
                use(tmp_path / name)
        assert find_scene_cuts((tmp_path / name).open("rb"), threading.Event()) == []
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.skipif(find_ffmpeg() is None, reason="there is no ffmpeg here")
def test_ffmpeg_follows_no_playlist_that_takes_the_place_of_a_video(tmp_path: Path) -> None:
    """The program opens the file a second time, and its content may have changed."""
    video = make_movie_with_audio(tmp_path / "film.mp4", 4, [(0, 4)])
    other = shutil.copy(video, tmp_path / "other.mp4")

    def cut_changed(program: str, file: object, *rest: object) -> bool:
        video.write_text(f"ffconcat version 1.0\nfile {other}\n")
        return bool(original(program, file, *rest))  # type: ignore[arg-type]

    original = clip_encoding.encode_clip_with_ffmpeg
    with pytest.MonkeyPatch.context() as patch, video.open("rb") as file:
        patch.setattr(clip, "encode_clip_with_ffmpeg", cut_changed)
        with pytest.raises(StageFailed):
            cut_clip(file, 1, 3, tmp_path / "clip.mp4", threading.Event())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "other.mp4"]


def test_a_codec_that_recordings_do_not_have_is_not_decoded(tmp_path: Path) -> None:
    video = make_movie(tmp_path / "film.mkv", video_codec="snow")
    with pytest.raises(NotMedia, match="its video codec is unknown"):
        probe_media(video)
    with video.open("rb") as file, pytest.raises(NoThumbnail, match="its video codec is unknown"):
        make_thumbnail(file)
