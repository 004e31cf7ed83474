"""The client of Google Cloud Storage, its retries and errors, and V4 signed URLs."""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from app.core.errors import FileMissing, StorageUnavailable
from app.core.thread_pool import ThreadPool
from app.storage.protocols import SignedUrl

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.auth.credentials import Credentials
    from google.cloud.storage import Blob, Client

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_NAME_BYTES = 1024


def split_object_url(url: str) -> tuple[str, str]:
    """Return the bucket and the object name of a gs:// URL, which is not percent-encoded. Raises `ValueError`."""
    bucket, _, name = url.removeprefix("gs://").partition("/")
    if not url.startswith("gs://") or not _BUCKET.fullmatch(bucket):
        raise ValueError("not a gs://bucket address")
    # Clients take `..` in an address as a step up; a signed one would lead to another object.
    if not name.isprintable() or {".", ".."} & set(name.split("/")) or len(name.encode()) > _NAME_BYTES:
        raise ValueError("not the name of an object")
    return bucket, name


_log = logging.getLogger(__name__)

RETRY_SECONDS = 20.0  # total time of a request with its retries
CHUNK_RETRY_SECONDS = 300.0  # a slow connection needs a minute for a chunk
TIMEOUT_SECONDS = (5.0, 60.0)  # for connecting, and for each answer
_RECONNECT_SECONDS = 10.0  # between two searches for credentials, which take half a second and more
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"  # signing through IAM wants it


class GoogleClient:
    """The client and its credentials, made at first use: the import takes a third of a second. Its methods block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._credentials: Credentials | None = None
        self._refusal: tuple[float, str] | None = None  # until when, and why, there is no client

    def make_blob(self, bucket: str, name: str) -> "Blob":
        return self.get_client().bucket(bucket).blob(name)

    def get_client(self) -> "Client":
        """Return the client. Raises `StorageUnavailable` without credentials."""
        with self._lock:
            if self._client is None:
                self._client = self._connect_unless_failed_recently()
                # Else the library loads bucket metadata in threads of its own, for traces that are not recorded.
                self._client._bucket_metadata_cache = None
            return self._client

    @property
    def credentials(self) -> "Credentials | None":
        self.get_client()
        return self._credentials

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _connect_unless_failed_recently(self) -> "Client":
        if self._refusal is not None and time.monotonic() < self._refusal[0]:
            raise StorageUnavailable(self._refusal[1])
        try:
            return self._connect()
        except StorageUnavailable as error:
            self._refusal = (time.monotonic() + _RECONNECT_SECONDS, str(error))
            raise

    def _connect(self) -> "Client":
        import google.auth
        from google.cloud.storage import Client

        with translate_google_errors():
            if "STORAGE_EMULATOR_HOST" not in os.environ:
                self._credentials, _ = google.auth.default(scopes=[_SCOPE])
                return Client(project=None, credentials=self._credentials)
            if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ:  # an emulator accepts anything and cannot sign
                self._credentials, _ = google.auth.default()
            return Client(project=None)


def make_retry_policy(seconds: float | None = None) -> "Retry":
    """Return the retry policy of the Google library, limited to `seconds`."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry: Retry = DEFAULT_RETRY.with_delay(initial=0.25, maximum=4).with_timeout(seconds or RETRY_SECONDS)
    return retry


@contextmanager
def translate_google_errors(bucket: str = "") -> Iterator[None]:
    """Raise `FileMissing`, or `StorageUnavailable` with the name of the bucket, for errors of the Google library."""
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


_MAX_CACHED_URLS = 4096


class UrlSigner:
    """Signs URLs and caches them until the last fifth of their life: a player needs its URL for as long as it plays."""

    def __init__(self, client: GoogleClient, workers: ThreadPool, seconds: int) -> None:
        self._client = client
        self._workers = workers
        self._seconds = seconds
        self._cache: LRUCache[str, tuple[str, float]] = LRUCache(_MAX_CACHED_URLS)

    async def get_signed_url(self, url: str) -> SignedUrl | None:
        """Return a signed URL for a gs:// URL, or None for credentials that cannot sign."""
        signed_url, expires_at = self._cache.get(url, ("", 0.0))
        if expires_at - time.monotonic() <= self._seconds / 5:
            signed = await self._workers.run(self._sign_url, url)
            if signed is None:
                return None
            self._cache[url] = signed_url, expires_at = signed
        return SignedUrl(signed_url, math.floor(expires_at - time.monotonic()))

    def _sign_url(self, url: str) -> tuple[str, float] | None:
        """Return a signed URL and its expiry on the monotonic clock; ask Google where the credentials have no key."""
        bucket, name = split_object_url(url)
        with translate_google_errors(bucket):
            blob = self._client.make_blob(bucket, name)
            credentials = self._get_signing_arguments()
            if credentials is None:
                return None
            expires_at, expiration = time.monotonic() + self._seconds, timedelta(seconds=self._seconds)
            return blob.generate_signed_url(version="v4", expiration=expiration, **credentials), expires_at

    def _get_signing_arguments(self) -> dict[str, Any] | None:
        from google.auth.credentials import Signing
        from google.auth.transport.requests import Request

        credentials = self._client.credentials
        if isinstance(credentials, Signing):
            return {"credentials": credentials}
        email = getattr(credentials, "service_account_email", None)
        if credentials is None or email is None:
            _log.info("These Google credentials cannot sign addresses: files are sent through this server")
            return None
        if not credentials.valid or email == "default":  # what a machine's account is called before the first token
            credentials.refresh(Request())  # type: ignore[no-untyped-call]  # the library's types are not whole
        return {
            "credentials": credentials,
            "service_account_email": getattr(credentials, "service_account_email", email),
            "access_token": credentials.token,
        }
