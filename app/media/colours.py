"""Colours of video: what pixel values mean, and their conversion to SDR that every player shows alike.

Codes are those of ITU-T H.273, as in FFmpeg. SDR with the primaries of television keeps its values and tags; wide
gamuts and HDR (PQ, HLG) are converted to BT.709.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

_BT709, _UNSPECIFIED, _BT470BG, _SMPTE170M, _SMPTE240M, _BT2020 = 1, 2, 5, 6, 7, 9
_PQ, _HLG = 16, 18
_LIMITED_RANGE, _FULL_RANGE = 1, 2
_HD_HEIGHT = 720  # from here on untagged video is BT.709, below BT.601, as in Chromium
# Matrix names of FFmpeg's filter `scale`; it supports no others, such as YCgCo.
_MATRICES = {
    _BT709: "bt709",
    4: "fcc",
    _BT470BG: "bt470",
    _SMPTE170M: "smpte170m",
    _SMPTE240M: "smpte240m",
    _BT2020: "bt2020",
    10: "bt2020",
}
_COLORSPACES = {
    _BT709: Colorspace.ITU709,
    4: Colorspace.FCC,
    _BT470BG: Colorspace.ITU601,
    _SMPTE170M: Colorspace.ITU601,
    _SMPTE240M: Colorspace.SMPTE240M,
    _BT2020: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_PASSTHROUGH_MATRICES = {_BT709, _BT470BG, _SMPTE170M}
_PASSTHROUGH_PRIMARIES = {_BT709, _BT470BG, _SMPTE170M, _SMPTE240M}
# For video without tagged primaries. FFmpeg uses BT470BG for the matrix of BT.601, whatever the primaries.
_PRIMARIES_OF_MATRICES = {
    _BT470BG: _SMPTE170M,
    _SMPTE170M: _SMPTE170M,
    _SMPTE240M: _SMPTE170M,
    9: _BT2020,
    10: _BT2020,
}
# Chromaticities of red, green, blue, and white.
_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {
    _BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    _BT470BG: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    _SMPTE170M: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    _SMPTE240M: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
}
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593])
_GAMMA = 2.4  # BT.1886: reference displays
_LINEAR_BELOW = 0.001  # of the light of white
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0  # BT.2408: SDR white in HDR, and the assumed peak
_LUT_SIZE = 49  # entries along each edge: within 1/255 of the exact values
_SCALING = "flags=bicubic+accurate_rnd+full_chroma_int"
_RGB_FORMATS = ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "x2rgb", "x2bgr", "mono")


class ColourTags(NamedTuple):
    """The colour tags of a clip: codes of ITU-T H.273, and FFmpeg's code of the range."""

    matrix: int
    primaries: int
    transfer: int
    range: int


@dataclass(frozen=True, slots=True)
class ColourProperties:
    """The colour properties of a frame; `matrix` is None for RGB."""

    matrix: int | None
    primaries: int
    transfer: int
    is_full_range: bool

    @property
    def needs_no_conversion(self) -> bool:
        return self.transfer not in (_PQ, _HLG) and self.primaries in _PASSTHROUGH_PRIMARIES

    @property
    def clip_tags(self) -> "ColourTags":
        if not self.needs_no_conversion:
            return ColourTags(_BT709, _BT709, _BT709, _LIMITED_RANGE)
        # Full range is kept: browsers that convert with few bits show limited range in other colours.
        is_full = self.is_full_range and self.matrix is not None
        matrix = self.matrix if self.matrix is not None and self.matrix in _PASSTHROUGH_MATRICES else _BT709
        return ColourTags(matrix, self.primaries, self.transfer, _FULL_RANGE if is_full else _LIMITED_RANGE)

    def clip_filters(self, scale_options: str, pixel_format: str, lut_path: Path | None) -> Sequence[tuple[str, str]]:
        """Return the filters that scale, convert and tag the frames of a clip.

        `scale_options` are options of FFmpeg's `scale`, `lut_path` is a file of `write_bt709_lut`, or None.
        """
        tags = self.clip_tags
        source = f"in_range={_FULL_RANGE if self.is_full_range else _LIMITED_RANGE}"
        if self.matrix is not None:
            source += f":in_color_matrix={_MATRICES[self.matrix]}"
        target = f"out_range={tags.range}:out_color_matrix={_MATRICES[tags.matrix]}:{_SCALING}"
        named = (
            f"range={tags.range}:colorspace={tags.matrix}:color_primaries={tags.primaries}:color_trc={tags.transfer}"
        )
        finish = [("format", pixel_format), ("setparams", named)]
        if lut_path is None:
            return [("scale", f"{scale_options}:{source}:{target}"), *finish]
        return [
            ("scale", f"{scale_options}:{source}:out_range={_FULL_RANGE}:{_SCALING}"),
            ("format", "gbrp16le"),
            ("lut3d", f"file={lut_path}:interp=tetrahedral"),
            ("scale", f"in_range={_FULL_RANGE}:{target}"),
            *finish,
        ]

    def write_bt709_lut(self, lut_path: Path) -> None:
        steps = np.linspace(0.0, 1.0, _LUT_SIZE)
        blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
        lut = self.convert_to_bt709(np.stack([red, green, blue], axis=-1)).reshape(-1, 3)
        lines = [f"LUT_3D_SIZE {_LUT_SIZE}", *(f"{r:.6f} {g:.6f} {b:.6f}" for r, g, b in lut.tolist())]
        lut_path.write_text("\n".join(lines) + "\n")

    def convert_to_bt709(self, rgb: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert RGB values (0 to 1, red, green, blue on the last axis) to SDR values of BT.709.

        Colours outside of BT.709 are below 0 or above 1: clip pixels, but not a lookup table that is interpolated.
        """
        if self.transfer in (_PQ, _HLG):
            light = _tone_map(_pq_to_nits(rgb) if self.transfer == _PQ else _hlg_to_nits(rgb))
        else:
            light = rgb**_GAMMA
        return _encode_bt1886(light @ _primaries_conversion_matrix(self.primaries, _BT709).T)


def read_colours(frame: VideoFrame) -> ColourProperties:
    """Return the colour properties of a frame, with the defaults of players where it has no tags."""
    is_rgb = frame.format.name.startswith(_RGB_FORMATS)
    guess = _BT709 if frame.height >= _HD_HEIGHT or is_rgb else _SMPTE170M
    transfer = int(frame.color_trc)
    if transfer in (_PQ, _HLG):
        guess = _BT2020
    matrix = int(frame.colorspace)
    if matrix not in _MATRICES:
        matrix = guess
    primaries = int(frame.color_primaries)
    if primaries not in _CHROMATICITIES:
        primaries = _PRIMARIES_OF_MATRICES.get(matrix, _BT709)
    if transfer <= 0 or transfer in (_UNSPECIFIED, 3):
        transfer = _SMPTE170M if primaries == _SMPTE170M else _BT709
    is_full = is_rgb or frame.format.name.startswith("yuvj") or int(frame.color_range) == _FULL_RANGE
    return ColourProperties(None if is_rgb else matrix, primaries, transfer, is_full)


def convert_to_jpeg_colours(frame: VideoFrame, colours: ColourProperties, width: int, height: int) -> VideoFrame:
    """Scale a frame and convert it to JPEG's colours: full range, BT.601 matrix, sRGB primaries."""
    matrix = None if colours.matrix is None else _COLORSPACES[colours.matrix]
    source = ColorRange.JPEG if colours.is_full_range else ColorRange.MPEG
    if not colours.needs_no_conversion:
        rgb = frame.reformat(
            width,
            height,
            "rgb48le",
            src_colorspace=matrix,
            src_color_range=source,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA,
            threads=1,
        )
        values = colours.convert_to_bt709(rgb.to_ndarray().astype(np.float64) / 65535)
        frame = VideoFrame.from_ndarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8), "rgb24")
        matrix, source = None, ColorRange.JPEG
    return frame.reformat(
        width,
        height,
        "yuvj420p",
        src_colorspace=matrix,
        src_color_range=source,
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG,
        interpolation=Interpolation.AREA,
        threads=1,
    )


def _pq_to_nits(pq_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the EOTF of SMPTE ST 2084 (PQ)."""
    power = pq_values ** (1 / 78.84375)
    return np.asarray(
        10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    )


def _nits_to_pq(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = (np.maximum(nits, 0) / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def _hlg_to_nits(hlg_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the EOTF of BT.2100 HLG for a display of 1,000 nits."""
    scene = np.where(
        hlg_values <= 0.5, hlg_values**2 / 3, (np.exp((hlg_values - 0.55991073) / 0.17883277) + 0.28466892) / 12
    )
    luma = np.maximum(scene @ _BT2020_LUMA, 1e-9)[..., np.newaxis]
    return np.asarray(_PEAK_NITS * luma**0.2 * scene)


def _tone_map(nits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compress highlights by the EETF of BT.2390 and return light relative to SDR white."""
    brightest = np.minimum(nits.max(axis=-1, keepdims=True), _PEAK_NITS)
    peak, white = _nits_to_pq(np.array(_PEAK_NITS)), _nits_to_pq(np.array(_WHITE_NITS))
    value, highest = _nits_to_pq(brightest) / peak, white / peak
    knee = 1.5 * highest - 0.5
    t = np.clip((value - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * highest
    mapped = _pq_to_nits(np.where(value < knee, value, spline) * peak)
    return np.asarray(nits * mapped / np.maximum(nits.max(axis=-1, keepdims=True), 1e-6) / _WHITE_NITS)


def _encode_bt1886(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the inverse EOTF of BT.1886, linear near black, where it is too steep for a lookup table."""
    magnitude = np.abs(light)
    straight = magnitude * _LINEAR_BELOW ** (1 / _GAMMA - 1)
    return np.asarray(np.sign(light) * np.where(magnitude < _LINEAR_BELOW, straight, magnitude ** (1 / _GAMMA)))


def _primaries_conversion_matrix(source_primaries: int, target_primaries: int) -> NDArray[np.float64]:
    return np.linalg.inv(_rgb_to_xyz_matrix(target_primaries)) @ _rgb_to_xyz_matrix(source_primaries)


def _rgb_to_xyz_matrix(primaries: int) -> NDArray[np.float64]:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in _CHROMATICITIES[primaries]]).T
    scale = np.linalg.solve(columns[:, :3], columns[:, 3])
    return np.asarray(columns[:, :3] * scale)
