"""Videos by URL: the canonical form of a URL, and the video that it identifies or becomes.

The canonical form drops tracking parameters, and on a few known sites everything but the video itself. All other
differences are kept, because they may lead to different videos. Host, escapes and default port are normalized
(RFC 3986, sections 6.2.2 and 6.2.3).
"""

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import PurePosixPath
from urllib.parse import SplitResult, parse_qs, quote, unquote, unquote_to_bytes, urljoin, urlsplit

import idna

from app.core.errors import FileMissing, InvalidInput, StorageUnavailable
from app.core.text import clean_line, to_nfc
from app.database import Connection
from app.models.videos import make_title_from_file_name
from app.repositories import VideoRepository
from app.services.videos import check_text_field, slugify_filename
from app.storage import Storage, video_folder_key

_log = logging.getLogger(__name__)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPES = re.compile("(?:%[0-9A-Fa-f]{2})+")
_KEPT = "%!$&'()*+,;=:@/?[]"  # unescaped characters of a path or query, and escapes
# Parameters that mail, advertisements and social networks append for tracking.
_TRACKING = re.compile(
    r"(?:utm|mtm|hsa)_\w+|pk_(?:campaign|cid|content|keyword|kwd|medium|source)|fbclid|gclid|gclsrc|dclid|wbraid"
    r"|gbraid|msclkid|yclid|twclid|ttclid|li_fat_id|igsh|igshid|mc_cid|mc_eid|mkt_tok|oly_enc_id|vero_id|s_kwcid|srsltid|ref_src|ref_url|_ga|_gl|_hsenc|_hsmi",
    re.IGNORECASE | re.ASCII,
)
_NAME = r"([\w-]+)/?"
_YOUTUBE_PATH = re.compile(rf"/(?:shorts|embed|live|v|e|watch)/{_NAME}", re.ASCII)
_YOUTUBE_PAGES = frozenset({"/watch", "/watch_popup"})
_NO_VIDEO = frozenset({"videoseries", "live_stream"})  # lists and channels under /embed/
_SHORT_PATH = re.compile(rf"/{_NAME}", re.ASCII)
_VIMEO_PATH = re.compile(
    r"/(?:video/|channels/[\w-]+/|groups/[\w-]+/videos/|(?:album|showcase)/\d+/video/)?(\d+)(?:/([0-9a-f]+))?/?",
    re.ASCII,
)
_DAILYMOTION_PATH = re.compile(r"/(?:embed/)?video/([A-Za-z0-9]+)(?:_[^/]*)?/?")
_LONGEST_URL = 4096
LONGEST_TITLE = 500
# File names that say nothing about the video.
_MEANINGLESS_STEMS = frozenset({"video", "clip", "output", "download", "untitled", "temp", "file", "movie", "media"})


def canonicalize_url(url: str) -> str:
    """Return the canonical form of a URL: URLs of different videos never have the same."""
    url_parts = urlsplit(url)
    if url_parts.scheme not in _DEFAULT_PORTS:  # object names are kept: any difference may matter
        return f"{url_parts.scheme}{url[len(url_parts.scheme) :]}"
    if (known := parse_known_site_url(url)) is not None:
        site, video = known
        return _SITE_URLS[site].format(video)
    path, query = _normalize_url_path(url_parts.path), _normalize_url_query(url_parts.query)
    return f"{url_parts.scheme}://{_normalize_url_host(url_parts)}{path}{f'?{query}' if query else ''}"


def parse_known_site_url(url: str) -> tuple[str, str] | None:
    """Return site and video id of a YouTube, Vimeo or Dailymotion URL, like `("vimeo", "123")`; None for others."""
    url_parts = urlsplit(url)
    host = (url_parts.hostname or "").removeprefix("www.")
    if url_parts.scheme not in _DEFAULT_PORTS or host not in _SITE_PARSERS:
        return None
    site, read = _SITE_PARSERS[host]
    video = read(url_parts)
    return (site, video) if video else None


def decode_non_ascii_escapes(text: str) -> str:
    """Return the text with non-ASCII escapes decoded and composed (NFC); other escapes stay."""
    return to_nfc(_ESCAPES.sub(lambda escapes: _decode_and_percent_escape(unquote_to_bytes(escapes[0])), text))


def _decode_and_percent_escape(utf8_bytes: bytes) -> str:
    return "".join(map(_percent_escape_unless_safe, utf8_bytes.decode("utf-8", "surrogateescape")))


def _percent_escape_unless_safe(character: str) -> str:
    if character in _UNRESERVED or (not character.isascii() and not "\udc80" <= character <= "\udcff"):
        return character
    return f"%{ord(character) & 0xFF:02X}"


def _normalize_url_host(url_parts: SplitResult) -> str:
    host = url_parts.hostname or ""
    if not host.isascii():
        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError:
            host = quote(to_nfc(host))
    user, at, _ = url_parts.netloc.rpartition("@")
    port = (
        f":{url_parts.port}"
        if url_parts.port is not None and url_parts.port != _DEFAULT_PORTS[url_parts.scheme]
        else ""
    )
    return f"{user}{at}{f'[{host}]' if ':' in host else host}{port}"


def _normalize_url_path(path: str) -> str:
    path = quote(decode_non_ascii_escapes(path), safe=_KEPT)
    if "/." not in path:
        return path
    # The leading dot keeps a path that begins with two slashes from being read as a host.
    return urlsplit(urljoin("http://host/", f"/.{path}")).path


def _normalize_url_query(query: str) -> str:
    normalized = (quote(decode_non_ascii_escapes(field), safe=_KEPT) for field in query.split("&"))
    return "&".join(field for field in normalized if field and not _TRACKING.fullmatch(field.partition("=")[0]))


def _parse_youtube_video_id(url_parts: SplitResult) -> str | None:
    if url_parts.path.rstrip("/") in _YOUTUBE_PAGES:
        return _get_parameter_of_word_characters(url_parts, "v")
    match = _YOUTUBE_PATH.fullmatch(url_parts.path)
    return match[1] if match and match[1] not in _NO_VIDEO else None


def _make_url_path_matcher(pattern: re.Pattern[str]) -> Callable[[SplitResult], str | None]:
    """Return a function that returns the first group of the pattern in a URL's path, None if it does not match."""
    return lambda url_parts: match[1] if (match := pattern.fullmatch(url_parts.path)) else None


def _parse_vimeo_video_id(url_parts: SplitResult) -> str | None:
    match = _VIMEO_PATH.fullmatch(url_parts.path)
    if match is None:
        return None
    key = match[2] or _get_parameter_of_word_characters(url_parts, "h")
    return f"{match[1]}/{key}" if key else match[1]


def _get_parameter_of_word_characters(url_parts: SplitResult, name: str) -> str | None:
    value = parse_qs(url_parts.query).get(name, [""])[0]
    return value if re.fullmatch(r"[\w-]+", value, re.ASCII) else None


_SITE_URLS: Mapping[str, str] = {
    "youtube": "https://www.youtube.com/watch?v={}",
    "vimeo": "https://vimeo.com/{}",
    "dailymotion": "https://www.dailymotion.com/video/{}",
}


_SITE_PARSERS: Mapping[str, tuple[str, Callable[[SplitResult], str | None]]] = {
    "youtube.com": ("youtube", _parse_youtube_video_id),
    "m.youtube.com": ("youtube", _parse_youtube_video_id),
    "music.youtube.com": ("youtube", _parse_youtube_video_id),
    "youtube-nocookie.com": ("youtube", _parse_youtube_video_id),
    "youtu.be": ("youtube", _make_url_path_matcher(_SHORT_PATH)),
    "vimeo.com": ("vimeo", _parse_vimeo_video_id),
    "player.vimeo.com": ("vimeo", _parse_vimeo_video_id),
    "dailymotion.com": ("dailymotion", _make_url_path_matcher(_DAILYMOTION_PATH)),
    "m.dailymotion.com": ("dailymotion", _make_url_path_matcher(_DAILYMOTION_PATH)),
    "dai.ly": ("dailymotion", _make_url_path_matcher(_SHORT_PATH)),
}


@dataclass(frozen=True, slots=True)
class VideoOfUrl:
    """The video of a URL; `is_cached` is true where its file at `video_file_url` exists already."""

    video: str
    video_file_url: str
    is_cached: bool


def check_video_url(url: str) -> None:
    check_text_field("video_url", url, _LONGEST_URL)
    try:
        url_parts = urlsplit(url)
        has_host, _ = bool(url_parts.hostname), url_parts.port
    except ValueError:
        raise InvalidInput("video_url cannot be read as an address") from None
    if not url.isprintable() or url != url.strip():
        raise InvalidInput("video_url holds a character that no address has")
    if url_parts.scheme not in ("http", "https", "gs"):
        raise InvalidInput("video_url must begin with http://, https:// or gs://")
    if not has_host:
        raise InvalidInput(f"video_url must name a {'bucket' if url_parts.scheme == 'gs' else 'host'}")
    if url_parts.path in ("", "/"):
        raise InvalidInput("video_url must name a file, and not only where files are")


def hash_canonical_url(url: str) -> str:
    return hashlib.sha256(canonicalize_url(url).encode("utf-8", "surrogateescape")).hexdigest()


def identifier_from_url(url: str) -> str:
    """Return a video identifier like `my-talk`, from the name of the URL's file or the site's video id; not unique."""
    if (known := parse_known_site_url(url)) is not None:
        return slugify_filename("-".join(known))
    stem = _decode_file_stem(url)
    if _is_meaningful_file_stem(stem) and (plain := slugify_filename(stem)):
        return plain
    return f"video-{hash_canonical_url(url)[:8]}"


def make_title_from_url_or_none(url: str) -> str | None:
    stem = clean_line(unquote(_decode_file_stem(url)))
    if parse_known_site_url(url) is not None or not _is_meaningful_file_stem(stem):
        return None
    return make_title_from_file_name(stem)[:LONGEST_TITLE] or None


def _decode_file_stem(url: str) -> str:
    return PurePosixPath(decode_non_ascii_escapes(urlsplit(url).path)).stem


def _is_meaningful_file_stem(stem: str) -> bool:
    return len(stem) > 1 and stem.lower() not in _MEANINGLESS_STEMS


def _list_candidate_identifiers(url: str) -> list[str]:
    """Return the video identifiers that may have been derived from forms of the URL; a new video gets the first."""
    canonical, known = canonicalize_url(url), parse_known_site_url(url)
    stems = [PurePosixPath(unquote(urlsplit(each).path)).stem for each in (url, canonical)]
    if known is not None:
        stems.append(known[1])
    names = [identifier_from_url(url), identifier_from_url(canonical), *map(slugify_filename, stems)]
    return [name for name in dict.fromkeys(names) if name]


async def find_or_add_video_of_url(
    conn: Connection, storage: Storage, url: str, force_new: bool, preferred_identifier: str = ""
) -> VideoOfUrl:
    """Return the video of a URL; add one in the caller's transaction if there is none or `force_new` is set.

    `preferred_identifier` is that of a new video if it is free, and the first choice among several existing videos.
    """
    canonical, candidates = canonicalize_url(url), _list_candidate_identifiers(url)
    preferred = [preferred_identifier] if preferred_identifier else []
    videos = VideoRepository(conn)
    await videos.lock_source_url(canonical)  # concurrent requests for one URL get one video
    listed = [
        known
        for identifier in [*candidates, *preferred]
        for known in await videos.list_videos_of_source([url, canonical], identifier)
    ]
    found = [known for known in listed if _has_canonical_form(known.source_url, canonical)]
    if found and not force_new:
        latest = max(found, key=lambda known: (known.identifier == preferred_identifier, known.has_file, known.id))
        return VideoOfUrl(latest.identifier, latest.cloud_url, latest.has_file)
    numbered = (f"{candidates[0]}-{second}" for second in count(int(time.time())))
    identifiers = chain(preferred, [] if found else candidates[:1], numbered)
    while True:
        identifier = next(identifiers)
        # File names are unique, so that deleting one video never deletes the file of another.
        file_url = storage.url_of(f"{video_folder_key(identifier)}/{secrets.token_hex(8)}.mp4")
        if await videos.insert_pending(identifier, url, file_url, make_title_from_url_or_none(url)):
            return VideoOfUrl(identifier, file_url, is_cached=False)


async def update_is_cached(storage: Storage, video_of_url: VideoOfUrl) -> VideoOfUrl:
    """Return `video_of_url` with `is_cached` as the storage reports it, unchanged while that is unavailable."""
    try:
        await storage.stat(video_of_url.video_file_url)
    except FileMissing:
        return replace(video_of_url, is_cached=False)
    except StorageUnavailable as error:  # the run itself will find out
        _log.warning("Could not check whether the file of video %r exists: %s", video_of_url.video, error)
        return video_of_url
    return replace(video_of_url, is_cached=True)


def _has_canonical_form(source_url: str, canonical_url: str) -> bool:
    try:
        return canonicalize_url(source_url) == canonical_url
    except ValueError:  # imported source URLs may be malformed
        return False
