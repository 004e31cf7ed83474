"""What endpoints ask for."""

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from app.database import Connection, Database, get_connection
from app.storage import Storage


def get_database(request: Request) -> Database:
    """Give what hands out connections, for endpoints that also wait for something else."""
    database: Database = request.app.state.database
    return database


def get_storage(request: Request) -> Storage:
    """Give the place where media lives."""
    storage: Storage = request.app.state.storage
    return storage


AutocommitConnection = Annotated[Connection, Depends(get_connection, scope="function")]
Checkouts = Annotated[Database, Depends(get_database)]
MediaStorage = Annotated[Storage, Depends(get_storage)]

VideoId = Annotated[str, Path(description="Identifier of the video", examples=["motivation"])]
MomentId = Annotated[str, Path(description="Identifier of the moment", examples=["7621a017eec7482f"])]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Most items to return")]
