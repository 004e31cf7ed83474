"""SQL over `pipeline.answers`: what models have answered to runs that have not completed."""

from collections.abc import Mapping
from typing import Any

from psycopg.types.json import Jsonb

from app.database import Connection


class AnswerRepository:
    """Answers by the run that asked and by what they depend on. The caller holds the run."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def keep(self, run_id: int, question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        await self._conn.execute(
            """
            INSERT INTO pipeline.answers (run_id, question, answer) VALUES (%(run_id)s, %(question)s, %(answer)s)
            ON CONFLICT (run_id, question) DO UPDATE SET answer = excluded.answer
            """,
            {"run_id": run_id, "question": Jsonb(question), "answer": Jsonb(answer)},
        )

    async def find(self, run_id: int, question: Mapping[str, Any]) -> dict[str, Any] | None:
        cursor = await self._conn.execute(
            "SELECT answer FROM pipeline.answers WHERE run_id = %(run_id)s AND question = %(question)s",
            {"run_id": run_id, "question": Jsonb(question)},
        )
        row = await cursor.fetchone()
        return None if row is None else dict(row[0])

    async def copy(self, identifier: str, retry: str) -> None:
        """Give the answers to a run to the one that tries it again; both are identifiers."""
        await self._conn.execute(
            """
            INSERT INTO pipeline.answers (run_id, question, answer)
            SELECT retry.id, question, answer
            FROM pipeline_history AS ended
            JOIN pipeline.answers ON run_id = ended.id
            JOIN pipeline_history AS retry ON retry.identifier = %(retry)s
            WHERE ended.identifier = %(identifier)s
            """,
            {"identifier": identifier, "retry": retry},
        )

    async def forget(self, run_id: int) -> None:
        await self._conn.execute("DELETE FROM pipeline.answers WHERE run_id = %(run_id)s", {"run_id": run_id})
