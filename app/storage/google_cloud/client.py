"""One client of Google Cloud Storage, made at its first use: importing the library takes a third of a second."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.core.errors import FileMissing, StorageUnavailable

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.auth.credentials import Credentials
    from google.cloud.storage import Blob, Client

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 20.0  # how long a request is tried again
CHUNK_PATIENCE_SECONDS = 300.0  # a slow line needs a minute to send a chunk once
TIMEOUT_SECONDS = (5.0, 60.0)  # for connecting, and for each answer
_REFUSED_SECONDS = 10.0  # how long missing credentials are not looked for again: it takes half a second and more
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"  # signing through IAM wants it


class GoogleClient:
    """The library's client and the credentials. Its methods block."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._client: Client | None = None
        self._credentials: Credentials | None = None
        self._refusal: tuple[float, str] | None = None  # until when, and why, there is no client

    def blob(self, bucket: str, name: str, generation: int | None = None) -> "Blob":
        return self.get().bucket(bucket).blob(name, generation=generation)

    def get(self) -> "Client":
        """Raises `StorageUnavailable` where there are no credentials."""
        with self._turn:
            if self._client is None:
                self._client = self._connect_once_in_a_while()
                # Else the library asks about buckets from threads of its own, for traces that nobody records.
                self._client._bucket_metadata_cache = None
            return self._client

    @property
    def signer(self) -> "Credentials | None":
        """The credentials that addresses may be signed with."""
        self.get()
        return self._credentials

    def close(self) -> None:
        with self._turn:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connect_once_in_a_while(self) -> "Client":
        if self._refusal is not None and time.monotonic() < self._refusal[0]:
            raise StorageUnavailable(self._refusal[1])
        try:
            return self._connect()
        except StorageUnavailable as error:
            self._refusal = (time.monotonic() + _REFUSED_SECONDS, str(error))
            raise

    def _connect(self) -> "Client":
        import google.auth
        from google.cloud.storage import Client

        with answering():
            if "STORAGE_EMULATOR_HOST" not in os.environ:
                self._credentials, _ = google.auth.default(scopes=[_SCOPE])
                return Client(project=None, credentials=self._credentials)
            if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ:  # an emulator takes anything, and signs nothing
                self._credentials, _ = google.auth.default()
            return Client(project=None)


def patiently(seconds: float | None = None) -> "Retry":
    """Return the library's policy of retries, with this project's patience."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry: Retry = DEFAULT_RETRY.with_delay(initial=0.25, maximum=4).with_timeout(seconds or PATIENCE_SECONDS)
    return retry


@contextmanager
def answering(bucket: str = "") -> Iterator[None]:
    """Raise `FileMissing`, or `StorageUnavailable` that names the bucket, for what the library raises."""
    import requests
    import urllib3
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    name = f"The bucket gs://{bucket}" if bucket else "Google Cloud Storage"
    try:
        yield
    except api.NotFound:
        raise FileMissing from None
    except auth.DefaultCredentialsError as error:
        _log.warning("%s", error)
        raise StorageUnavailable("No Google credentials: set GOOGLE_APPLICATION_CREDENTIALS to a key's file") from None
    except (api.Unauthorized, api.Forbidden, auth.RefreshError) as error:
        _log.warning("%s", error)
        raise StorageUnavailable(
            f"{name} refuses this server: let its credentials read and write objects there, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the file of a key that may"
        ) from None
    except (
        api.GoogleAPIError,
        auth.GoogleAuthError,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        DataCorruption,
        InvalidResponse,
        OSError,
    ) as error:
        _log.warning("%s: %s", type(error).__name__, error)
        raise StorageUnavailable(f"{name} does not answer as it should") from None
