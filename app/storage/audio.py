"""Where the sound lies that was extracted from a video."""

import asyncio

from app.core.errors import FileMissing
from app.storage.keys import audio_folder
from app.storage.storage import Storage


async def find_audio_file(storage: Storage, identifier: str) -> str:
    """Return the URL of the sound of a video that there is, here or in an imported library. Raises `FileMissing`."""
    for file in await storage.list(audio_folder(identifier)):
        if file.url.endswith(".wav"):
            return file.url
    for folder in await asyncio.to_thread(storage.libraries.list):
        url = (folder / "audios" / f"{identifier}.wav").as_uri()
        try:
            await storage.stat(url)
        except FileMissing:
            continue
        return url
    raise FileMissing
