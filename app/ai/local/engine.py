"""The local transcriber and the local moment finder of a process."""

from app.ai.local.finder import LocalFinder
from app.ai.local.whisper import LocalTranscriber
from app.core.config import Settings


class LocalEngine:
    """Made once in a process, for the models that it loads are kept; making it loads none."""

    def __init__(self, settings: Settings) -> None:
        self._transcriber = LocalTranscriber(settings.local_whisper)
        self._finder = LocalFinder()

    def transcriber(self) -> LocalTranscriber:
        return self._transcriber

    def finder(self) -> LocalFinder:
        return self._finder
