"""A worker as job queues on PostgreSQL alone have it: LISTEN, and a claim of the oldest job with SKIP LOCKED.

A job is one row. It is added and announced in one statement, claimed in a second one and ended in a third. There is no
heartbeat, no takeover of another worker's jobs, no limit over all workers and no cancel.
"""

import asyncio
import os
import sys
import time

import psycopg

CREATE = """
    CREATE TABLE jobs (
        id          bigint           GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        status      text             NOT NULL DEFAULT 'todo',  -- todo -> doing -> done
        accepted_at double precision NOT NULL,
        started_at  double precision
    );
    CREATE INDEX ON jobs (id) WHERE status = 'todo'
    """
ACCEPT = """
    WITH accepted AS (INSERT INTO jobs (accepted_at) VALUES (%s) RETURNING id)
    SELECT pg_notify('jobs', id::text) FROM accepted
    """
DELAYS = "SELECT started_at - accepted_at FROM jobs WHERE status = 'done' AND id > %s"
_CLAIM = """
    UPDATE jobs SET status = 'doing'
    WHERE id = (SELECT id FROM jobs WHERE status = 'todo' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id
    """
_END = "UPDATE jobs SET status = 'done', started_at = %s WHERE id = %s"
_POLL_SECONDS = 5.0  # between two looks for jobs of which no notification came


async def _work(url: str) -> None:
    """Do one job after the other, on two connections: one is notified, the other one claims."""
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as listener,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as conn,
    ):
        await listener.execute("LISTEN jobs")
        while True:
            while job := await (await conn.execute(_CLAIM)).fetchone():
                await conn.execute(_END, [time.time(), *job])
            async for _ in listener.notifies(timeout=_POLL_SECONDS, stop_after=1):
                pass


async def main() -> None:
    await asyncio.gather(*(_work(os.environ["DATABASE_URL"]) for _ in range(int(sys.argv[1]))))


if __name__ == "__main__":
    asyncio.run(main())
