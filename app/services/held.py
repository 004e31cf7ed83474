"""What is asked of the storage while a connection and a lock are held."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.errors import StorageUnavailable

# A storage that is well answers in milliseconds. One that is not would keep its patience of a minute for each request,
# and a few of those would have all connections of the pool.
SECONDS = 5.0


@asynccontextmanager
async def while_held() -> AsyncIterator[None]:
    """Wait in the block for a short time only. Raises `StorageUnavailable`."""
    try:
        async with asyncio.timeout(SECONDS):
            yield
    except TimeoutError:
        raise StorageUnavailable("The storage takes too long to answer") from None
