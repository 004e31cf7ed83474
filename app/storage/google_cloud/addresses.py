"""What a gs:// address names."""

import re

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_NAME_BYTES = 1024


def split_address(url: str) -> tuple[str, str]:
    """Return bucket and object name, which is not percent-encoded. Raises `ValueError`."""
    bucket, _, name = url.removeprefix("gs://").partition("/")
    if not url.startswith("gs://") or not _BUCKET.fullmatch(bucket):
        raise ValueError("not a gs://bucket address")
    # Clients take `..` in an address as a step up; a signed one would lead to another object.
    if not name.isprintable() or {".", ".."} & set(name.split("/")) or len(name.encode()) > _NAME_BYTES:
        raise ValueError("not the name of an object")
    return bucket, name
