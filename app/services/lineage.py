"""What was made of a video."""

import asyncio

from app.core.errors import VideoNotFound
from app.core.masking import mask_stored
from app.database import Connection
from app.repositories.provenance import ProvenanceRepository
from app.services.identifiers import findable

_LARGE_BYTES = 100_000  # what takes longer than a few milliseconds is done beside the event loop


async def read_lineage(conn: Connection, identifier: str) -> bytes:
    """Return everything that was made of a video, each row once, as a JSON document without secrets.

    A URL that the video came from is shown without its user and its signature. Raises `VideoNotFound`.
    """
    document = await ProvenanceRepository(conn).read_lineage(findable(identifier))
    if document is None:
        raise VideoNotFound
    if len(document) <= _LARGE_BYTES:
        return _mask_document(document)
    return await asyncio.to_thread(_mask_document, document)


def _mask_document(document: bytes) -> bytes:
    return mask_stored(document.decode()).encode()
