"""The monitor of the queue: it finds waiting stages whose message was lost or whose worker died."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from app.database import Database
from app.database.queries import try_lock_in_transaction
from app.models.stages import STAGE_TABLE, Stage, WorkKind
from app.repositories.stage_queue import OrphanedRun, StageQueueRepository, WaitingStage
from app.services.queue import StageNotifier
from app.worker.receiver import StageMessageReceiver
from app.worker.timings import WorkerTimings

_log = logging.getLogger(__name__)

_BATCH_SIZE = 10
_MAX_LISTED_STAGES = 100
_NEVER_SECONDS = 1e8


class QueueMonitor:
    """Polls the queue in PostgreSQL for one worker. One worker at a time sends messages again.

    `run_if_free` starts a stage, or returns False where the worker has no capacity.
    """

    def __init__(
        self,
        database: Database,
        notifier: StageNotifier,
        receiver: StageMessageReceiver,
        kinds: Collection[WorkKind],
        run_if_free: Callable[[str, Stage], bool],
        limits: Mapping[Stage, int],
        timings: WorkerTimings,
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._receiver = receiver
        self._kinds = kinds
        self._run_if_free = run_if_free
        self._limits = limits
        self._timings = timings
        self._is_database_away = False
        self._trusted_at = 0.0  # by the clock of the loop
        self._was_trusted = False

    def start_stall_detection(self) -> None:
        """Treat no stage as stalled for one heartbeat interval: the database may have been away."""
        self._trusted_at = asyncio.get_running_loop().time() + self._timings.heartbeat_interval

    @property
    def stalled_after(self) -> float:
        """The seconds without a heartbeat after which a stage is stalled: years during and soon after an outage."""
        return self._timings.stalled_after if self._trusts_heartbeats else _NEVER_SECONDS

    async def poll_queue(self) -> None:
        """Send messages again for stages that wait too long, and run stages whose messages cannot be sent.

        Raises `DatabaseUnavailable` and `psycopg.Error`.
        """
        await self._detect_database_outage()
        unread = await self._notifier.list_kinds_with_unread_messages()
        waiting: list[WaitingStage] = []
        orphans: list[OrphanedRun] = []
        async with self._database.connect() as conn, conn.transaction():
            if await try_lock_in_transaction(conn, "queue"):
                queue = StageQueueRepository(conn)
                waiting = await queue.take_unnotified_stages(
                    self.stalled_after, self._timings.notify_again_after, unread
                )
                orphans = await queue.fail_orphaned_runs()
        for orphan in orphans:
            _log.warning("Run %s was ended: what it was asked for is not known", orphan.identifier)
        for kind in {STAGE_TABLE[each.stage].kind for each in waiting} & unread:
            _log.warning("Runs wait for work of the kind %s, and no worker reads its messages", kind)
        unsent, begins_to_trust = await self._notify_waiting_stages(waiting), self._begins_to_trust_heartbeats()
        if unsent:
            async with self._database.connect() as conn:
                await StageQueueRepository(conn).mark_stages_unnotified(unsent)
        if unsent or not self._receiver.is_receiving:
            await self._run_waiting_stages()
        elif begins_to_trust:
            await self._run_waiting_stages(only_stalled=True)

    async def _notify_waiting_stages(self, stages: Sequence[WaitingStage]) -> Sequence[WaitingStage]:
        """Send the messages of stages, until one cannot be sent; return the stages from that one's batch on."""
        for first in range(0, len(stages), _BATCH_SIZE):
            batch = stages[first : first + _BATCH_SIZE]
            if not all(await asyncio.gather(*(self._notifier.notify(each.identifier, each.stage) for each in batch))):
                return stages[first:]
        return ()

    async def _run_waiting_stages(self, *, only_stalled: bool = False) -> None:
        async with self._database.connect() as conn:
            queue = StageQueueRepository(conn)
            waiting = await queue.list_waiting_stages(
                self._kinds, self.stalled_after, _MAX_LISTED_STAGES, self._limits, only_stalled=only_stalled
            )
        for each in waiting:
            if not self._run_if_free(each.identifier, each.stage):
                return
            await asyncio.sleep(0)  # the task acquires its capacity

    @property
    def _trusts_heartbeats(self) -> bool:
        return not self._is_database_away and asyncio.get_running_loop().time() >= self._trusted_at

    def _begins_to_trust_heartbeats(self) -> bool:
        """Return whether heartbeats count now, and did not at the last call: stalled stages could not be claimed."""
        was_trusted, self._was_trusted = self._was_trusted, self._trusts_heartbeats
        return self._was_trusted and not was_trusted

    async def _detect_database_outage(self) -> None:
        """Query PostgreSQL; after a failed or slow query, heartbeats are not trusted for `stalled_after` seconds."""
        loop = asyncio.get_running_loop()
        begun_at, was_away, self._is_database_away = loop.time(), self._is_database_away, True
        async with self._database.connect() as conn:
            await conn.execute("SELECT")
        if was_away or loop.time() - begun_at > self._timings.heartbeat_interval:
            self._trusted_at = loop.time() + self._timings.stalled_after
        self._is_database_away = False
