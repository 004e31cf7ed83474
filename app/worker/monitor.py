"""Finds stages that wait although no message of them arrives: it was lost, or their worker died."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from app.database import Database
from app.database.queries import try_transaction_lock
from app.models.stages import STAGE_TABLE, Stage, WorkKind
from app.repositories.stage_queue import OrphanedRun, StageQueueRepository, WaitingStage
from app.services.queue import StageNotifier
from app.worker.receiver import StageReceiver
from app.worker.timings import WorkerTimings

_log = logging.getLogger(__name__)

_SENT_AT_ONCE = 10
_RUN_AT_MOST = 100
_NEVER_SECONDS = 1e8

# Begins to run a stage, unless the worker has no capacity for it.
RunIfFree = Callable[[str, Stage], bool]


class QueueMonitor:
    """Looks at the queue in PostgreSQL for one worker. Of all workers one sends messages again at a time."""

    def __init__(
        self,
        database: Database,
        notifier: StageNotifier,
        receiver: StageReceiver,
        kinds: Collection[WorkKind],
        run_if_free: RunIfFree,
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

    def start(self) -> None:
        """Trust the heartbeats of other workers once each had time for one: the database may have been away."""
        self._trusted_at = asyncio.get_running_loop().time() + self._timings.heartbeat_interval

    @property
    def stalled_after(self) -> float:
        """The seconds without a heartbeat after which a stage is stalled.

        While PostgreSQL is away, and for a while after it has come back, none is: no worker could send a heartbeat.
        """
        return self._timings.stalled_after if self._trusts_heartbeats else _NEVER_SECONDS

    async def poll(self) -> None:
        """Send messages again for stages that wait for too long, and run what no message reaches.

        Raises `DatabaseUnavailable` and `psycopg.Error`.
        """
        await self._watch_database()
        unread = await self._notifier.list_kinds_with_unread_messages()
        waiting: list[WaitingStage] = []
        orphans: list[OrphanedRun] = []
        async with self._database.connect() as conn, conn.transaction():
            if await try_transaction_lock(conn, "queue"):
                queue = StageQueueRepository(conn)
                waiting = await queue.take_unnotified_stages(
                    self.stalled_after, self._timings.notify_again_after, unread
                )
                orphans = await queue.fail_orphaned_runs()
        for orphan in orphans:
            _log.warning("Run %s was ended: what it was asked for is not known", orphan.identifier)
        for kind in {STAGE_TABLE[each.stage].kind for each in waiting} & unread:
            _log.warning("Runs wait for work of the kind %s, and no worker reads its messages", kind)
        unsent, begins_to_trust = await self._notify_all(waiting), self._begins_to_trust()
        if unsent:
            async with self._database.connect() as conn:
                await StageQueueRepository(conn).mark_unnotified(unsent)
        if unsent or not self._receiver.is_receiving:
            await self._run_waiting()
        elif begins_to_trust:
            await self._run_waiting(only_stalled=True)

    async def _notify_all(self, waiting: Sequence[WaitingStage]) -> Sequence[WaitingStage]:
        """Send messages, until one cannot be sent: Redis is away then, or takes none. Return the stages without one."""
        for first in range(0, len(waiting), _SENT_AT_ONCE):
            some = waiting[first : first + _SENT_AT_ONCE]
            if not all(await asyncio.gather(*(self._notifier.notify(each.identifier, each.stage) for each in some))):
                return waiting[first:]
        return ()

    async def _run_waiting(self, *, only_stalled: bool = False) -> None:
        """Run as many stages as there is capacity for; the others are found by the next poll."""
        async with self._database.connect() as conn:
            queue = StageQueueRepository(conn)
            waiting = await queue.list_waiting_stages(
                self._kinds, self.stalled_after, _RUN_AT_MOST, self._limits, only_stalled=only_stalled
            )
        for each in waiting:
            if not self._run_if_free(each.identifier, each.stage):
                return
            await asyncio.sleep(0)  # the task acquires its capacity

    @property
    def _trusts_heartbeats(self) -> bool:
        return not self._is_database_away and asyncio.get_running_loop().time() >= self._trusted_at

    def _begins_to_trust(self) -> bool:
        """Whether heartbeats count since the last poll: messages of stalled stages were received in vain before."""
        was_trusted, self._was_trusted = self._was_trusted, self._trusts_heartbeats
        return self._was_trusted and not was_trusted

    async def _watch_database(self) -> None:
        """Notice an outage of PostgreSQL, also one that lasts no longer than the pool waits for a connection."""
        loop = asyncio.get_running_loop()
        begun_at, was_away, self._is_database_away = loop.time(), self._is_database_away, True
        async with self._database.connect() as conn:
            await conn.execute("SELECT")
        if was_away or loop.time() - begun_at > self._timings.heartbeat_interval:
            self._trusted_at = loop.time() + self._timings.stalled_after
        self._is_database_away = False
