"""Reads an open file without blocking the event loop."""

import os
import threading
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from app.core.errors import FileMissing
from app.storage.os_errors import reading
from app.storage.workers import Workers

T = TypeVar("T")

_CHUNK_BYTES = 256 * 1024
_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)


class FileReader:
    """One file, opened and read by threads, and closed as soon as none of them is at it."""

    def __init__(self, open_file: Callable[[], int], workers: Workers) -> None:
        self._open_file = open_file
        self._workers = workers
        self._buffer = bytearray()
        self._turn = threading.Lock()
        self._descriptor: int | None = None
        self._is_busy = False
        self._is_closed = False

    async def read(self, start: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        try:
            await self._workers.run(self._use, self._open)
            while stop is None or start < stop:
                size = _CHUNK_BYTES if stop is None else min(stop - start, _CHUNK_BYTES)
                chunk = self._read_cached(size, start)
                if chunk is None:
                    chunk = await self._workers.run(self._use, self._read, size, start)
                if not chunk:
                    return
                start += len(chunk)
                yield chunk
        finally:
            self._close()

    def _open(self) -> None:
        self._descriptor = self._open_file()

    def _read(self, size: int, start: int) -> bytes:
        if self._descriptor is None:
            raise FileMissing
        with reading():
            return os.pread(self._descriptor, size, start)

    def _read_cached(self, size: int, start: int) -> bytes | None:
        """Read what the system holds in memory; None where that is nothing.

        It does not block, and several times as many bytes a second come this way as through a thread.
        """
        if _NOWAIT is None or self._descriptor is None:
            return None
        self._buffer = self._buffer or bytearray(_CHUNK_BYTES)
        window = memoryview(self._buffer)[:size]
        try:
            count = os.preadv(self._descriptor, [window], start, _NOWAIT)
        except OSError:  # EAGAIN, or a file system that cannot tell
            return None
        return bytes(window[:count])

    def _use(self, call: Callable[..., T], *args: object) -> T:
        with self._turn:
            if self._is_closed:
                raise FileMissing
            self._is_busy = True
        try:
            return call(*args)
        finally:
            with self._turn:
                self._is_busy = False
                if self._is_closed:
                    self._release()

    def _close(self) -> None:
        with self._turn:
            self._is_closed = True
            if not self._is_busy:
                self._release()

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
