"""The generation configs of the calls that a run makes."""

from typing import Unpack

from app.ai.protocols import MomentFinder, PromptText
from app.database import Connection
from app.pipeline.saving import storable
from app.repositories import GenerationConfigRepository, PromptRepository
from app.repositories.generation_configs import ModelParameters


async def store_config(
    conn: Connection,
    finder: MomentFinder,
    texts: PromptText,
    *,
    transcript_id: int,
    model: str,
    operation_type: str,
    **asked: Unpack[ModelParameters],
) -> int:
    """Return the id of the config of calls with these texts; `model` and `asked` are what the run was asked for.

    Where this machine answers for a model that is not set up, the config names the local engine, which has no
    temperature.
    """
    prompt = await PromptRepository(conn).get_or_create(storable(texts.user_prompt), storable(texts.system_prompt))
    top_k = finder.parameters.get("top_k")
    parameters: ModelParameters = {
        **asked,
        "top_p": finder.parameters.get("top_p"),
        "top_k": None if top_k is None else int(top_k),
    }
    if finder.is_local:
        model, parameters["temperature"] = finder.model, None
    config = await GenerationConfigRepository(conn).get_or_create(
        prompt_id=prompt.id, transcript_id=transcript_id, model=model, operation_type=operation_type, **parameters
    )
    return config.id
