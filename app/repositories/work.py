"""SQL over `pipeline.runs` and the runs it belongs to: accepted, claimed by one worker, recorded, ended."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import Rollback
from psycopg.rows import args_row
from psycopg.types.json import Jsonb

from app.core.errors import RunLost
from app.database import Connection
from app.models.run import ClaimedRun, RunRequest, RunStatus, StageRecord, StageStatus
from app.models.stages import RunType, Stage, list_stages, next_stage
from app.repositories.answers import AnswerRepository
from app.repositories.replaced import ReplacedRepository
from app.repositories.stored_runs import read_claimed
from app.repositories.videos import VideoRepository

_MOST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a run that was asked for: its id, or which other run is in its way."""

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
    """A run that has ended because nobody will end it otherwise."""

    identifier: str
    video: str


class WorkRepository:
    """Runs as workers see them. Everything that writes for a worker names the run as it was claimed."""

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
        """Add a run unless another one is in its way; None where there is no such video. `started_at` is naive UTC.

        Raises `UniqueViolation` of `pipeline_history_identifier_key` where the identifier is taken.
        """
        done = {stage for stage, record in (stages or {}).items() if record.is_done}
        async with self._conn.cursor(row_factory=args_row(Accepted)) as cursor:
            await cursor.execute(
                """
                SELECT run_id, other_type, other_subject
                FROM pipeline.accept_run(%(video)s, %(identifier)s, %(type)s, %(subject)s, %(stage)s,
                                         %(started_at)s, %(request)s, %(stages)s)
                """,
                {
                    "video": video,
                    "identifier": identifier,
                    "type": run_type,
                    "subject": subject,
                    "stage": next_stage(run_type, done) or list_stages(run_type)[-1],
                    "started_at": started_at,
                    "request": Jsonb(asdict(request)),
                    "stages": Jsonb({stage.value: asdict(record) for stage, record in (stages or {}).items()}),
                },
            )
            return await cursor.fetchone()

    async def claim(self, identifier: str, owner: str, stale_seconds: float) -> ClaimedRun | None:
        """Make a run that waits, or whose owner was not seen for `stale_seconds`, this owner's.

        None where there is nothing to claim: the run has ended, or lives in other hands. A run that this version of
        the code cannot read waits for another worker, and ends when it has been taken too often.
        """
        async with self._conn.transaction() as transaction:
            row = await self._take(identifier, owner, stale_seconds)
            # Who waits for the row of a run that ends takes it all the same: only that row is looked at again.
            if row and not await self._is_running(row[0]):
                row = None
                raise Rollback(transaction)
        if row is None:
            return None
        try:
            return read_claimed(*row)
        except (AttributeError, LookupError, TypeError, ValueError):
            if not await self._give_up(row[0], video=row[3]):
                raise
        return None

    async def _take(self, identifier: str, owner: str, stale_seconds: float) -> tuple[Any, ...] | None:
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET owner = %(owner)s, heartbeat_at = now() AT TIME ZONE 'utc', attempt = attempt + 1
            FROM pipeline_history AS history JOIN videos ON videos.id = history.video_id
            WHERE history.identifier = %(identifier)s AND history.status = 'running' AND runs.run_id = history.id
              AND (owner IS NULL OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stale_seconds)s))
            RETURNING history.id, history.identifier, history.video_id, videos.identifier, pipeline_type, subject,
                      request, stages, attempt, owner, extract(epoch FROM history.started_at)::float8
            """,
            {"identifier": identifier, "owner": owner, "stale_seconds": stale_seconds},
        )
        return await cursor.fetchone()

    async def _is_running(self, run_id: int) -> bool:
        cursor = await self._conn.execute(
            "SELECT FROM pipeline_history WHERE id = %(id)s AND status = 'running'", {"id": run_id}
        )
        return await cursor.fetchone() is not None

    async def _give_up(self, run_id: int, video: str) -> bool:
        """End a run that was taken too often. True where it has ended."""
        cursor = await self._conn.execute(
            "SELECT stage FROM pipeline.runs WHERE run_id = %(id)s AND attempt > %(most)s",
            {"id": run_id, "most": _MOST_ATTEMPTS},
        )
        row = await cursor.fetchone()
        if row is None:
            return False
        where = f"in stage '{row[0]}'" if row[0] else "before its first stage"
        reason = f"The worker died {_MOST_ATTEMPTS} times {where}"
        async with self._conn.transaction():
            await VideoRepository(self._conn).lock(video)
            await self._end(run_id, Outcome(RunStatus.FAILED, row[0], reason))
        return True

    async def hold(self, run: ClaimedRun) -> None:
        """Keep the run in its owner's hands until the transaction ends. Raises `RunLost` where it is not any more."""
        cursor = await self._conn.execute(
            """
            SELECT FROM pipeline.runs
            WHERE run_id = %(id)s AND owner = %(owner)s AND attempt = %(attempt)s
            FOR NO KEY UPDATE
            """,
            _key(run),
        )
        if await cursor.fetchone() is None:
            raise RunLost

    async def beat(self, run: ClaimedRun) -> bool:
        """Say that the owner lives and return whether the run is to be cancelled. Raises `RunLost`."""
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET heartbeat_at = now() AT TIME ZONE 'utc'
            WHERE run_id = %(id)s AND owner = %(owner)s AND attempt = %(attempt)s
            RETURNING cancel_requested
            """,
            _key(run),
        )
        row = await cursor.fetchone()
        if row is None:
            raise RunLost
        return bool(row[0])

    async def save_stage(self, run: ClaimedRun, stage: Stage, record: StageRecord) -> None:
        """Write what a stage has come to, which is then the current one unless it was skipped. Raises `RunLost`.

        While the stage is under way, what was noted with `add_result` stays.
        """
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs
            SET stages = jsonb_set(stages, ARRAY[%(stage)s], %(record)s || CASE WHEN %(is_under_way)s
                    THEN jsonb_build_object('result', coalesce(stages -> %(stage)s -> 'result', '{}'))
                    ELSE '{}' END),
                stage = CASE WHEN %(is_skipped)s THEN stage ELSE %(stage)s END
            WHERE run_id = %(id)s AND owner = %(owner)s AND attempt = %(attempt)s
            """,
            {
                **_key(run),
                "stage": stage.value,
                "record": Jsonb(asdict(record)),
                "is_skipped": record.status is StageStatus.SKIPPED,
                "is_under_way": record.is_under_way,
            },
        )
        if cursor.rowcount != 1:
            raise RunLost

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
        """Give the run back as if it had not been taken: it waits for another worker, or ends where it is to."""
        await VideoRepository(self._conn).lock(run.video)  # before the run, as one who deletes does
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET owner = NULL, heartbeat_at = NULL, notified_at = NULL, attempt = attempt - 1
            WHERE run_id = %(id)s AND owner = %(owner)s AND attempt = %(attempt)s
            RETURNING cancel_requested
            """,
            _key(run),
        )
        row = await cursor.fetchone()
        if row and row[0]:
            await self._end(run.id, Outcome(RunStatus.CANCELLED))

    async def finish(self, run: ClaimedRun, outcome: Outcome) -> set[str]:
        """End the run and return the URLs of files that nothing refers to any more; the caller holds the video.

        Raises `RunLost` where it is not its owner's any more.
        """
        await self.hold(run)
        return await self._end(run.id, outcome)

    async def cancel(self, run_id: int, stale_seconds: float) -> bool:
        """Have a run end as cancelled: at once where no worker has it, or one that was not seen for `stale_seconds`,
        else by its worker. True where it has ended."""
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET cancel_requested = true
            WHERE run_id = %(id)s
            RETURNING owner IS NULL
                      OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stale_seconds)s)
            """,
            {"id": run_id, "stale_seconds": stale_seconds},
        )
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return False
        await self._end(run_id, Outcome(RunStatus.CANCELLED))
        return True

    async def pick_waiting(self, stale_seconds: float, again_seconds: float) -> list[str]:
        """Return the identifiers of runs that wait for a worker and of which none was told for `again_seconds`.

        Those whose owner was not seen for `stale_seconds` wait too. They count as told now, so that of several
        workers that ask one rings for them.
        """
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET notified_at = now() AT TIME ZONE 'utc'
            FROM pipeline_history AS history
            WHERE history.id = runs.run_id AND history.status = 'running' AND runs.run_id IN (
                SELECT waiting.run_id
                FROM pipeline_history JOIN pipeline.runs AS waiting ON waiting.run_id = pipeline_history.id
                WHERE status = 'running'
                  AND (owner IS NULL OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stale)s))
                  AND (notified_at IS NULL OR notified_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(again)s))
                FOR NO KEY UPDATE OF waiting SKIP LOCKED
            )
            RETURNING history.identifier
            """,
            {"stale": stale_seconds, "again": again_seconds},
        )
        return [identifier for (identifier,) in await cursor.fetchall()]

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
    return {"id": run.id, "owner": run.owner, "attempt": run.attempt}
