"""`/api/generation-configs`"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.api.answers import json_answer
from app.api.dependencies import AutocommitConnection
from app.api.made import moment_answer, run_answer
from app.api.paging import DEFAULT_LIMIT, HEADERS, PageCursor, PageLimit, page_answer
from app.api.schemas.common import Error
from app.api.schemas.generation_configs import GenerationConfigAnswer
from app.api.schemas.made import MadeMomentAnswer, MadeRunAnswer
from app.database.queries import LARGEST_ID
from app.models import GenerationConfig
from app.services import provenance

router = APIRouter(prefix="/api/generation-configs", tags=["generation_configs"])

ConfigId = Annotated[int, Path(description="Id of the generation config", examples=[3])]
OfPrompt = Annotated[int | None, Query(ge=1, le=LARGEST_ID, description="Only those of this prompt")]
OfModel = Annotated[
    str | None, Query(max_length=100, description="Only those of this model", examples=["qwen3_vl_fp8"])
]
OfOperation = Annotated[
    str | None, Query(max_length=50, description="Only those of this operation", examples=["generation", "refinement"])
]

_PAGE: dict[int | str, dict[str, Any]] = {200: {"headers": HEADERS}}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Error}}


@router.get("", response_model=list[GenerationConfigAnswer], responses=_PAGE)
async def list_generation_configs(
    request: Request,
    conn: AutocommitConnection,
    prompt_id: OfPrompt = None,
    model: OfModel = None,
    operation_type: OfOperation = None,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = 0,
) -> Response:
    """A page of the generation configs, in the order they were first used."""
    found = await provenance.list_generation_configs(conn, limit, cursor, prompt_id, model, operation_type)
    return page_answer(request, limit, found, [_answer(config) for config in found])


@router.get("/{config_id}", response_model=GenerationConfigAnswer, responses=_NOT_FOUND)
async def get_generation_config(config_id: ConfigId, conn: AutocommitConnection) -> Response:
    """One generation config."""
    return json_answer(_answer(await provenance.get_generation_config(conn, config_id)))


@router.get("/{config_id}/moments", response_model=list[MadeMomentAnswer], responses=_PAGE | _NOT_FOUND)
async def list_config_moments(
    request: Request,
    config_id: ConfigId,
    conn: AutocommitConnection,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = 0,
) -> Response:
    """A page of the moments that were made with the config, over all videos, in the order they were added."""
    found = await provenance.list_config_moments(conn, config_id, limit, cursor)
    return page_answer(request, limit, found, [moment_answer(moment) for moment in found])


@router.get("/{config_id}/runs", response_model=list[MadeRunAnswer], responses=_PAGE | _NOT_FOUND)
async def list_config_runs(
    request: Request,
    config_id: ConfigId,
    conn: AutocommitConnection,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = 0,
) -> Response:
    """A page of the runs that used the config, over all videos, in the order they were accepted."""
    found = await provenance.list_config_runs(conn, config_id, limit, cursor)
    return page_answer(request, limit, found, [run_answer(run) for run in found])


def _answer(config: GenerationConfig) -> dict[str, Any]:
    return {
        "id": config.id,
        "prompt_id": config.prompt_id,
        "transcript_id": config.transcript_id,
        "model": config.model,
        "operation_type": config.operation_type,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "min_moment_length": config.min_moment_length,
        "max_moment_length": config.max_moment_length,
        "min_moments": config.min_moments,
        "max_moments": config.max_moments,
        "created_at": config.created_at,
    }
