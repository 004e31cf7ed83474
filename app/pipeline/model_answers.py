"""Calls of models: the generation config, the stored answer and the usage of a call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Unpack

from app.ai.protocols import FindResult, FoundMoment, MomentFinder, PromptText, RefineResult, Usage
from app.core.errors import ModelAnswerInvalid
from app.core.masking import mask_secrets, mask_values
from app.core.text import strip_unstorable
from app.database import Connection
from app.pipeline.context import RunContext
from app.repositories import GenerationConfigRepository, PromptRepository
from app.repositories.provenance import ModelParameters
from app.repositories.stages import ClaimedRunRepository, ModelAnswerRepository


@dataclass(frozen=True, slots=True)
class ModelAnswerKey:
    """The inputs of a model call whose answer is stored; `start` and `end` are of a moment to refine.

    The config identifies the prompt, the model and its parameters. The content of a transcript never changes.
    """

    transcript_id: int
    config_id: int
    start: float | None = None
    end: float | None = None


async def store_found_moments(
    conn: Connection, context: RunContext, answer_key: ModelAnswerKey, found: FindResult
) -> None:
    moments = [[moment.start, moment.end, moment.title] for moment in found.moments]
    answer = {"model": strip_unstorable(found.model), "moments": moments}
    await ModelAnswerRepository(conn).store_answer(context.run.id, asdict(answer_key), mask_values(answer))


async def find_earlier_found_moments(
    conn: Connection, context: RunContext, answer_key: ModelAnswerKey
) -> FindResult | None:
    answer = mask_values(await ModelAnswerRepository(conn).find_answer(context.run.id, asdict(answer_key)))
    if answer is None:
        return None
    return FindResult([FoundMoment(*moment) for moment in answer["moments"]], answer["model"], "", Usage())


async def store_refined_times(
    conn: Connection, context: RunContext, answer_key: ModelAnswerKey, refined: RefineResult
) -> None:
    answer = {"model": strip_unstorable(refined.model), "start": refined.start, "end": refined.end}
    await ModelAnswerRepository(conn).store_answer(context.run.id, asdict(answer_key), mask_values(answer))


async def find_earlier_refined_times(
    conn: Connection, context: RunContext, answer_key: ModelAnswerKey
) -> RefineResult | None:
    answer = mask_values(await ModelAnswerRepository(conn).find_answer(context.run.id, asdict(answer_key)))
    return None if answer is None else RefineResult(answer["start"], answer["end"], answer["model"], "", Usage())


async def store_generation_config(
    conn: Connection,
    finder: MomentFinder,
    prompt_texts: PromptText,
    *,
    transcript_id: int,
    model: str,
    operation_type: str,
    **request_parameters: Unpack[ModelParameters],
) -> int:
    """Return the id of the generation config with these prompts and parameters, which is inserted unless it exists.

    A local finder is stored under its own name, without a temperature.
    """
    prompt = await PromptRepository(conn).get_or_create(
        strip_unstorable(prompt_texts.user_prompt), strip_unstorable(prompt_texts.system_prompt)
    )
    top_k = finder.parameters.get("top_k")
    parameters: ModelParameters = {
        **request_parameters,
        "top_p": finder.parameters.get("top_p"),
        "top_k": None if top_k is None else int(top_k),
    }
    if finder.is_local:
        model, parameters["temperature"] = finder.model, None
    config = await GenerationConfigRepository(conn).get_or_create(
        prompt_id=prompt.id, transcript_id=transcript_id, model=model, operation_type=operation_type, **parameters
    )
    return config.id


@asynccontextmanager
async def store_raw_answer_if_invalid(context: RunContext) -> AsyncIterator[None]:
    """Store the raw answer of a model with the run where the block raises `ModelAnswerInvalid`, which goes on."""
    try:
        yield
    except ModelAnswerInvalid as error:
        raw = mask_secrets(strip_unstorable(error.raw))
        await context.save_result(lambda conn: ClaimedRunRepository(conn).store_unusable_answer(context.run, raw))
        raise


def serialize_model_usage(usage: Usage) -> dict[str, Any]:
    return {**asdict(usage), "seconds": round(usage.seconds, 3)}
