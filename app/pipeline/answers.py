"""What models have answered to a run: whoever takes the run over, or tries it again, does not ask them again."""

from dataclasses import asdict, dataclass

from app.ai.protocols import Found, FoundMoment, Refined, Usage
from app.core.masking import mask_values
from app.database import Connection
from app.pipeline.context import RunContext
from app.pipeline.saving import storable
from app.repositories.answers import AnswerRepository


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer depends on; `start` and `end` are those of the moment that is refined, in seconds.

    The config stands for the prompt, the model and its parameters. A transcript never changes: another one has
    another id.
    """

    transcript_id: int
    config_id: int
    start: float | None = None
    end: float | None = None


async def keep_found(conn: Connection, context: RunContext, question: Question, found: Found) -> None:
    moments = [[moment.start, moment.end, moment.title] for moment in found.moments]
    answer = {"model": storable(found.model), "moments": moments}
    await AnswerRepository(conn).keep(context.run.id, asdict(question), mask_values(answer))


async def recall_found(conn: Connection, context: RunContext, question: Question) -> Found | None:
    """Return the moments that were found before, for which nothing is paid now."""
    answer = mask_values(await AnswerRepository(conn).find(context.run.id, asdict(question)))
    if answer is None:
        return None
    return Found([FoundMoment(*moment) for moment in answer["moments"]], answer["model"], "", Usage())


async def keep_refined(conn: Connection, context: RunContext, question: Question, refined: Refined) -> None:
    answer = {"model": storable(refined.model), "start": refined.start, "end": refined.end}
    await AnswerRepository(conn).keep(context.run.id, asdict(question), mask_values(answer))


async def recall_refined(conn: Connection, context: RunContext, question: Question) -> Refined | None:
    """Return the times that were found before, for which nothing is paid now."""
    answer = mask_values(await AnswerRepository(conn).find(context.run.id, asdict(question)))
    return None if answer is None else Refined(answer["start"], answer["end"], answer["model"], "", Usage())
