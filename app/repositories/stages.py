"""What the worker that has claimed a stage writes: the stage's record, attempts and result, and the end of the run.

SQL over `pipeline.runs`, `pipeline_history` and `pipeline.answers`.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from psycopg.types.json import Jsonb

from app.core.errors import RunLost
from app.database import Connection
from app.database.queries import Repository, exists, fetch_value
from app.models.runs import ClaimedRun, RunOutcome, RunStatus, StageRecord, StageStatus
from app.models.stages import Stage
from app.repositories.contents import ReplacedMomentsRepository
from app.repositories.videos import VideoRepository


class ModelAnswerRepository(Repository):
    """Answers of models to active runs, so that a retry does not pay again; the question is all an answer depends on.

    The caller has locked the run.
    """

    async def store_answer(self, run_id: int, question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        await self._conn.execute(
            """
            INSERT INTO pipeline.answers (run_id, question, answer) VALUES (%(run_id)s, %(question)s, %(answer)s)
            ON CONFLICT (run_id, question) DO UPDATE SET answer = excluded.answer
            """,
            {"run_id": run_id, "question": Jsonb(question), "answer": Jsonb(answer)},
        )

    async def find_answer(self, run_id: int, question: Mapping[str, Any]) -> dict[str, Any] | None:
        return await fetch_value(
            self._conn,
            "SELECT answer FROM pipeline.answers WHERE run_id = %(run_id)s AND question = %(question)s",
            {"run_id": run_id, "question": Jsonb(question)},
        )

    async def copy_answers_to_retry(self, run_identifier: str, retry_identifier: str) -> None:
        await self._conn.execute(
            """
            INSERT INTO pipeline.answers (run_id, question, answer)
            SELECT retry.id, question, answer
            FROM pipeline_history AS ended
            JOIN pipeline.answers ON run_id = ended.id
            JOIN pipeline_history AS retry ON retry.identifier = %(retry)s
            WHERE ended.identifier = %(identifier)s
            """,
            {"identifier": run_identifier, "retry": retry_identifier},
        )

    async def delete_answers(self, run_id: int) -> None:
        await self._conn.execute("DELETE FROM pipeline.answers WHERE run_id = %(run_id)s", {"run_id": run_id})


class ClaimedRunRepository(Repository):
    """What a worker writes for its claimed stage; nothing where another worker has claimed the stage since."""

    async def lock_claim(self, run: ClaimedRun) -> None:
        """Lock the row of the run. Raises `RunLost` where the worker's claim has ended."""
        if not await exists(
            self._conn,
            """
            SELECT FROM pipeline.runs
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            FOR NO KEY UPDATE
            """,
            _make_claim_query_parameters(run),
        ):
            raise RunLost

    async def save_stage_record(self, run: ClaimedRun, record: StageRecord) -> None:
        """Write the record of the claimed stage; while it is in progress, its result is kept. Raises `RunLost`."""
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET stages = jsonb_set(stages, ARRAY[stage::text], %(record)s || CASE WHEN %(is_in_progress)s
                    THEN jsonb_build_object('result', coalesce(stages -> stage -> 'result', '{}'))
                    ELSE '{}' END)
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            """,
            {
                **_make_claim_query_parameters(run),
                "record": Jsonb(asdict(record)),
                "is_in_progress": record.is_waiting_or_processing,
            },
        )
        if cursor.rowcount != 1:
            raise RunLost

    async def advance_run(self, run: ClaimedRun, record: StageRecord, next_stage: Stage, *, keep_claim: bool) -> bool:
        """Write the record of a finished stage and move the run to its next stage; raises `RunLost`.

        The next stage waits for a worker, or with `keep_claim` stays with the same owner. Return False, and write
        nothing, where a cancellation was requested.
        """
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET stages = stages || jsonb_build_object(stage, %(record)s)
                    || CASE WHEN %(keep_claim)s THEN '{}' ELSE jsonb_build_object(%(next)s::text, %(waiting)s) END,
                stage = %(next)s, last_error = NULL, notified_at = now() AT TIME ZONE 'utc',
                attempt = CASE WHEN %(keep_claim)s THEN 1 ELSE 0 END,
                owner = CASE WHEN %(keep_claim)s THEN owner END,
                heartbeat_at = CASE WHEN %(keep_claim)s THEN now() AT TIME ZONE 'utc' END
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
              AND NOT cancel_requested
            """,
            {
                **_make_claim_query_parameters(run),
                "record": Jsonb(asdict(record)),
                "waiting": Jsonb(asdict(StageRecord(StageStatus.WAITING))),
                "next": next_stage.value,
                "keep_claim": keep_claim,
            },
        )
        if cursor.rowcount == 1 or await self._has_run_already_advanced(run, next_stage, keep_claim=keep_claim):
            return True
        await self.lock_claim(run)
        return False

    async def _has_run_already_advanced(self, run: ClaimedRun, next_stage: Stage, *, keep_claim: bool) -> bool:
        return await exists(
            self._conn,
            """
            SELECT FROM pipeline.runs
            WHERE run_id = %(id)s AND stage = %(next)s AND owner IS NOT DISTINCT FROM %(next_owner)s
              AND attempt = %(next_attempt)s
            """,
            {
                "id": run.id,
                "next": next_stage.value,
                "next_owner": run.owner if keep_claim else None,
                "next_attempt": 1 if keep_claim else 0,
            },
        )

    async def start_next_attempt(self, run: ClaimedRun, error: str) -> ClaimedRun:
        """Count another attempt and store the error of the last one; return the run with it. Raises `RunLost`."""
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET attempt = attempt + 1, last_error = %(error)s
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            """,
            {**_make_claim_query_parameters(run), "error": error},
        )
        if cursor.rowcount != 1:
            raise RunLost
        return replace(run, attempt=run.attempt + 1)

    async def get_error_of_last_attempt(self, run: ClaimedRun) -> str | None:
        return await fetch_value(
            self._conn, "SELECT last_error FROM pipeline.runs WHERE run_id = %(id)s", {"id": run.id}
        )

    async def get_stage_result(self, run: ClaimedRun, stage: Stage) -> dict[str, Any]:
        statement = "SELECT stages -> %(stage)s -> 'result' FROM pipeline.runs WHERE run_id = %(id)s"
        return await fetch_value(self._conn, statement, {"stage": stage.value, "id": run.id}) or {}

    async def merge_stage_result(self, run: ClaimedRun, stage: Stage, values: Mapping[str, Any]) -> None:
        await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET stages = jsonb_set(
                stages, ARRAY[%(stage)s], coalesce(stages -> %(stage)s, '{"status": "processing"}')
                || jsonb_build_object('result', coalesce(stages -> %(stage)s -> 'result', '{}') || %(values)s))
            WHERE run_id = %(id)s
            """,
            {"stage": stage.value, "values": Jsonb(values), "id": run.id},
        )

    async def set_generation_config(self, run: ClaimedRun, config_id: int, *, only_if_unset: bool = False) -> None:
        await self._conn.execute(
            """
            UPDATE pipeline_history SET generation_config_id = %(config)s
            WHERE id = %(id)s AND (generation_config_id IS NULL OR NOT %(only_if_unset)s)
            """,
            {"config": config_id, "id": run.id, "only_if_unset": only_if_unset},
        )

    async def store_unusable_answer(self, run: ClaimedRun, answer_text: str) -> None:
        await self._conn.execute(
            "UPDATE pipeline.runs SET raw_answer = %(raw)s WHERE run_id = %(id)s",
            {"raw": answer_text.replace("\x00", ""), "id": run.id},
        )

    async def release_stage(self, run: ClaimedRun) -> None:
        """Return the stage to the queue without counting the attempt, or end a run whose cancellation was requested."""
        await VideoRepository(self._conn).lock_video(run.video)  # the same order of locks as a deletion
        is_cancelled = await fetch_value(
            self._conn,
            """
            UPDATE pipeline.runs SET owner = NULL, heartbeat_at = NULL, notified_at = NULL,
                attempt = greatest(attempt - 1, 0)
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            RETURNING cancel_requested
            """,
            _make_claim_query_parameters(run),
        )
        if is_cancelled:
            await end_run(self._conn, run.id, RunOutcome(RunStatus.CANCELLED))

    async def finish_run(self, run: ClaimedRun, outcome: RunOutcome, record: StageRecord | None = None) -> set[str]:
        """End the run; return the URLs of files that no row refers to any more. Raises `RunLost`."""
        await self.lock_claim(run)
        if record is not None:
            await self.save_stage_record(run, record)
        return await end_run(self._conn, run.id, outcome)


async def end_run(conn: Connection, run_id: int, outcome: RunOutcome) -> set[str]:
    """End a run; discard or restore its replaced moments; return the URLs of files that no row refers to any more."""
    if outcome.status is RunStatus.COMPLETED:
        await ModelAnswerRepository(conn).delete_answers(run_id)
    replaced = ReplacedMomentsRepository(conn)
    if outcome.status in (RunStatus.COMPLETED, RunStatus.PARTIAL):
        files = await replaced.discard_set_aside_rows_of_run(run_id)
    elif (unused := await replaced.restore_moments(run_id)) is None:
        files = set()
    else:
        files, outcome = unused, replace(outcome, moments=0, clips=0)
        await conn.execute(
            """
            UPDATE pipeline.runs SET stages = jsonb_set(stages, '{generation,result,is_undone}', 'true')
            WHERE run_id = %(id)s
            """,
            {"id": run_id},
        )
    await conn.execute(
        """
        WITH ended AS (
            UPDATE pipeline_history
            SET status = %(status)s, completed_at = now() AT TIME ZONE 'utc',
                duration_seconds = extract(epoch FROM now() AT TIME ZONE 'utc' - started_at),
                total_moments_generated = coalesce(%(moments)s, total_moments_generated),
                total_clips_created = coalesce(%(clips)s, total_clips_created),
                error_stage = %(error_stage)s, error_message = %(error_message)s
            WHERE id = %(id)s AND status = 'running'
        )
        UPDATE pipeline.runs
        SET owner = NULL,
            callback_due_at = CASE callback_status WHEN 'waiting' THEN now() AT TIME ZONE 'utc' END
        WHERE run_id = %(id)s
        """,
        {**asdict(outcome), "id": run_id},
    )
    return files


def _make_claim_query_parameters(run: ClaimedRun) -> dict[str, Any]:
    return {"id": run.id, "owner": run.owner, "stage": run.stage.value, "attempt": run.attempt}
