"""Requests of other programs that did not become runs: SQL over `pipeline.rejected_requests`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from app.database.queries import Repository, exists, fetch_all, lock_in_transaction


@dataclass(frozen=True, slots=True)
class RejectedRequest:
    """A request from the Redis stream that did not become a run, with the reason; `received_at` is naive UTC."""

    id: int
    entry_id: str
    fields: dict[str, Any]
    reason: str
    received_at: datetime


class RejectedRequestRepository(Repository):
    """Rejected requests by the id of their stream entry, which Redis may reuse after it was flushed."""

    async def lock_request_until_commit(self, key: str) -> None:
        await lock_in_transaction(self._conn, f"requests:{key}")

    async def add_rejected_request(
        self, entry_id: str, fallback_entry_id: str, fields: Mapping[str, str], reason: str
    ) -> None:
        await self._conn.execute(
            """
            INSERT INTO pipeline.rejected_requests (entry_id, fields, reason)
            SELECT CASE WHEN EXISTS (SELECT FROM pipeline.rejected_requests WHERE entry_id = %(entry_id)s)
                   THEN %(other_id)s ELSE %(entry_id)s END, %(fields)s, %(reason)s
            ON CONFLICT ON CONSTRAINT rejected_requests_entry_id_key DO NOTHING
            """,
            {"entry_id": entry_id, "other_id": fallback_entry_id, "fields": Jsonb(fields), "reason": reason},
        )

    async def is_request_rejected(self, entry_id: str, fallback_entry_id: str, fields: Mapping[str, str]) -> bool:
        return await exists(
            self._conn,
            """
            SELECT FROM pipeline.rejected_requests
            WHERE entry_id IN (%(entry_id)s, %(other_id)s) AND fields = %(fields)s
            """,
            {"entry_id": entry_id, "other_id": fallback_entry_id, "fields": Jsonb(fields)},
        )

    async def list_newest_rejected_requests(self, limit: int) -> list[RejectedRequest]:
        return await fetch_all(
            self._conn,
            RejectedRequest,
            """
            SELECT id, entry_id, fields, reason, received_at
            FROM pipeline.rejected_requests
            ORDER BY id DESC
            LIMIT %(limit)s
            """,
            {"limit": limit},
        )
