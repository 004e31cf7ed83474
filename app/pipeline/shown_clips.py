"""The clip of a moment as a service can be shown it."""

import base64
import logging
from urllib.parse import quote

from app.ai.protocols import Clip
from app.core.errors import FileMissing, StorageUnavailable
from app.core.media_types import media_type_of
from app.models import Clip as ClipRow
from app.models import Moment
from app.pipeline.context import RunContext

_log = logging.getLogger(__name__)

_SENT_BYTES = 20 * 1024**2  # a request holds a third more than the file


async def show_clip(context: RunContext, moment: Moment, row: ClipRow) -> Clip | None:
    """Return an address of a clip, or the clip itself where it is small; None where it cannot be shown.

    Audio without a picture never can be.
    """
    if row.video_codec is None and row.audio_codec is not None:
        return None
    try:
        link = await context.storage.get_link(row.cloud_url)
        if link is not None:
            return Clip(link.url)
        return await _send(context, row.cloud_url) or _own_address(context, moment)
    except (FileMissing, StorageUnavailable) as error:
        _log.warning("Moment %s is refined without its clip: %s", moment.identifier, error)
        return None


async def _send(context: RunContext, url: str) -> Clip | None:
    async with context.storage.opened(url) as file:
        if file.stored.size > _SENT_BYTES:
            return None
        content = b"".join([chunk async for chunk in file.read()])
        if len(content) != file.stored.size:  # it was replaced while it was read
            raise FileMissing
    return Clip(f"data:{media_type_of(url)};base64,{base64.b64encode(content).decode()}")


def _own_address(context: RunContext, moment: Moment) -> Clip | None:
    """Return where this server sends the clip; where keys are set, that is closed to services."""
    if context.settings.public_url is None or context.settings.api_keys:
        _log.warning("Moment %s is refined without its clip, which is too large to send", moment.identifier)
        return None
    name = quote(f"{context.run.video}_{moment.identifier}_clip.mp4", safe="")
    return Clip(f"{context.settings.public_url.rstrip('/')}/moment_clips/{name}")
