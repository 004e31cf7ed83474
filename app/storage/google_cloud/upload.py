"""Sends a file into a bucket in a resumable session, and goes on where an interrupted process was.

The protocol is Google's: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

import base64
import contextlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

from app.core.errors import Conflict, FileMissing, StorageUnavailable
from app.core.media_types import guess_media_type
from app.storage.file_system import translate_read_errors, translate_write_errors
from app.storage.folder_upload import open_source_file
from app.storage.google_cloud.client import (
    CHUNK_RETRY_SECONDS,
    TIMEOUT_SECONDS,
    make_retry_policy,
    translate_google_errors,
)
from app.storage.incoming import IncomingFolder

if TYPE_CHECKING:
    import requests
    from google.cloud.storage import Blob

_CHUNK_BYTES = 8 * 1024 * 1024  # a multiple of 256 KiB, which the protocol wants
_ATTEMPTS = 2
_extend_checksum: Callable[[int, bytes], int] = google_crc32c.extend


class ObjectUpload:
    """Uploads one file into a bucket, in a thread; any thread may stop it."""

    def __init__(
        self, make_blob: Callable[[], "Blob"], incoming: IncomingFolder, source: Path, progress: Callable[[int], None]
    ) -> None:
        self._make_blob = make_blob
        self._incoming = incoming
        self._source = source
        self._progress = progress
        self._reported = 0
        self._answer: dict[str, str] = {}
        self._stopping = threading.Event()

    def request_stop(self) -> None:
        self._stopping.set()

    def run(self) -> "Blob":
        """Upload the file, unless the bucket has it already, and return the object.

        Raises `FileMissing`, `StorageFull` and `StorageUnavailable`.
        """
        import requests

        with open_source_file(self._source) as file, requests.Session() as http:
            self._blob = self._make_blob()
            self._file = file
            self._http = http
            self._size, self._checksum = os.fstat(file.fileno()).st_size, self._compute_checksum()
            address = f"gs://{self._blob.bucket.name}/{self._blob.name}"
            with (
                translate_write_errors(),
                self._incoming.open_draft(address, self._source, self._stopping) as (session_file, path),
            ):
                if not self._load_object_if_same_bytes():
                    self._send_in_sessions(session_file)
                self._report_progress(self._size)
                path.unlink()
            return self._blob

    def _compute_checksum(self) -> str:
        checksum = 0
        with translate_read_errors():
            while chunk := self._file.read(_CHUNK_BYTES):
                self._raise_if_stopping()
                checksum = _extend_checksum(checksum, chunk)
        return base64.b64encode(checksum.to_bytes(4, "big")).decode()

    def _load_object_if_same_bytes(self) -> bool:
        self._blob = self._make_blob()  # one that was loaded stays with its generation
        try:
            with translate_google_errors(self._blob.bucket.name):
                self._blob.reload(timeout=TIMEOUT_SECONDS, retry=make_retry_policy())
        except FileMissing:
            return False
        return bool(self._blob.size == self._size and self._blob.crc32c == self._checksum)

    def _send_in_sessions(self, session_file: int) -> None:
        """Continue the saved upload session, or begin new ones, until the bucket has the whole file."""
        session = self._read_saved_session(session_file)
        if session is not None and self._send_bytes_from_position(session, self._ask_received_bytes(session)):
            return
        for _ in range(_ATTEMPTS):
            if self._send_bytes_from_position(self._begin_and_save_session(session_file), 0):
                return
        raise StorageUnavailable("The bucket does not keep what it is sent")

    def _read_saved_session(self, session_file: int) -> str | None:
        """Return the upload session that an interrupted process began for the same bytes."""
        try:
            noted = json.loads(os.pread(session_file, 65536, 0))
        except ValueError:
            return None
        same = isinstance(noted, dict) and (noted.get("size"), noted.get("crc32c")) == (self._size, self._checksum)
        return str(noted["session"]) if same else None

    def _begin_and_save_session(self, session_file: int) -> str:
        kind = guess_media_type(self._blob.name)
        self._blob.content_type = kind
        try:
            with translate_google_errors(self._blob.bucket.name):
                session: str = self._blob.create_resumable_upload_session(
                    content_type=kind,
                    size=self._size,
                    checksum=None,
                    timeout=TIMEOUT_SECONDS[1],
                    retry=make_retry_policy(),
                )
        except FileMissing:
            raise StorageUnavailable(f"There is no bucket {self._blob.bucket.name}") from None
        os.ftruncate(session_file, 0)
        os.pwrite(
            session_file, json.dumps({"session": session, "size": self._size, "crc32c": self._checksum}).encode(), 0
        )
        os.fsync(session_file)
        return session

    def _send_bytes_from_position(self, session: str, position: int | None) -> bool:
        """Send the bytes from `position`; return False for a session that expired or an upload that is corrupt."""
        if self._size == 0:
            position = self._ask_received_bytes(session)
        while position is not None and position < self._size:
            self._report_progress(position)
            self._raise_if_stopping()
            before, position = position, self._send_chunk(session, position)
            if position == before:
                return False
        return position is not None and self._verify_or_delete_upload()

    def _verify_or_delete_upload(self) -> bool:
        """Return whether the uploaded object has the checksum of the file; delete it where it has not."""
        if self._answer.get("crc32c") == self._checksum:
            self._blob = self._make_blob()
            with translate_google_errors(self._blob.bucket.name):
                self._blob.reload(timeout=TIMEOUT_SECONDS, retry=make_retry_policy())
            return True
        with contextlib.suppress(FileMissing), translate_google_errors(self._blob.bucket.name):
            generation = int(self._answer.get("generation", 0))
            self._make_blob().delete(if_generation_match=generation, timeout=TIMEOUT_SECONDS, retry=make_retry_policy())
        return False

    def _send_chunk(self, session: str, position: int) -> int | None:
        """Send a chunk and return the next position, or None for an expired session."""
        is_unsure = False

        def send() -> int | None:
            nonlocal is_unsure, position
            if is_unsure:  # whether the bucket has got the bytes of the attempt before
                known = self._ask_received_bytes(session)
                if known is None or known != position:
                    return known
            is_unsure = True
            with translate_read_errors():
                data = os.pread(self._file.fileno(), min(_CHUNK_BYTES, self._size - position), position)
            if not data:
                raise Conflict(f"{self._source.name} changed while it was sent")
            stop = position + len(data)
            headers = {"Content-Range": f"bytes {position}-{stop - 1}/{self._size}"}
            if stop == self._size:
                headers["X-Goog-Hash"] = f"crc32c={self._checksum}"
            return self._put_bytes(session, headers, data)

        with translate_google_errors(self._blob.bucket.name):
            result: int | None = make_retry_policy(CHUNK_RETRY_SECONDS)(send, self._raise_if_stopping)()
        return result

    def _ask_received_bytes(self, session: str) -> int | None:
        """Return how many bytes the bucket has received, or None for an expired session."""
        with translate_google_errors(self._blob.bucket.name):
            ask = make_retry_policy()(self._put_bytes, self._raise_if_stopping)
            result: int | None = ask(session, {"Content-Range": f"bytes */{self._size}"}, b"")
        return result

    def _put_bytes(self, session: str, headers: dict[str, str], data: bytes) -> int | None:
        """Send bytes; return how many the bucket has received so far, or None for an expired session."""
        from google.api_core.exceptions import from_http_response

        response = self._http.put(session, data=data, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
        if response.status_code == 308:
            return _parse_received_bytes(response)
        if response.ok:
            self._answer = response.json()
            return self._size
        if response.status_code in (400, 404, 410):
            return None
        raise from_http_response(response)  # type: ignore[no-untyped-call]  # the library's types are not whole

    def _report_progress(self, position: int) -> None:
        if position > self._reported:
            self._progress(position - self._reported)
            self._reported = position

    def _raise_if_stopping(self, _: Exception | None = None) -> None:
        if self._stopping.is_set():
            raise StorageUnavailable("The server is stopping")


def _parse_received_bytes(response: "requests.Response") -> int:
    # `Range: bytes=0-524287` means 524288, no header 0.
    last = response.headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last.isdigit() else 0
