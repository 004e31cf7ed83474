"""SQL over `prompts`."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from app.core.errors import PromptHashCollision
from app.database import Connection
from app.database.queries import fetch_all, fetch_one, fetch_returned, fetch_value
from app.models import Prompt
from app.repositories.statements import copy_rows

COLUMNS = "id, user_prompt, system_prompt, prompt_hash, created_at"


class NewPrompt(TypedDict):
    """What a new prompt is made of."""

    user_prompt: str
    system_prompt: str


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """A prompt without its system prompt, which may hold a whole transcript; the length is in characters."""

    id: int
    user_prompt: str
    system_prompt_length: int
    prompt_hash: str
    created_at: datetime


def prompt_hash(user_prompt: str, system_prompt: str) -> str:
    """Return the hex SHA-256 of the two texts joined: pairs that join to the same text have the same hash."""
    return hashlib.sha256((user_prompt + system_prompt).encode()).hexdigest()


class PromptRepository:
    """Prompts, each stored once. They are immutable."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def get_or_create(self, user_prompt: str, system_prompt: str) -> Prompt:
        """Return the prompt of these texts, inserted where it is new; nobody deletes it before the transaction ends.

        Raises `PromptHashCollision` where another pair joins to the same text.
        """
        prompt = await fetch_returned(
            self._conn,
            Prompt,
            f"""
            WITH found AS (
                SELECT {COLUMNS} FROM prompts WHERE prompt_hash = %(prompt_hash)s FOR KEY SHARE
            ), written AS (
                INSERT INTO prompts (user_prompt, system_prompt, prompt_hash)
                SELECT %(user_prompt)s, %(system_prompt)s, %(prompt_hash)s WHERE NOT EXISTS (SELECT FROM found)
                -- Somebody committed the row after this statement began: `found` cannot see it, an update can.
                ON CONFLICT (prompt_hash) DO UPDATE SET created_at = prompts.created_at
                RETURNING {COLUMNS}
            )
            SELECT {COLUMNS} FROM found UNION ALL SELECT {COLUMNS} FROM written
            """,
            {
                "user_prompt": user_prompt,
                "system_prompt": system_prompt,
                "prompt_hash": prompt_hash(user_prompt, system_prompt),
            },
        )
        if (prompt.user_prompt, prompt.system_prompt) != (user_prompt, system_prompt):
            raise PromptHashCollision
        return prompt

    async def copy(self, prompts: Iterable[NewPrompt]) -> int:
        """Insert many new prompts through COPY and return how many."""
        return await copy_rows(
            self._conn,
            "prompts",
            ("user_prompt", "system_prompt", "prompt_hash"),
            ({**prompt, "prompt_hash": prompt_hash(**prompt)} for prompt in prompts),
        )

    async def get(self, prompt_id: int) -> Prompt | None:
        return await fetch_one(
            self._conn, Prompt, f"SELECT {COLUMNS} FROM prompts WHERE id = %(id)s", {"id": prompt_id}
        )

    async def list_page(self, limit: int, after: int = 0) -> list[Prompt]:
        """Return at most `limit` prompts whose id is above `after`, ordered by id."""
        return await fetch_all(
            self._conn,
            Prompt,
            f"SELECT {COLUMNS} FROM prompts WHERE id > %(after)s ORDER BY id LIMIT %(limit)s",
            {"after": after, "limit": limit},
        )

    async def list_summaries(self, limit: int, after: int = 0) -> list[PromptSummary]:
        """Return at most `limit` prompts whose id is above `after`, ordered by id."""
        return await fetch_all(
            self._conn,
            PromptSummary,
            """
            SELECT id, user_prompt, length(system_prompt), prompt_hash, created_at
            FROM prompts WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
            """,
            {"after": after, "limit": limit},
        )

    async def delete(self, prompt_id: int) -> bool:
        """Delete the prompt and, by cascade, its configs with their moments and runs; False where there is none."""
        cursor = await self._conn.execute("DELETE FROM prompts WHERE id = %(id)s", {"id": prompt_id})
        return cursor.rowcount == 1

    async def count(self) -> int:
        return int(await fetch_value(self._conn, "SELECT count(*) FROM prompts") or 0)
