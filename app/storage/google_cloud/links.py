"""V4 signed addresses, used again until shortly before they expire."""

import logging
import math
import time
from datetime import timedelta
from typing import Any

from cachetools import LRUCache

from app.storage.google_cloud.addresses import split_address
from app.storage.google_cloud.client import GoogleClient, answering
from app.storage.protocol import Link

_log = logging.getLogger(__name__)

_KEPT_ADDRESSES = 4096


class Links:
    """Signs, and remembers what it signed. A player needs an address for as long as it plays, so the last fifth of
    an address's life is not given away."""

    def __init__(self, client: GoogleClient, seconds: int) -> None:
        self._client = client
        self._seconds = seconds
        self._known: LRUCache[str, tuple[str, float]] = LRUCache(_KEPT_ADDRESSES)

    def find(self, url: str) -> Link | None:
        """Return an address that was signed before; for the event loop."""
        address, expires_at = self._known.get(url, ("", 0.0))
        left = expires_at - time.monotonic()
        return Link(address, math.floor(left)) if left > self._seconds / 5 else None

    def sign(self, url: str) -> tuple[str, float] | None:
        """Return an address and the moment, on the monotonic clock, when it expires; None where nothing can sign.

        It may block: credentials without a key of their own sign through Google.
        """
        bucket, name = split_address(url)
        with answering(bucket):
            blob = self._client.blob(bucket, name)
            how = self._credentials()
            if how is None:
                return None
            expires_at = time.monotonic() + self._seconds
            address = blob.generate_signed_url(version="v4", expiration=timedelta(seconds=self._seconds), **how)
        return address, expires_at

    def keep(self, url: str, signed: tuple[str, float]) -> None:
        """Remember an address; for the event loop."""
        self._known[url] = signed

    def _credentials(self) -> dict[str, Any] | None:
        from google.auth.credentials import Signing
        from google.auth.transport.requests import Request

        signer = self._client.signer
        if isinstance(signer, Signing):
            return {"credentials": signer}
        email = getattr(signer, "service_account_email", None)
        if signer is None or email is None:
            _log.info("These Google credentials cannot sign addresses: files are sent through this server")
            return None
        if not signer.valid or email == "default":  # what a machine's account is called before the first token
            signer.refresh(Request())  # type: ignore[no-untyped-call]  # the library's types are not whole
        return {
            "credentials": signer,
            "service_account_email": getattr(signer, "service_account_email", email),
            "access_token": signer.token,
        }
