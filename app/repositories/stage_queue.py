"""The queue of stages: enqueue a run, notify and claim its stages, cancel it.

SQL over `pipeline.runs` and `pipeline_history`.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from app.database.queries import Repository, fetch_all, fetch_one, fetch_value
from app.models.runs import ClaimedRun, RunOutcome, RunRequest, RunStatus, StageRecord, next_stage
from app.models.stages import STAGE_TABLE, RunType, Stage, WorkKind
from app.repositories.runs import parse_claimed_run
from app.repositories.stages import end_run
from app.repositories.videos import VideoRepository

_MAX_TAKEN = 1000
_UNREAD_DELAY_FACTOR = 10


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    """The id of the enqueued run, or type and moment of the active run that conflicts with it."""

    run_id: int | None
    conflicting_type: str | None
    conflicting_moment: str | None


@dataclass(frozen=True, slots=True)
class OrphanedRun:
    """A run that an earlier version left running, without a request, and that is marked as failed."""

    identifier: str
    video: str


@dataclass(frozen=True, slots=True)
class ClaimedStage:
    """A stage that a worker has claimed, and whether the cancellation of its run was requested."""

    run_id: int
    stage: str
    cancel_requested: bool


@dataclass(frozen=True, slots=True)
class WaitingStage:
    """A run by its identifier, and the stage that it waits at."""

    identifier: str
    stage: Stage


class StageQueueRepository(Repository):
    """Stages that wait for a worker, and the claims of workers."""

    async def enqueue_run(
        self,
        video_identifier: str,
        run_identifier: str,
        run_type: RunType,
        started_at: datetime,
        request: RunRequest,
        subject: str = "",
        stages: Mapping[Stage, StageRecord] | None = None,
    ) -> EnqueueResult | None:
        """Insert a run unless an active one conflicts; None where the video does not exist. `started_at` is UTC."""
        return await fetch_one(
            self._conn,
            EnqueueResult,
            """
            SELECT run_id, other_type, other_subject
            FROM pipeline.accept_run(%(video)s, %(identifier)s, %(type)s, %(subject)s, %(stage)s, %(started_at)s,
                                     %(request)s, %(stages)s)
            """,
            {
                "video": video_identifier,
                "identifier": run_identifier,
                "type": run_type,
                "subject": subject,
                "stage": next_stage(run_type, stages or {}).value,
                "started_at": started_at,
                "request": Jsonb(asdict(request)),
                "stages": Jsonb({stage.value: asdict(record) for stage, record in (stages or {}).items()}),
            },
        )

    async def claim_stage(
        self, run_identifier: str, stage: Stage, owner: str, stalled_after: float, limit: int | None = None
    ) -> ClaimedRun | None:
        """Claim a stage that waits, or whose owner sent no heartbeat for `stalled_after` seconds; None if not possible.

        None where the run is at another stage or has ended, where another worker has it, or where `limit` workers are
        at that stage. A run that this version cannot read is left to other workers, and fails once it was claimed too
        often.
        """
        cursor = await self._conn.execute(
            """
            SELECT verdict, id, identifier, video_id, video, pipeline_type, subject, request, stages, stage, attempt,
                   owner, started_at
            FROM pipeline.claim_stage(%(run)s, %(stage)s, %(owner)s, %(stalled_after)s, %(limit)s)
            """,
            {
                "run": run_identifier,
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
            return parse_claimed_run(row[1:])
        except (AttributeError, LookupError, TypeError, ValueError):
            if row[10] <= STAGE_TABLE[stage].retry.attempts:
                raise
        reason = f"The worker died {row[10] - 1} times in stage '{stage}'"
        async with self._conn.transaction():
            await VideoRepository(self._conn).lock_video(row[4])
            await end_run(self._conn, row[1], RunOutcome(RunStatus.FAILED, stage, reason))
        return None

    async def store_heartbeat(self, owner: str, run_ids: Collection[int]) -> None:
        """Store a heartbeat in the claimed runs of a worker, except in rows that its own transactions have locked."""
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

    async def list_claimed_stages(self, owner: str) -> list[ClaimedStage]:
        return await fetch_all(
            self._conn,
            ClaimedStage,
            "SELECT run_id, stage, cancel_requested FROM pipeline.runs WHERE owner = %(owner)s",
            {"owner": owner},
        )

    async def request_cancel(self, run_id: int, stalled_after: float) -> bool:
        """Cancel a run, at once where its worker is missing or stalled, else by its worker; return whether it ended."""
        ends_at_once = await fetch_value(
            self._conn,
            """
            UPDATE pipeline.runs SET cancel_requested = true
            WHERE run_id = %(id)s
            RETURNING owner IS NULL
                      OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s)
            """,
            {"id": run_id, "stalled_after": stalled_after},
        )
        if ends_at_once:
            await end_run(self._conn, run_id, RunOutcome(RunStatus.CANCELLED))
        return bool(ends_at_once)

    async def take_unnotified_stages(
        self, stalled_after: float, renotify_after: float, kinds_with_unread_messages: Collection[WorkKind] = ()
    ) -> list[WaitingStage]:
        """Mark waiting and stalled stages as notified, and return at most a thousand, those that wait longest first.

        They had no message in the last `renotify_after` seconds. For kinds with unread messages the time is ten times
        as long, because theirs is probably among those.
        """
        return await self._mark_stages_notified(
            _list_stages_of_kinds(list(WorkKind)),
            stalled_after,
            _MAX_TAKEN,
            renotify_after,
            _list_stages_of_kinds(kinds_with_unread_messages),
        )

    async def take_next_waiting_stage(self, stage: Stage, stalled_after: float) -> WaitingStage | None:
        """Return the run that waits longest at a stage, marked as notified; None where none waits."""
        return next(iter(await self._mark_stages_notified([stage.value], stalled_after, 1)), None)

    async def _mark_stages_notified(
        self,
        stages: Collection[str],
        stalled_after: float,
        limit: int,
        renotify_after: float | None = None,
        unread_stages: Collection[str] = (),
    ) -> list[WaitingStage]:
        cursor = await self._conn.execute(
            """
            UPDATE pipeline.runs SET notified_at = now() AT TIME ZONE 'utc'
            FROM pipeline_history AS history
            WHERE history.id = runs.run_id AND history.status = 'running' AND runs.run_id = ANY (ARRAY(
                SELECT waiting.run_id
                FROM pipeline_history JOIN pipeline.runs AS waiting ON waiting.run_id = pipeline_history.id
                WHERE status = 'running' AND stage = ANY(%(stages)s)
                  AND (owner IS NULL
                       OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s))
                  AND (%(renotify_after)s::float8 IS NULL OR notified_at IS NULL
                       OR notified_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(renotify_after)s)
                          * CASE WHEN owner IS NULL AND stage = ANY(%(unread)s) THEN %(patience)s ELSE 1 END)
                ORDER BY notified_at NULLS FIRST, waiting.run_id
                LIMIT %(limit)s
                FOR NO KEY UPDATE OF waiting SKIP LOCKED
            ))  -- an array is read once, before the rows; a subquery of IN may be read for each
            RETURNING history.identifier, stage
            """,
            {
                "stages": list(stages),
                "stalled_after": stalled_after,
                "limit": limit,
                "renotify_after": renotify_after,
                "unread": list(unread_stages),
                "patience": _UNREAD_DELAY_FACTOR,
            },
        )
        return _parse_waiting_stages(await cursor.fetchall())

    async def mark_stages_unnotified(self, stages: Collection[WaitingStage]) -> None:
        await self._conn.execute(
            """
            UPDATE pipeline.runs SET notified_at = NULL
            FROM pipeline_history AS history
            WHERE history.id = runs.run_id AND history.status = 'running' AND history.identifier = ANY(%(identifiers)s)
            """,
            {"identifiers": [each.identifier for each in stages]},
        )

    async def list_waiting_stages(
        self,
        kinds: Collection[WorkKind],
        stalled_after: float,
        limit: int,
        stage_limits: Mapping[Stage, int] | None = None,
        *,
        only_stalled: bool = False,
    ) -> list[WaitingStage]:
        """Return waiting or stalled stages by run, without those of which `stage_limits` run already."""
        cursor = await self._conn.execute(
            """
            SELECT identifier, stage
            FROM pipeline_history JOIN pipeline.runs ON runs.run_id = pipeline_history.id
            WHERE status = 'running' AND stage = ANY(%(stages)s)
              AND (owner IS NULL AND NOT %(only_stalled)s
                   OR heartbeat_at < now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s))
              AND coalesce((%(limits)s::jsonb ->> stage)::bigint > (
                  SELECT count(*) FROM pipeline.runs AS held
                  WHERE held.stage = runs.stage AND held.owner IS NOT NULL
                    AND held.heartbeat_at >= now() AT TIME ZONE 'utc' - make_interval(secs => %(stalled_after)s)
              ), true)
            ORDER BY run_id
            LIMIT %(limit)s
            """,
            {
                "limits": Jsonb({stage.value: limit for stage, limit in (stage_limits or {}).items()}),
                "only_stalled": only_stalled,
                "stages": _list_stages_of_kinds(kinds),
                "stalled_after": stalled_after,
                "limit": limit,
            },
        )
        return _parse_waiting_stages(await cursor.fetchall())

    async def list_identifiers_of_running_runs(self) -> set[str]:
        cursor = await self._conn.execute("SELECT identifier FROM pipeline_history WHERE status = 'running'")
        return {identifier for (identifier,) in await cursor.fetchall()}

    async def fail_orphaned_runs(self) -> list[OrphanedRun]:
        """Mark as failed the running runs without a request, which an earlier version left, and return them."""
        return await fetch_all(
            self._conn,
            OrphanedRun,
            """
            UPDATE pipeline_history AS history
            SET status = 'failed', error_message = 'The run was left by an earlier version of this server',
                completed_at = now() AT TIME ZONE 'utc'
            FROM videos
            WHERE history.status = 'running' AND videos.id = history.video_id
              AND NOT EXISTS (SELECT FROM pipeline.runs WHERE run_id = history.id)
            RETURNING history.identifier, videos.identifier
            """,
        )


def _list_stages_of_kinds(work_kinds: Collection[WorkKind]) -> list[str]:
    return [stage.value for stage, row in STAGE_TABLE.items() if row.kind in work_kinds]


def _parse_waiting_stages(rows: Collection[tuple[str, str]]) -> list[WaitingStage]:
    return [WaitingStage(identifier, Stage(stage)) for identifier, stage in rows if stage in STAGE_TABLE]
