"""What endpoints ask for. It is given by coroutines: FastAPI calls a plain function in a thread."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request
from redis.asyncio import Redis

from app.core.redis import get_redis
from app.database import Connection, Database, get_connection
from app.storage import Storage


async def get_database(request: Request) -> Database:
    """Give what hands out connections, for endpoints that also wait for something else."""
    database: Database = request.app.state.database
    return database


async def get_storage(request: Request) -> Storage:
    """Give the place where media lives."""
    storage: Storage = request.app.state.storage
    return storage


async def get_live_state() -> Redis:
    """Give the Redis that holds live state."""
    return get_redis()


AutocommitConnection = Annotated[Connection, Depends(get_connection, scope="function")]
Checkouts = Annotated[Database, Depends(get_database)]
MediaStorage = Annotated[Storage, Depends(get_storage)]
LiveState = Annotated[Redis, Depends(get_live_state)]

VideoId = Annotated[str, Path(description="Identifier of the video", examples=["motivation"])]
MomentId = Annotated[str, Path(description="Identifier of the moment", examples=["7621a017eec7482f"])]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Most items to return")]
