"""How a picture is turned upright that a camera took on its side."""

from collections.abc import Sequence

from av.video.frame import VideoFrame

# Filters, by the degrees counter-clockwise by which a picture is to be turned.
_TURNS = {
    90: [("transpose", "cclock")],
    -90: [("transpose", "clock")],
    180: [("hflip", ""), ("vflip", "")],
    -180: [("hflip", ""), ("vflip", "")],
}


def turns_of(frame: VideoFrame) -> Sequence[tuple[str, str]]:
    """Return the filters, by name and options, that turn a frame upright."""
    return _TURNS.get(frame.rotation, ())
