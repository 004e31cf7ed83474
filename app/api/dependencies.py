"""What endpoints ask for."""

from typing import Annotated

from fastapi import Depends, Path, Query

from app.database import Connection, get_connection

AutocommitConnection = Annotated[Connection, Depends(get_connection, scope="function")]

VideoId = Annotated[str, Path(description="Identifier of the video", examples=["motivation"])]
Limit = Annotated[int | None, Query(ge=1, le=1000, description="Most items to return")]
