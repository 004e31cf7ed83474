"""One run in one worker's hands: its stages, and beside them the signs of life and the wish that it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum

import psycopg

from app.core.errors import DatabaseUnavailable, RunLost, VideoMomentsError
from app.models.run import RunStatus
from app.models.stages import RunType, Stage
from app.pipeline.context import RunContext
from app.pipeline.engine import Engine
from app.pipeline.failures import tell_failure
from app.pipeline.outages import through_outages
from app.pipeline.pace import Pace
from app.pipeline.recorder import Recorder
from app.pipeline.replacing import delete_files
from app.pipeline.slots import Slots
from app.pipeline.stage_code import StageCode
from app.repositories import VideoRepository
from app.repositories.live_runs import LiveRuns
from app.repositories.work import Outcome, WorkRepository

_log = logging.getLogger(__name__)

_SOONER_SECONDS = 1.0


class Stop(Enum):
    """Why a run ends before its stages do."""

    CANCELLED = "it was cancelled"
    LOST = "another worker has it, or it is gone"
    RELEASED = "its worker ends, and another one is to go on"


class Attempt:
    """Carries one run out. `token` stands for it in Redis."""

    def __init__(
        self, context: RunContext, live: LiveRuns, codes: Mapping[Stage, StageCode], pace: Pace, token: str
    ) -> None:
        self._context = context
        self._run = context.run
        self._live = live
        self._pace = pace
        self._token = token
        self._recorder = Recorder(context)
        self._slots = Slots(live, context.settings, token, pace)
        self._engine = Engine(context, codes, self._recorder, self._slots)
        self._why: Stop | None = None
        self._stopped = asyncio.Event()

    def stop(self, why: Stop) -> None:
        """Have it end soon. The first reason counts, except that what is lost is lost."""
        if self._why is None or why is Stop.LOST:
            self._why = why
        self._stopped.set()

    async def carry_out(self) -> bool:
        """Work on the run until it has ended, or is not to be worked on here any more. True where it has ended.

        Raises `DatabaseUnavailable` where PostgreSQL stays away: the run then waits for another worker.
        """
        outcome = None
        async with self._signs_of_life():
            try:
                outcome = await self._work()
                if outcome is not None:
                    await self._finish(outcome)
                elif self._why is Stop.RELEASED:
                    await self._release()
            except RunLost:
                self._why, outcome = Stop.LOST, None
        if outcome is not None:
            await self._tell_end(outcome)
        elif self._why is not None:
            _log.info("Run %s is left: %s", self._run.identifier, self._why.value)
        return outcome is not None

    async def give_up(self, times: int) -> bool:
        """End a run whose workers died. True where it has ended."""
        stage = self._recorder.find_unfinished()
        reason = f"The worker died {times} times in stage '{stage}'"
        outcome = Outcome(RunStatus.FAILED, stage, reason)
        try:
            await self._recorder.fail(stage, reason)
            await self._finish(outcome)
        except RunLost:
            return False
        await self._tell_end(outcome)
        return True

    async def _work(self) -> Outcome | None:
        """Return what the run has come to; None where it goes on elsewhere or is gone."""
        stages = asyncio.create_task(self._engine.run())
        await self._wait_for(stages)
        if stages.done() and not stages.cancelled():
            outcome = self._outcome_of(stages)
            # A stage that makes a failure of being stopped has not failed.
            if self._why is None or outcome.status is not RunStatus.FAILED:
                return outcome
        if self._why is Stop.CANCELLED:
            await self._recorder.cancel()
            return Outcome(RunStatus.CANCELLED)
        if self._why is None:
            return self._fail(asyncio.CancelledError())
        return None

    async def _wait_for(self, stages: asyncio.Task[Outcome]) -> None:
        """Wait until the stages end. A stage that does not let itself be stopped is left alone: it can write nothing
        for a run that is not this worker's any more."""
        stopped = asyncio.create_task(self._stopped.wait())
        try:
            await asyncio.wait({stages, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            if not stages.done():
                stages.cancel()
                await asyncio.wait({stages}, timeout=self._pace.grace)

    def _outcome_of(self, stages: asyncio.Task[Outcome]) -> Outcome:
        try:
            return stages.result()
        except (RunLost, DatabaseUnavailable):
            raise
        except Exception as error:
            return self._fail(error)

    def _fail(self, error: BaseException) -> Outcome:
        stage = self._recorder.find_unfinished()
        return Outcome(RunStatus.FAILED, stage, tell_failure(error, stage))

    async def _finish(self, outcome: Outcome) -> None:
        async def finish() -> set[str]:
            async with self._context.database.connect() as conn, conn.transaction():
                await VideoRepository(conn).lock(self._run.video)
                return await WorkRepository(conn).finish(self._run, outcome)

        files = await through_outages(f"The end of run {self._run.identifier}", finish)
        await delete_files(self._context, files)

    async def _tell_end(self, outcome: Outcome) -> None:
        await self._live.end(self._run.identifier, self._run.video, self._recorder.write_live(outcome))
        reason = f": {outcome.error_message}" if outcome.error_message else ""
        facts = {"run": self._run.identifier, "status": outcome.status.value}
        _log.info("Run %s %s%s", self._run.identifier, outcome.status, reason, extra=facts)

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(self._pace.grace), self._context.database.connect() as conn, conn.transaction():
                await WorkRepository(conn).release(self._run)
        except (psycopg.Error, VideoMomentsError, TimeoutError) as error:
            _log.warning("Run %s is not given back, it waits until it is missed: %s", self._run.identifier, error)

    @asynccontextmanager
    async def _signs_of_life(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._pulse())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended, _ = await asyncio.wait(tasks, timeout=self._pace.grace)
            for task in ended:
                if not task.cancelled() and (error := task.exception()):
                    _log.error("Run %s was without signs of life", self._run.identifier, exc_info=error)

    async def _beat(self) -> None:
        """Say that this worker lives: first to PostgreSQL, and while that hears it to Redis, too."""
        while True:
            try:
                async with self._context.database.connect() as conn:
                    is_cancelled = await WorkRepository(conn).beat(self._run)
            except RunLost:
                self.stop(Stop.LOST)
                return
            except (psycopg.Error, DatabaseUnavailable) as error:
                _log.debug("PostgreSQL does not hear of run %s: %s", self._run.identifier, error)
                await asyncio.sleep(min(_SOONER_SECONDS, self._pace.heartbeat))
                continue
            if is_cancelled:
                self.stop(Stop.CANCELLED)
            await self._live.keep_lease(self._run.identifier, self._token, self._pace.lease)
            await self._slots.renew()
            await asyncio.sleep(self._pace.heartbeat)

    async def _pulse(self) -> None:
        """Show what is new of the run, and everything with each sign of life, and look whether it is to end."""
        loop = asyncio.get_running_loop()
        told: dict[str, str] = {}
        told_at = 0.0
        while True:
            fields = self._recorder.write_live()
            if fields != told or loop.time() - told_at > self._pace.heartbeat:
                video = self._run.video if self._run.type is RunType.FULL else None
                await self._live.show(self._run.identifier, self._token, fields, video)
                told, told_at = fields, loop.time()
            if await self._live.is_wished_cancelled(self._run.identifier):
                self.stop(Stop.CANCELLED)
            await asyncio.sleep(self._pace.pulse)
