"""Keeps the files of a library apart from the server's own, and tells the server which folders it may serve them from,
before the first row refers to one."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

from app.core.errors import ConfigurationError, StorageUnavailable
from app.importer.clips import remote_clip_url
from app.importer.layout import Library, VideoFiles, media_roots
from app.importer.reading import read_json
from app.importer.registry import Source
from app.importer.report import Notes, Report
from app.importer.rows import parse_moments
from app.storage import Storage


def check_folders(storage: Storage, root: Path) -> None:
    """Raises `ConfigurationError` where the server's own files lie in the library: it may delete those, and only those.

    It blocks.
    """
    for folder in media_roots(root):
        if storage.lies_in(folder):
            raise ConfigurationError(
                f"STORAGE_URL must not lie in the library {folder}, whose files are yours: move it"
            )


def check_addresses(storage: Storage, library: Library, sources: Mapping[str, Source], bucket: str | None) -> None:
    """Raises `ConfigurationError` where what the library refers to in a bucket would be the server's own; it blocks."""
    if not storage.url_of("clips").startswith("gs://"):
        return
    addresses = (source.url for source in sources.values())
    for url in chain(addresses, *(_clip_urls(files.moments, bucket) for files in library.videos)):
        if storage.owns(url):
            raise ConfigurationError(
                f"STORAGE_URL must name a folder of the server's own: {url} is yours, and a deletion would take it"
            )


def _clip_urls(moments: Path | None, bucket: str | None) -> Iterator[str]:
    """Yield where a video's clips lie; what cannot be read is told when the video is."""
    with suppress(Exception):
        rows = parse_moments(read_json(moments), Notes(None, None)).moments if moments else []
        yield from (url for row in rows if (url := remote_clip_url(row, bucket)))


def note_library(
    storage: Storage, library: Library, sources: Mapping[str, Source], is_copying: bool, report: Report
) -> None:
    """Note the library's folders where rows will name files in them; it blocks. The report says whether it worked."""
    is_served = not is_copying and library.has_media()
    if not is_served and not any(_is_missed(files, sources) for files in library.videos):
        return
    report.folders = media_roots(library.root)
    if report.dry_run:
        return
    try:
        for folder in report.folders:
            storage.libraries.add(folder)
    except StorageUnavailable as error:
        if any(storage.owns((folder / "videos").as_uri()) for folder in report.folders):
            raise  # nothing else tells the server that the files are not its own
        report.note_problem = str(error)


def _is_missed(files: VideoFiles, sources: Mapping[str, Source]) -> bool:
    """Whether a video's row will say that its file is where one of the library would be."""
    source = sources.get(files.identifier)
    return files.video is None and not (source and source.url.startswith("gs://"))
