"""`/api/prompts`"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.api.answers import json_answer
from app.api.dependencies import AutocommitConnection
from app.api.made import moment_answer, run_answer
from app.api.paging import DEFAULT_LIMIT, HEADERS, PageCursor, PageLimit, page_answer
from app.api.schemas.common import Error
from app.api.schemas.made import MadeMomentAnswer, MadeRunAnswer
from app.api.schemas.prompts import PromptAnswer, PromptSummaryAnswer
from app.services import provenance

router = APIRouter(prefix="/api/prompts", tags=["prompts"])

PromptId = Annotated[int, Path(description="Id of the prompt", examples=[7])]

_PAGE: dict[int | str, dict[str, Any]] = {200: {"headers": HEADERS}}
_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Error}}


@router.get("", response_model=list[PromptSummaryAnswer], responses=_PAGE)
async def list_prompts(
    request: Request, conn: AutocommitConnection, limit: PageLimit = DEFAULT_LIMIT, cursor: PageCursor = 0
) -> Response:
    """A page of the prompts, in the order they were first used. System prompts may be long and are left out."""
    found = await provenance.list_prompts(conn, limit, cursor)
    return page_answer(request, limit, found, list(found))


@router.get("/{prompt_id}", response_model=PromptAnswer, responses=_NOT_FOUND)
async def get_prompt(prompt_id: PromptId, conn: AutocommitConnection) -> Response:
    """One prompt, whole."""
    return json_answer(await provenance.get_prompt(conn, prompt_id))


@router.get("/{prompt_id}/moments", response_model=list[MadeMomentAnswer], responses=_PAGE | _NOT_FOUND)
async def list_prompt_moments(
    request: Request,
    prompt_id: PromptId,
    conn: AutocommitConnection,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = 0,
) -> Response:
    """A page of the moments that were made with the prompt, over all videos, in the order they were added."""
    found = await provenance.list_prompt_moments(conn, prompt_id, limit, cursor)
    return page_answer(request, limit, found, [moment_answer(moment) for moment in found])


@router.get("/{prompt_id}/runs", response_model=list[MadeRunAnswer], responses=_PAGE | _NOT_FOUND)
async def list_prompt_runs(
    request: Request,
    prompt_id: PromptId,
    conn: AutocommitConnection,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = 0,
) -> Response:
    """A page of the runs that used the prompt, over all videos, in the order they were accepted."""
    found = await provenance.list_prompt_runs(conn, prompt_id, limit, cursor)
    return page_answer(request, limit, found, [run_answer(run) for run in found])
