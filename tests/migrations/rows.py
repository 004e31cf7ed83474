"""Rows in plain SQL, with the least a table asks for; owners are made where none is named."""

from itertools import count
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from app.database import Connection

_numbers = count(1)

_LEAST: dict[str, dict[str, Any]] = {
    "videos": {"identifier": "{}", "cloud_url": "file:///video"},
    "transcripts": {"full_text": "", "word_timestamps": Jsonb([]), "segment_timestamps": Jsonb([])},
    "prompts": {"user_prompt": "u", "system_prompt": "s", "prompt_hash": "{}"},
    "generation_configs": {"model": "m", "operation_type": "generation", "config_hash": "{}"},
    "moments": {"identifier": "{}", "start_time": 1.0, "end_time": 2.0, "title": "t"},
    "clips": {"cloud_url": "file:///clip", "start_time": 1.0, "end_time": 2.0},
    "thumbnails": {"cloud_url": "file:///thumbnail"},
    "pipeline_history": {"identifier": "{}", "pipeline_type": "full", "status": "running", "started_at": "2026-01-01"},
}
_OWNERS = {
    "transcripts": {"video_id": "videos"},
    "generation_configs": {"prompt_id": "prompts"},
    "moments": {"video_id": "videos"},
    "clips": {"moment_id": "moments", "video_id": "videos"},
    "pipeline_history": {"video_id": "videos"},
}


async def insert(conn: Connection, table: str, **values: Any) -> int:
    """Insert a row and return its id."""
    row = {name: f"n{next(_numbers)}" if value == "{}" else value for name, value in _LEAST[table].items()} | values
    for column, owner in _OWNERS.get(table, {}).items():
        if column not in row:
            row[column] = await insert(conn, owner)
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING id").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Placeholder, row)),
    )
    (row_id,) = await anext(await conn.execute(statement, row))
    return int(row_id)


async def delete(conn: Connection, table: str, row_id: int) -> None:
    await conn.execute(sql.SQL("DELETE FROM {} WHERE id = %s").format(sql.Identifier(table)), [row_id])


async def fetch(conn: Connection, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(statement.encode(), values or None)).fetchall()


async def count_rows(conn: Connection, table: str) -> int:
    ((number,),) = await fetch(conn, f"SELECT count(*) FROM {table}")
    return int(number)
