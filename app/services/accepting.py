"""The one statement that accepts a run, and what a run that is in its way is called."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

from psycopg.errors import UniqueViolation
from psycopg.pq import TransactionStatus

from app.core.errors import AlreadyRunning, Conflict, VideoNotFound
from app.core.masking import mask_secrets
from app.database import Connection
from app.models.run import RunRequest, StageRecord
from app.models.stages import RunType, Stage
from app.repositories.runs import new_run_identifier
from app.repositories.stage_queue import StageQueueRepository
from app.services.identifiers import findable

_IN_THE_WAY: Mapping[RunType, str] = {
    RunType.FULL: "Pipeline already running for video '{}'",
    RunType.AUDIO: "Audio processing already in progress for this video",
    RunType.TRANSCRIPT: "Transcript generation already in progress for this video",
    RunType.MOMENTS: "Moment generation already in progress for this video",
    RunType.CLIPS: "Clip extraction already in progress for this video",
    RunType.REFINEMENT: "Moment refinement already in progress",
}


async def accept_run(
    conn: Connection,
    video: str,
    run_type: RunType,
    request: RunRequest,
    subject: str = "",
    stages: Mapping[Stage, StageRecord] | None = None,
    given_identifier: str | None = None,
) -> str:
    """Accept a run, in the caller's transaction where there is one, and return its identifier.

    Secrets in its prompts are masked.

    Raises `VideoNotFound` and `AlreadyRunning`, and `Conflict` where another run has the identifier that is given.
    """
    now = datetime.now(UTC)
    milliseconds = int(now.timestamp() * 1000)
    request = mask_prompts(request)
    while True:
        identifier = given_identifier or new_run_identifier(findable(video), milliseconds)
        try:
            async with _savepoint(conn):
                accepted = await StageQueueRepository(conn).accept(
                    findable(video), identifier, run_type, now.replace(tzinfo=None), request, subject, stages
                )
        except UniqueViolation:  # a run that was accepted in the same millisecond, and has ended
            if given_identifier:
                raise Conflict("A run with this id exists already") from None
            milliseconds += 1
            continue
        if accepted is None:
            raise VideoNotFound(video if run_type is RunType.FULL else None)
        if accepted.run_id is None:
            raise already_running(accepted.other_type or run_type, video)
        return identifier


def _savepoint(conn: Connection) -> AbstractAsyncContextManager[object]:
    """Return a savepoint for a statement that may fail; outside a transaction it needs none."""
    if conn.info.transaction_status is TransactionStatus.IDLE:
        return nullcontext()
    return conn.transaction()


def mask_prompts(request: RunRequest) -> RunRequest:
    """Return the request as it is stored: without the secrets that its prompts may hold."""
    return replace(
        request,
        generation_prompt=mask_secrets(request.generation_prompt),
        refinement_prompt=mask_secrets(request.refinement_prompt),
    )


def already_running(run_type: str, video: str) -> AlreadyRunning:
    """Return what a client is told of the run that is in the way."""
    return AlreadyRunning(_IN_THE_WAY[RunType(run_type)].format(video))
