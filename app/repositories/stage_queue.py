"""The queue: runs and the stage that each is at; accepted, claimed by one worker, recorded, ended.

SQL over `pipeline.runs` and `pipeline_history`.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from psycopg.rows import args_row
from psycopg.types.json import Jsonb

from app.core.errors import RunLost
from app.database import Connection
from app.models.run import ClaimedRun, RunRequest, RunStatus, StageRecord, StageStatus
from app.models.stages import STAGE_TABLE, RunType, Stage, WorkKind, list_stages, next_stage
from app.repositories.answers import AnswerRepository
from app.repositories.replaced import ReplacedRepository
from app.repositories.stored_runs import read_claimed
from app.repositories.videos import VideoRepository

_PICKED_AT_ONCE = 1000
_UNREAD_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a run that was asked for: its id, or which other run excludes it."""

    run_id: int | None
    other_type: str | None
    other_subject: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    status: RunStatus
    error_stage: str | None = None
    error_message: str | None = None
    moments: int | None = None
    clips: int | None = None


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that has ended because no worker can end it."""

    identifier: str
    video: str


@dataclass(frozen=True, slots=True)
class HeldStage:
    """A stage that a worker has claimed, as PostgreSQL has it."""

    run_id: int
    stage: str
    attempt: int
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class WaitingStage:
    """A run by its identifier, and the stage that it waits at."""

    identifier: str
    stage: Stage


def first_stage(run_type: RunType, records: Mapping[Stage, StageRecord]) -> Stage:
    """Return the stage that is next in a run with these records; the last one where each is done."""
    done = {stage for stage, record in records.items() if record.is_done}
    return next_stage(run_type, done) or list_stages(run_type)[-1]


class StageQueueRepository:
    """Runs as workers see them. What a worker writes names the run, the stage, the owner and the attempt as it was
    claimed, so a worker that was frozen writes nothing for a stage that it has lost."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def accept(
        self,
        video: str,
        identifier: str,
        run_type: RunType,
        started_at: datetime,
        request: RunRequest,
        subject: str = "",
        stages: Mapping[Stage, StageRecord] | None = None,
    ) -> Accepted | None:
        """Add a run unless another one excludes it; None where there is no such video. `started_at` is naive UTC.

        Raises `UniqueViolation` of `pipeline_history_identifier_key` where the identifier is taken.
        """
        async with self._conn.cursor(row_factory=args_row(Accepted)) as cursor:
            await cursor.execute(
                """
                SELECT run_id, other_type, other_subject
                FROM pipeline.accept_run(%(video)s, %(identifier)s, %(type)s, %(subject)s, %(stage)s, %(started_at)s,
                                         %(request)s, %(stages)s)
                """,
                {
                    "video": video,
                    "identifier": identifier,
                    "type": run_type,
                    "subject": subject,
                    "stage": first_stage(run_type, stages or {}).value,
                    "started_at": started_at,
                    "request": Jsonb(asdict(request)),
                    "stages": Jsonb({stage.value: asdict(record) for stage, record in (stages or {}).items()}),
                },
            )
            return await cursor.fetchone()

    async def claim(
        self, identifier: str, stage: Stage, owner: str, stalled_after: float, limit: int | None = None
    ) -> ClaimedRun | None:
        """Make a stage that waits, or whose owner was not seen for `stalled_after` seconds, this owner's.

        None where there is nothing to claim: the run is elsewhere or has ended, another worker has it, or `limit`
        workers are at that stage already. A run that this version of the code cannot read is left to another
        worker, and ends when it was claimed too often.
        """
        cursor = await self._conn.execute(
            """
            SELECT verdict, id, identifier, video_id, video, pipeline_type, subject, request, stages, stage, attempt,
                   owner, started_at
            FROM pipeline.claim_stage(%(run)s, %(stage)s, %(owner)s, %(stalled_after)s, %(limit)s)
            """,
            {
                "run": identifier,
                "stage": stage.value,
                "owner": owner,
                "stalled_after": stalled_after,
                "limit": limit,
            },
        )
        row = await cursor.fetchone()
        if row is None or row[0] != "claimed":
            return None
        try:
            return read_claimed(*row[1:])
        except (AttributeError, LookupError, TypeError, ValueError):
            if row[10] <= STAGE_TABLE[stage].retry.attempts:
                raise
        reason = f"The worker died {row[10] - 1} times in stage '{stage}'"
        async with self._conn.transaction():
            await VideoRepository(self._conn).lock(row[4])
            await self._end(row[1], Outcome(RunStatus.FAILED, stage, reason))
        return None

    async def hold(self, run: ClaimedRun) -> None:
        """Keep the stage in its owner's hands until the transaction ends. Raises `RunLost` where it is not any more."""
        cursor = await self._conn.execute(
            """
            SELECT FROM pipeline.runs
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            FOR NO KEY UPDATE
            """,
            _key(run),
        )
        if await cursor.fetchone() is None:
            raise RunLost

    async def heartbeat(self, owner: str, run_ids: Collection[int]) -> None:
        """Record that a worker lives, in the runs that it works on.

        A row that one of the worker's own transactions holds is left out: it gets the next heartbeat.
        """
        await self._conn.execute(
            """
            UPDATE pipeline.runs SET heartbeat_at = now() AT TIME ZONE 'utc'
            WHERE run_id IN (
                SELECT run_id FROM pipeline.runs
                WHERE owner = %(owner)s AND run_id = ANY(%(ids)s)
                FOR NO KEY UPDATE SKIP LOCKED
            )
            """,
            {"owner": owner, "ids": list(run_ids)},
        )

    async def list_held(self, owner: str) -> list[HeldStage]:
        """Return the stages that a worker has claimed, and whether their runs are to be cancelled."""
        async with self._conn.cursor(row_factory=args_row(HeldStage)) as cursor:
            await cursor.execute(
                "SELECT run_id, stage, attempt, cancel_requested FROM pipeline.runs WHERE owner = %(owner)s",
                {"owner": owner},
            )
            return await cursor.fetchall()

    async def save_record(self, run: ClaimedRun, record: StageRecord) -> None:
        """Write the record of the claimed stage. Raises `RunLost`.

        While the stage is under way, what was noted with `add_result` stays.
        """
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET stages = jsonb_set(stages, ARRAY[stage::text], %(record)s || CASE WHEN %(is_under_way)s
                    THEN jsonb_build_object('result', coalesce(stages -> stage -> 'result', '{}'))
                    ELSE '{}' END)
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            """,
            {**_key(run), "record": Jsonb(asdict(record)), "is_under_way": record.is_under_way},
        )
        if cursor.rowcount != 1:
            raise RunLost

    async def advance(self, run: ClaimedRun, record: StageRecord, next_stage: Stage, *, keep: bool) -> bool:
        """Write the record of a stage that is done and move the run to its next stage, which waits for a worker.

        With `keep` the next stage stays with its owner, as its first attempt. False where the run is to be cancelled,
        and nothing was written. Raises `RunLost`.
        """
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET stages = stages || jsonb_build_object(stage, %(record)s)
                    || CASE WHEN %(keep)s THEN '{}' ELSE jsonb_build_object(%(next)s::text, %(waiting)s) END,
                stage = %(next)s, last_error = NULL, notified_at = now() AT TIME ZONE 'utc',
                attempt = CASE WHEN %(keep)s THEN 1 ELSE 0 END,
                owner = CASE WHEN %(keep)s THEN owner END,
                heartbeat_at = CASE WHEN %(keep)s THEN now() AT TIME ZONE 'utc' END
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
              AND NOT cancel_requested
            """,
            {
                **_key(run),
                "record": Jsonb(asdict(record)),
                "waiting": Jsonb(asdict(StageRecord(StageStatus.WAITING))),
                "next": next_stage.value,
                "keep": keep,
            },
        )
        if cursor.rowcount == 1 or await self._has_advanced(run, next_stage, keep=keep):
            return True
        await self.hold(run)
        return False

    async def _has_advanced(self, run: ClaimedRun, next_stage: Stage, *, keep: bool) -> bool:
        """Whether the run is at its next stage already, as after a commit whose answer was lost."""
        cursor = await self._conn.execute(
            """
            SELECT FROM pipeline.runs
            WHERE run_id = %(id)s AND stage = %(next)s AND owner IS NOT DISTINCT FROM %(next_owner)s
              AND attempt = %(next_attempt)s
            """,
            {
                "id": run.id,
                "next": next_stage.value,
                "next_owner": run.owner if keep else None,
                "next_attempt": 1 if keep else 0,
            },
        )
        return await cursor.fetchone() is not None

    async def start_attempt(self, run: ClaimedRun, error: str) -> ClaimedRun:
        """Count another attempt at the claimed stage after one that failed with `error`, and return it. Raises
        `RunLost`."""
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET attempt = attempt + 1, last_error = %(error)s
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            """,
            {**_key(run), "error": error},
        )
        if cursor.rowcount != 1:
            raise RunLost
        return replace(run, attempt=run.attempt + 1)

    async def get_last_error(self, run: ClaimedRun) -> str | None:
        """Return why the attempt before the claimed one failed, None where its worker died."""
        cursor = await self._conn.execute("SELECT last_error FROM pipeline.runs WHERE run_id = %(id)s", {"id": run.id})
        row = await cursor.fetchone()
        return row[0] if row else None

    async def get_result(self, run: ClaimedRun, stage: Stage) -> dict[str, Any]:
        """Return what the run has noted so far as the result of a stage, by whichever worker."""
        cursor = await self._conn.execute(
            "SELECT stages -> %(stage)s -> 'result' FROM pipeline.runs WHERE run_id = %(id)s",
            {"stage": stage.value, "id": run.id},
        )
        row = await cursor.fetchone()
        return (row and row[0]) or {}

    async def add_result(self, run: ClaimedRun, stage: Stage, values: Mapping[str, Any]) -> None:
        """Add values to the result of a stage that is not done yet, for a worker that takes the run over."""
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

    async def set_config(self, run: ClaimedRun, generation_config_id: int) -> None:
        """Say which generation config the run uses."""
        await self._conn.execute(
            "UPDATE pipeline_history SET generation_config_id = %(config)s WHERE id = %(id)s",
            {"config": generation_config_id, "id": run.id},
        )

    async def set_first_config(self, run: ClaimedRun, generation_config_id: int) -> None:
        """Say which generation config the run uses, unless it has named one."""
        await self._conn.execute(
            """
            UPDATE pipeline_history SET generation_config_id = %(config)s
            WHERE id = %(id)s AND generation_config_id IS NULL
            """,
            {"config": generation_config_id, "id": run.id},
        )

    async def keep_raw_answer(self, run: ClaimedRun, raw: str) -> None:
        """Keep what a model answered that could not be used. U+0000, which no text here can hold, goes."""
        await self._conn.execute(
            "UPDATE pipeline.runs SET raw_answer = %(raw)s WHERE run_id = %(id)s",
            {"raw": raw.replace("\x00", ""), "id": run.id},
        )

    async def release(self, run: ClaimedRun) -> None:
        """Give the stage back as if it had not been claimed: it waits for another worker, or the run ends where that
        was asked for."""
        await VideoRepository(self._conn).lock(run.video)  # before the run, as a deletion does
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET owner = NULL, heartbeat_at = NULL, notified_at = NULL,
                attempt = greatest(attempt - 1, 0)
            WHERE run_id = %(id)s AND owner = %(owner)s AND stage = %(stage)s AND attempt = %(attempt)s
            RETURNING cancel_requested
            """,
            _key(run),
        )
        row = await cursor.fetchone()
        if row and row[0]:
            await self._end(run.id, Outcome(RunStatus.CANCELLED))

    async def finish(self, run: ClaimedRun, outcome: Outcome, record: StageRecord | None = None) -> set[str]:
        """Write the record of the claimed stage, end the run and return the URLs of files that nothing refers to any
        more; the caller holds the video. Raises `RunLost` where another worker has the stage."""
        await self.hold(run)
        if record is not None:
            await self.save_record(run, record)
        return await self._end(run.id, outcome)

    async def request_cancel(self, run_id: int, stalled_after: float) -> bool:
        """Have a run end as cancelled: at once where no worker has it, or one that was not seen for `stalled_after`
        seconds, else by its worker. True where it has ended."""
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET cancel_requested = true
            WHERE run_id = %(id)s
            RETURNING owner IS NULL
                      OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s)
            """,
            {"id": run_id, "stalled_after": stalled_after},
        )
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return False
        await self._end(run_id, Outcome(RunStatus.CANCELLED))
        return True

    async def pick_waiting(
        self, stalled_after: float, again_after: float, unread: Collection[WorkKind] = ()
    ) -> list[WaitingStage]:
        """Return stages that wait for a worker, or whose owner is stalled, and of which no message was sent for
        `again_after` seconds; a message counts as sent now. At most a thousand, the longest without one first.

        Of kinds that have `unread` messages the one of a stage is likely among them: ten times as long.
        """
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET notified_at = now() AT TIME ZONE 'utc'
            FROM pipeline_history AS history
            WHERE history.id = runs.run_id AND history.status = 'running' AND runs.run_id IN (
                SELECT waiting.run_id
                FROM pipeline_history JOIN pipeline.runs AS waiting ON waiting.run_id = pipeline_history.id
                WHERE status = 'running'
                  AND (owner IS NULL
                       OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s))
                  AND (notified_at IS NULL
                       OR notified_at < now() AT TIME ZONE 'utc' - make_interval(
                           secs => %(again_after)s * CASE WHEN stage = ANY(%(unread)s) THEN %(patience)s ELSE 1 END))
                  AND stage = ANY(%(known)s)
                ORDER BY notified_at NULLS FIRST, waiting.run_id
                LIMIT %(most)s
                FOR NO KEY UPDATE OF waiting SKIP LOCKED
            )
            RETURNING history.identifier, stage
            """,
            {
                "stalled_after": stalled_after,
                "again_after": again_after,
                "unread": _list_stages_of(unread),
                "patience": _UNREAD_PATIENCE,
                "known": _list_stages_of(list(WorkKind)),
                "most": _PICKED_AT_ONCE,
            },
        )
        return _read_waiting(await cursor.fetchall())

    async def pick_next(self, stage: Stage) -> WaitingStage | None:
        """Return the run that waits at a stage for the longest time without a message, which counts as sent now."""
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET notified_at = now() AT TIME ZONE 'utc'
            FROM pipeline_history AS history
            WHERE history.id = runs.run_id AND runs.run_id = (
                SELECT waiting.run_id
                FROM pipeline_history JOIN pipeline.runs AS waiting ON waiting.run_id = pipeline_history.id
                WHERE status = 'running' AND owner IS NULL AND stage = %(stage)s
                ORDER BY notified_at NULLS FIRST, waiting.run_id
                LIMIT 1
                FOR NO KEY UPDATE OF waiting SKIP LOCKED
            )
            RETURNING history.identifier, stage
            """,
            {"stage": stage.value},
        )
        return next(iter(_read_waiting(await cursor.fetchall())), None)

    async def list_waiting(self, kinds: Collection[WorkKind], stalled_after: float, limit: int) -> list[WaitingStage]:
        """Return at most `limit` stages of some kinds that wait for a worker, or whose owner is stalled, the longest
        accepted first."""
        cursor = await self._conn.execute(
            """
            SELECT identifier, stage
            FROM pipeline_history JOIN pipeline.runs ON runs.run_id = pipeline_history.id
            WHERE status = 'running' AND stage = ANY(%(stages)s)
              AND (owner IS NULL OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s))
            ORDER BY run_id
            LIMIT %(limit)s
            """,
            {
                "stages": _list_stages_of(kinds),
                "stalled_after": stalled_after,
                "limit": limit,
            },
        )
        return _read_waiting(await cursor.fetchall())

    async def list_running(self) -> set[str]:
        """Return the identifiers of all runs that have not ended."""
        cursor = await self._conn.execute("SELECT identifier FROM pipeline_history WHERE status = 'running'")
        return {identifier for (identifier,) in await cursor.fetchall()}

    async def end_orphans(self) -> list[EndedRun]:
        """End the runs that no worker can take, because what they were asked for is not known."""
        async with self._conn.cursor(row_factory=args_row(EndedRun)) as cursor:
            await cursor.execute(
                """
                UPDATE pipeline_history AS history
                SET status = 'failed', error_message = 'The run was left by an earlier version of this server',
                    completed_at = now() AT TIME ZONE 'utc'
                FROM videos
                WHERE history.status = 'running' AND videos.id = history.video_id
                  AND NOT EXISTS (SELECT FROM pipeline.runs WHERE run_id = history.id)
                RETURNING history.identifier, videos.identifier
                """
            )
            return await cursor.fetchall()

    async def _end(self, run_id: int, outcome: Outcome) -> set[str]:
        """End the run: what it has replaced is gone where it has completed, and comes back where it has not."""
        if outcome.status is RunStatus.COMPLETED:
            await AnswerRepository(self._conn).forget(run_id)
        replaced = ReplacedRepository(self._conn)
        if outcome.status in (RunStatus.COMPLETED, RunStatus.PARTIAL):
            files = await replaced.forget(run_id)
        elif (unused := await replaced.restore(run_id)) is None:
            files = set()
        else:
            files, outcome = unused, replace(outcome, moments=0, clips=0)
            await self._conn.execute(
                """
                UPDATE pipeline.runs SET stages = jsonb_set(stages, '{generation,result,is_undone}', 'true')
                WHERE run_id = %(id)s
                """,
                {"id": run_id},
            )
        await self._conn.execute(
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


def _key(run: ClaimedRun) -> dict[str, Any]:
    return {"id": run.id, "owner": run.owner, "stage": run.stage.value, "attempt": run.attempt}


def _list_stages_of(kinds: Collection[WorkKind]) -> list[str]:
    return [stage.value for stage, row in STAGE_TABLE.items() if row.kind in kinds]


def _read_waiting(rows: Collection[tuple[str, str]]) -> list[WaitingStage]:
    """Return the stages that this version of the code knows."""
    return [WaitingStage(identifier, Stage(stage)) for identifier, stage in rows if stage in STAGE_TABLE]
