"""Cuts with the ffmpeg program of the system."""

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import av

from app.core.errors import StageFailed
from app.core.limited_process import limited_command
from app.media.cutting import AUDIO_BITS, AUDIO_CODEC, PIXELS, VIDEO_CODEC, VIDEO_OPTIONS, Cut
from app.media.decoders import DECODERS
from app.media.opening import FORMATS, MAX_PIXELS, MAX_STREAMS, BoundedFile

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1  # how often a program that runs is looked at
_TOLD_BYTES = 500  # of what it says last
# Threads have stacks of 8 MB, and there are some for each processor in decoder, filters and encoder. A pixel takes
# 1.5 to 6 bytes in each frame, of which some hundred are held by decoder, lookahead and references, and more by each
# thread. 7680 x 4320 pixels with 10 bits took 7.2 GB on two processors, and are given 9.9 GB.
_PROGRAM_BYTES, _THREAD_BYTES, _PIXEL_BYTES, _THREAD_PIXEL_BYTES = 1024**3, 64 * 1024**2, 250, 8
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
_OUT_OF_MEMORY = "Cannot allocate memory"
_ROUNDING_SECONDS = 0.05  # by which the audio of a clip may differ from its length


def find_ffmpeg() -> str | None:
    """Return the path of the program, None where there is none or none that can be given an open file."""
    return shutil.which("ffmpeg") if os.path.isdir("/dev/fd") else None


def cut_with_ffmpeg(program: str, film: BinaryIO, bounded: BoundedFile, cut: Cut, target: Path) -> bool:
    """Write a clip of a local film; False where the program could not, which is logged, or does not know the clock.

    The program gets the film as an open file, so that it reads the very one that was looked at. Raises `Stopped`,
    `TooExpensive` and `StageFailed` where it takes too much, after the program was killed.
    """
    if cut.timeline.restarts:
        return False
    path = f"/dev/fd/{film.fileno()}"
    memory, seconds = _memory_bytes(cut), bounded.seconds_left * (os.cpu_count() or 1)
    with tempfile.TemporaryFile() as told, cut.colour_table() as table:
        process = subprocess.Popen(  # noqa: S603  # a program of the system, and nothing of a user's but an open file
            limited_command([program, *_arguments(path, cut, table, target)], memory, seconds),
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=told,
            pass_fds=[film.fileno()],
            start_new_session=True,  # what a terminal tells this process is not told to the program
        )
        try:
            code = _wait(process, bounded)
        finally:
            process.kill()
            process.wait()
        if code == 0 and _is_whole(target, cut):
            return True
        told.seek(max(told.tell() - _TOLD_BYTES, 0))
        said = told.read().decode(errors="replace").strip()
        _log.warning("%s has ended with %s: %s", program, code, said)
        # This process would come to the same end, with all that it does beside.
        if code < 0 or _OUT_OF_MEMORY in said:
            raise StageFailed("A clip of the video takes more memory or computing time to cut than it may")
    return False


def _memory_bytes(cut: Cut) -> int:
    """Return how much address space the program may take: for its threads and for the frames that they hold.

    That is never more than three quarters of the machine's memory: the program fails, and no other has to end for it.
    """
    processors = os.cpu_count() or 1
    frames = cut.form.width * cut.form.height * (_PIXEL_BYTES + _THREAD_PIXEL_BYTES * processors)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(min(_PROGRAM_BYTES + _THREAD_BYTES * processors + frames, machine * 3 // 4), _PROGRAM_BYTES)


def _environment() -> dict[str, str]:
    """Return what the program needs to run, without the settings and secrets of this process."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, "MALLOC_ARENA_MAX": "2"}  # an arena for each thread would reserve 64 MB


def _wait(process: "subprocess.Popen[bytes]", bounded: BoundedFile) -> int:
    while True:
        try:
            return process.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            bounded.check_limits()


def _arguments(film: str, cut: Cut, table: Path | None, target: Path) -> list[str]:
    seek = [] if cut.seek is None else ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{cut.seek.time:.6f}"]
    sound = [] if cut.sound is None else ["-map", f"0:{cut.sound}", "-af", _chain(cut.sound_filters)]
    return [
        *("-nostdin", "-hide_banner", "-loglevel", "error", "-y"),
        *("-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-codec_whitelist", DECODERS),
        *("-max_pixels", str(MAX_PIXELS), "-max_streams", str(MAX_STREAMS)),
        # A graph made anew for frames of another form would begin anew in the middle: the program fails at audio.
        *("-reinit_filter", "0", "-copyts", *seek, "-i", f"file:{film}"),
        *("-map", f"0:{cut.picture}", "-vf", _chain([*_same_form(cut), *cut.picture_filters(table)]), *sound),
        *("-map_metadata", "-1", "-map_chapters", "-1"),
        *("-c:v", VIDEO_CODEC, *(part for name, value in VIDEO_OPTIONS.items() for part in (f"-{name}", value))),
        *("-pix_fmt", PIXELS, *_tags(cut), "-c:a", AUDIO_CODEC, "-b:a", str(AUDIO_BITS)),
        *("-movflags", "+faststart", "-fs", str(cut.max_bytes), "-f", "mp4", f"file:{target}"),
    ]


def _same_form(cut: Cut) -> list[tuple[str, str]]:
    """Return the filters that give all frames the form of the first one, which the program has turned upright."""
    form = cut.form
    width, height = (form.height, form.width) if form.lies_on_its_side else (form.width, form.height)
    return [("scale", f"w={width}:h={height}"), ("format", form.pixels)] if form.is_planar else []


def _tags(cut: Cut) -> list[str]:
    names = ("-colorspace", "-color_primaries", "-color_trc", "-color_range")
    return [part for pair in zip(names, map(str, cut.form.colours.tags), strict=True) for part in pair]


def _chain(filters: Sequence[tuple[str, str]]) -> str:
    return ",".join(f"{name}={options}" if options else name for name, options in filters)


def _is_whole(clip: Path, cut: Cut) -> bool:
    """Whether both tracks of a clip are as long as they should be: the program calls it a success to write less."""
    try:
        with av.open(f"file:{clip}") as container:
            frames = [stream.frames for stream in container.streams.video]
            seconds = [float((stream.duration or 0) * (stream.time_base or 0)) for stream in container.streams.audio]
    except av.FFmpegError:
        return False
    is_audio_whole = all(abs(length - cut.seconds) <= _ROUNDING_SECONDS for length in seconds)
    return frames == [cut.frames] and len(seconds) == (cut.sound is not None) and is_audio_whole
