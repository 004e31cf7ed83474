"""Tells the server which folders it may serve files from, before the first row refers to one."""

from collections.abc import Mapping

from app.core.errors import StorageUnavailable
from app.library.layout import Library, VideoFiles, media_roots
from app.library.registry import Source
from app.library.report import Report
from app.storage import Storage


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
        report.note_problem = str(error)


def _is_missed(files: VideoFiles, sources: Mapping[str, Source]) -> bool:
    """Whether a video's row will say that its file is where one of the library would be."""
    source = sources.get(files.identifier)
    return files.video is None and not (source and source.url.startswith("gs://"))
