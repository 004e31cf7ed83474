"""Where the sound lies that was extracted from a video."""

import asyncio
import contextlib

from app.core.errors import FileMissing
from app.core.text import list_forms
from app.storage.keys import audio_folder
from app.storage.storage import Storage


async def find_audio_file(storage: Storage, identifier: str) -> str:
    """Return the URL of the sound of a video that there is, here or in an imported library. Raises `FileMissing`."""
    for file in await storage.list(audio_folder(identifier)):
        if file.url.endswith(".wav"):
            return file.url
    for folder in await asyncio.to_thread(storage.libraries.list):
        for form in list_forms(identifier):
            url = (folder / "audios" / f"{form}.wav").as_uri()
            with contextlib.suppress(FileMissing):
                await storage.stat(url)
                return url
    raise FileMissing
