"""When two addresses mean the same video: the canonical form of a URL.

What is known to say nothing of the video goes: the parameters by which visits are tracked, and on a few hosts all but
the video itself. Whatever else tells two URLs apart is kept, because they may lead to two videos. The host, escapes and
the default port are written in one form (RFC 3986, section 6.2.2 and 6.2.3).
"""

import re
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, parse_qs, quote, unquote_to_bytes, urljoin, urlsplit

import idna

from app.core.text import to_nfc

_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPES = re.compile("(?:%[0-9A-Fa-f]{2})+")
_KEPT = "%!$&'()*+,;=:@/?[]"  # what a path or a query may hold as it is, and the escapes
# What mail, advertisements and social networks append to any address to recognize who follows it.
_TRACKING = re.compile(
    r"(?:utm|mtm|hsa)_\w+|pk_(?:campaign|cid|content|keyword|kwd|medium|source)|fbclid|gclid|gclsrc|dclid|wbraid"
    r"|gbraid|msclkid|yclid|twclid|ttclid|li_fat_id|igsh|igshid|mc_cid|mc_eid|mkt_tok|oly_enc_id|vero_id|s_kwcid|srsltid|ref_src|ref_url|_ga|_gl|_hsenc|_hsmi",
    re.IGNORECASE | re.ASCII,
)
_NAME = r"([\w-]+)/?"
_YOUTUBE_PATH = re.compile(rf"/(?:shorts|embed|live|v|e|watch)/{_NAME}", re.ASCII)
_YOUTUBE_PAGES = frozenset({"/watch", "/watch_popup"})
_NO_VIDEO = frozenset({"videoseries", "live_stream"})  # /embed/… that are lists and channels
_SHORT_PATH = re.compile(rf"/{_NAME}", re.ASCII)
_VIMEO_PATH = re.compile(
    r"/(?:video/|channels/[\w-]+/|groups/[\w-]+/videos/|(?:album|showcase)/\d+/video/)?(\d+)(?:/([0-9a-f]+))?/?",
    re.ASCII,
)
_DAILYMOTION_PATH = re.compile(r"/(?:embed/)?video/([A-Za-z0-9]+)(?:_[^/]*)?/?")


def canonical_url(url: str) -> str:
    """Return what all addresses of a video have in common, as a URL. Two videos have never the same."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:  # the name of an object may hold anything, and stands for itself
        return f"{parts.scheme}{url[len(parts.scheme) :]}"
    if (known := find_known_video(url)) is not None:
        site, video = known
        return _KNOWN_FORMS[site].format(video)
    path, query = _normalize_path(parts.path), _normalize_query(parts.query)
    return f"{parts.scheme}://{_normalize_host(parts)}{path}{f'?{query}' if query else ''}"


def find_known_video(url: str) -> tuple[str, str] | None:
    """Return the site and the video's name there, for an address of a known site whose every form is known."""
    parts = urlsplit(url)
    host = (parts.hostname or "").removeprefix("www.")
    if parts.scheme not in _DEFAULT_PORTS or host not in _READERS:
        return None
    site, read = _READERS[host]
    video = read(parts)
    return (site, video) if video else None


def decode_escapes(text: str) -> str:
    """Return the text of an address with its escaped letters as such, composed; what is escaped in ASCII stays so."""
    return to_nfc(_ESCAPES.sub(lambda escapes: _decode(unquote_to_bytes(escapes[0])), text))


def _decode(data: bytes) -> str:
    return "".join(map(_keep_escape, data.decode("utf-8", "surrogateescape")))


def _keep_escape(character: str) -> str:
    """Return a character as it is where its escape means the same, else the escape of its byte."""
    if character in _UNRESERVED or (not character.isascii() and not "\udc80" <= character <= "\udcff"):
        return character
    return f"%{ord(character) & 0xFF:02X}"


def _normalize_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            host = quote(to_nfc(host))
    user, at, _ = parts.netloc.rpartition("@")
    port = f":{parts.port}" if parts.port is not None and parts.port != _DEFAULT_PORTS[parts.scheme] else ""
    return f"{user}{at}{f'[{host}]' if ':' in host else host}{port}"


def _normalize_path(path: str) -> str:
    path = quote(decode_escapes(path), safe=_KEPT)
    if "/." not in path:
        return path
    # The first segment is told from a host, which a path that begins with two slashes would name.
    return urlsplit(urljoin("http://host/", f"/.{path}")).path


def _normalize_query(query: str) -> str:
    """Return the parameters that may mean something, in their order, with their values letter by letter."""
    normalized = (quote(decode_escapes(field), safe=_KEPT) for field in query.split("&"))
    return "&".join(field for field in normalized if field and not _TRACKING.fullmatch(field.partition("=")[0]))


def _read_youtube(parts: SplitResult) -> str | None:
    if parts.path.rstrip("/") in _YOUTUBE_PAGES:
        return _read_parameter(parts, "v")
    match = _YOUTUBE_PATH.fullmatch(parts.path)
    return match[1] if match and match[1] not in _NO_VIDEO else None


def _read_short(parts: SplitResult) -> str | None:
    match = _SHORT_PATH.fullmatch(parts.path)
    return match[1] if match else None


def _read_vimeo(parts: SplitResult) -> str | None:
    """Return the number, and behind it the key of a video that is not listed: without that it is not shown."""
    match = _VIMEO_PATH.fullmatch(parts.path)
    if match is None:
        return None
    key = match[2] or _read_parameter(parts, "h")
    return f"{match[1]}/{key}" if key else match[1]


def _read_dailymotion(parts: SplitResult) -> str | None:
    match = _DAILYMOTION_PATH.fullmatch(parts.path)
    return match[1] if match else None


def _read_parameter(parts: SplitResult, name: str) -> str | None:
    value = parse_qs(parts.query).get(name, [""])[0]
    return value if re.fullmatch(r"[\w-]+", value, re.ASCII) else None


_KNOWN_FORMS: Mapping[str, str] = {
    "youtube": "https://www.youtube.com/watch?v={}",
    "vimeo": "https://vimeo.com/{}",
    "dailymotion": "https://www.dailymotion.com/video/{}",
}
_READERS: Mapping[str, tuple[str, Callable[[SplitResult], str | None]]] = {
    "youtube.com": ("youtube", _read_youtube),
    "m.youtube.com": ("youtube", _read_youtube),
    "music.youtube.com": ("youtube", _read_youtube),
    "youtube-nocookie.com": ("youtube", _read_youtube),
    "youtu.be": ("youtube", _read_short),
    "vimeo.com": ("vimeo", _read_vimeo),
    "player.vimeo.com": ("vimeo", _read_vimeo),
    "dailymotion.com": ("dailymotion", _read_dailymotion),
    "m.dailymotion.com": ("dailymotion", _read_dailymotion),
    "dai.ly": ("dailymotion", _read_short),
}
