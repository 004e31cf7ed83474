"""How a picture is shown upright that a camera took on its side or as in a mirror: its display matrix."""

import struct
from collections.abc import Sequence

from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

_MATRIX = "=9i"

# Filters, by what the matrix makes of the axes: whether it exchanges them, and whether x and y run backwards then.
_TURNS = {
    (False, True, False): [("hflip", "")],
    (False, False, True): [("vflip", "")],
    (False, True, True): [("hflip", ""), ("vflip", "")],
    (True, False, False): [("transpose", "cclock_flip")],
    (True, True, False): [("transpose", "clock")],
    (True, False, True): [("transpose", "cclock")],
    (True, True, True): [("transpose", "clock_flip")],
}


def turns_of(frame: VideoFrame) -> Sequence[tuple[str, str]]:
    """Return the filters, by name and options, that show a frame as players do, turned by right angles."""
    return _TURNS.get(_axes(frame), ())


def lies_on_its_side(frame: VideoFrame) -> bool:
    """Whether its width is the height that players show."""
    return _axes(frame)[0]


def _axes(frame: VideoFrame) -> tuple[bool, bool, bool]:
    # The side data of a frame and the frame keep each other in memory: a small copy has the same.
    small = frame.reformat(2, 2, "gray", interpolation=Interpolation.POINT, threads=1)
    data = small.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, SideData) or data.buffer_size < struct.calcsize(_MATRIX):
        return False, False, False
    # A pixel at x, y is shown at a * x + c * y, b * x + d * y.
    a, b, _, c, d, *_ = struct.unpack_from(_MATRIX, bytes(data))
    exchanged = abs(b) + abs(c) > abs(a) + abs(d)
    return (True, c < 0, b < 0) if exchanged else (False, a < 0, d < 0)
