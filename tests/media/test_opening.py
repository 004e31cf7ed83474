"""Only files that hold a video or audio themselves are opened, and only decoders of recordings decode them."""

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.errors import StageFailed
from app.media import clip, cutting_with_ffmpeg
from app.media.audio import extract_audio
from app.media.clip import cut_clip
from app.media.cutting_with_ffmpeg import find_ffmpeg
from app.media.playable import plan_playable
from app.media.probe import NotAVideo, probe
from app.media.scenes import find_scene_cuts
from app.media.still import NoPicture, make_still
from app.media.waveform import draw_waveform
from tests.media.movies import make_movie, make_sounding_movie

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
    "probe": probe,
    "still": lambda path: make_still(path.open("rb")),
    "waveform": lambda path: draw_waveform(path.open("rb")),
    "copy": lambda path: plan_playable(path.open("rb"), threading.Event()),
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
            with pytest.raises((NotAVideo, NoPicture, StageFailed)):
                use(tmp_path / name)
        assert find_scene_cuts((tmp_path / name).open("rb"), threading.Event()) == []
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.skipif(find_ffmpeg() is None, reason="there is no ffmpeg here")
def test_ffmpeg_follows_no_playlist_that_takes_the_place_of_a_video(tmp_path: Path) -> None:
    """The program opens the file a second time, and its content may have changed."""
    film = make_sounding_movie(tmp_path / "film.mp4", 4, [(0, 4)])
    other = shutil.copy(film, tmp_path / "other.mp4")

    def cut_changed(program: str, file: object, *rest: object) -> bool:
        film.write_text(f"ffconcat version 1.0\nfile {other}\n")
        return bool(original(program, file, *rest))  # type: ignore[arg-type]

    original = cutting_with_ffmpeg.cut_with_ffmpeg
    with pytest.MonkeyPatch.context() as patch, film.open("rb") as file:
        patch.setattr(clip, "cut_with_ffmpeg", cut_changed)
        with pytest.raises(StageFailed):
            cut_clip(file, 1, 3, tmp_path / "clip.mp4", threading.Event())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "other.mp4"]


def test_a_codec_that_recordings_do_not_have_is_not_decoded(tmp_path: Path) -> None:
    film = make_movie(tmp_path / "film.mkv", video_codec="snow")
    with pytest.raises(NotAVideo, match="the codec of its picture is unknown"):
        probe(film)
    with film.open("rb") as file, pytest.raises(NoPicture, match="the codec of its picture is unknown"):
        make_still(file)
