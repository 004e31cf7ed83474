"""Detection of content types by the first bytes of a file."""

import codecs
import re

from app.core.media_types import UNKNOWN_TYPE, media_type_of

SIGNATURE_BYTES = 512  # at the start of a file

# Major brands (https://mp4ra.org/registered-types/brands) other than those of MP4 video.
_TYPES_OF_BRANDS = {b"qt  ": "video/quicktime", b"M4A ": "audio/mp4", b"M4B ": "audio/mp4"}
_SIGNATURES = (
    (rb"RIFF....AVI ", "video/x-msvideo"),
    (rb"(RIFF|RF64)....WAVE", "audio/wav"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"\x00\x00\x01\xba", "video/mpeg"),
    (rb"FLV\x01", "video/x-flv"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video/x-ms-wmv"),
    (rb"\x47.{187}\x47", "video/mp2t"),
    (rb"\x06\x0e\x2b\x34\x02\x05\x01\x01", "application/mxf"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"ID3", "audio/mpeg"),
    (rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "audio/mpeg"),  # layer III
    (rb"\xff[\xf0\xf1\xf8\xf9]", "audio/aac"),  # ADTS
    (rb"fLaC", "audio/flac"),
    (rb"FORM....AIF[FC]", "audio/aiff"),
    # QuickTime files older than MP4 have no brand and begin with one of these atoms.
    (rb"....(moov|mdat|wide|pnot)", "video/quicktime"),
)
# An Ogg file begins with a page for each of its tracks.
_OGG_VIDEO_CODEC = re.compile(rb"\x80theora|BBCD|OVP80")
# Common uploads that are neither video nor audio, with descriptions for users.
_NON_MEDIA_SIGNATURES = (
    (rb"\xff\xd8\xff", "an image (JPEG)"),
    (rb"\x89PNG\r\n", "an image (PNG)"),
    (rb"RIFF....WEBP", "an image (WebP)"),
    (rb"(II\*\0|MM\0\*)", "an image (TIFF)"),
    (rb"BM....\0\0\0\0", "an image (BMP)"),
    (rb"....ftyp(heic|heix|heim|heis|mif1)", "an image (HEIC)"),
    (rb"....ftypavif", "an image (AVIF)"),
    (rb"\s*(<\?xml[^>]*>\s*)?<svg", "an image (SVG)"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK\x03\x04", "a ZIP archive or an office document"),
    (rb"(7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|\x1f\x8b)", "an archive"),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)\b", "a web page"),
)
_DOCUMENT_TYPE = re.compile(rb"\x42\x82.(webm|matroska)", re.DOTALL)  # EBML: id, one byte of length, name


def detect_content_type(head: bytes, name: str) -> str:
    """Return the media type of a file that begins with `head`, its first `SIGNATURE_BYTES`.

    `name` decides only if the bytes are not recognised. Something else, such as a web page named `talk.mp4`, is
    `UNKNOWN_TYPE`.
    """
    known = _match_signature(head)
    if known is None:
        known = UNKNOWN_TYPE if describe_non_media(head) else media_type_of(name)
    return known


def describe_non_media(head: bytes) -> str | None:
    """Return what a file that is neither video nor audio is ("an image (JPEG)"), None if unknown."""
    matches = (kind for start, kind in _NON_MEDIA_SIGNATURES if re.match(start, head, re.DOTALL | re.IGNORECASE))
    return next(matches, None) or ("text" if _looks_like_text(head) else None)


def _looks_like_text(head: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(each.isprintable() or each in "\t\r\n\f\ufeff" for each in text)


def _match_signature(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        return "video/3gpp" if brand.startswith(b"3g") else _TYPES_OF_BRANDS.get(brand, "video/mp4")
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        found = _DOCUMENT_TYPE.search(head)
        return None if found is None else "video/webm" if found[1] == b"webm" else "video/x-matroska"
    if head.startswith(b"OggS"):
        return "video/ogg" if _OGG_VIDEO_CODEC.search(head) else "audio/ogg"
    return next((kind for start, kind in _SIGNATURES if re.match(start, head, re.DOTALL)), None)
