"""What a worker does for stages of which no message arrives."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import pytest

from app.models.stages import Stage, WorkKind
from app.repositories.stage_queue import StageQueueRepository, WaitingStage
from app.services.queue import StageNotifier
from app.worker.monitor import QueueMonitor
from app.worker.receiver import StageMessageReceiver
from tests.faults.site import Site
from tests.faults.stages import STEADY
from tests.pipeline.contexts import open_database


class Queue:
    """A Redis that delivers, and takes messages or not."""

    is_receiving = True

    def __init__(self, *, takes_messages: bool) -> None:
        self._takes_messages = takes_messages
        self.sent: list[tuple[str, Stage]] = []

    async def notify(self, identifier: str, stage: Stage) -> bool:
        self.sent.append((identifier, stage))
        return self._takes_messages

    async def list_kinds_with_unread_messages(self) -> Collection[WorkKind]:
        return set()


@pytest.mark.parametrize("takes_messages", [True, False])
async def test_a_stage_whose_message_cannot_be_sent_is_left_to_the_next_poll_of_any_worker(
    own_database_url: str, redis_url: str, tmp_path: Path, *, takes_messages: bool
) -> None:
    site = Site(own_database_url, redis_url, tmp_path)
    await site.prepare()
    run = await site.accept()
    queue = Queue(takes_messages=takes_messages)
    async with site.connect() as conn:
        await conn.execute("UPDATE pipeline.runs SET notified_at = notified_at - interval '1 minute'")
    monitor = QueueMonitor(
        open_database(site.settings),
        cast(StageNotifier, queue),
        cast(StageMessageReceiver, queue),
        (WorkKind.TRANSCRIPTION,),
        refuse,
        {},
        STEADY,
    )
    monitor.start_stall_detection()
    await monitor.poll_queue()
    assert queue.sent == [(run, Stage.DOWNLOAD)]
    async with site.connect() as conn:
        waiting = await StageQueueRepository(conn).take_unnotified_stages(60, 30)
    assert waiting == ([] if takes_messages else [WaitingStage(run, Stage.DOWNLOAD)])


def refuse(*_: Any) -> bool:
    return False
