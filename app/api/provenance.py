"""`/api/prompts`, `/api/generation-configs` and `/api/videos/{id}/lineage`: what results were made from."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.api.answers import (
    NOT_FOUND,
    PAGE_RESPONSES,
    PageQuery,
    PageQueryDep,
    Seconds,
    answer_dataclass,
    json_answer,
    page_answer,
)
from app.api.dependencies import AutocommitConnection, VideoId
from app.core.masking import mask_values
from app.database.queries import LARGEST_ID
from app.models import GenerationConfig
from app.repositories.provenance import MomentWithVideo, RunWithVideo
from app.services import provenance

lineage = APIRouter(prefix="/api/videos/{video_id}/lineage", tags=["lineage"])
prompts = APIRouter(prefix="/api/prompts", tags=["prompts"])
configs = APIRouter(prefix="/api/generation-configs", tags=["generation_configs"])

_PROMPT_ID = Path(alias="prompt_id", description="Id of the prompt", examples=[7])
_CONFIG_ID = Path(alias="config_id", description="Id of the generation config", examples=[3])


class GenerationConfigsQuery(PageQuery):
    """Which generation configs to list."""

    prompt_id: int | None = Field(None, ge=1, le=LARGEST_ID, description="Only those of this prompt")
    model: str | None = Field(None, max_length=100, description="Only those of this model", examples=["qwen3_vl_fp8"])
    operation_type: str | None = Field(None, max_length=50, description="Only those of this operation")


@answer_dataclass
class ProvenanceMoment:
    id: Annotated[str, Field(examples=["7621a017eec7482f"])]
    start_time: Seconds
    end_time: Seconds
    title: str
    is_refined: bool
    parent_id: Annotated[str | None, Field(description="The moment that this one refines")]
    model_name: Annotated[str | None, Field(description="The name that the model gave itself")]
    generation_config_id: Annotated[int | None, Field(description="Null for a moment that was added by hand")]
    score: Annotated[int | None, Field(description="From 0 to 10")]
    scoring_model: str | None
    scored_at: datetime | None
    created_at: datetime
    updated_at: datetime


@answer_dataclass
class ProvenanceRun:
    id: Annotated[str, Field(examples=["pipeline:motivation:1770552000000"])]
    generation_config_id: int | None
    pipeline_type: Annotated[str, Field(examples=["full"])]
    status: Annotated[str, Field(examples=["completed"])]
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None
    created_at: datetime


@answer_dataclass
class MomentWithVideoAnswer(ProvenanceMoment):
    video_id: Annotated[str, Field(examples=["motivation"])]

    @classmethod
    def from_row(cls, moment: MomentWithVideo) -> Self:
        return cls(
            id=moment.identifier,
            video_id=moment.video_identifier,
            start_time=moment.start_time,
            end_time=moment.end_time,
            title=moment.title,
            is_refined=moment.is_refined,
            parent_id=moment.parent_identifier,
            model_name=moment.generation_model,
            generation_config_id=moment.generation_config_id,
            score=moment.score,
            scoring_model=moment.scoring_model,
            scored_at=moment.scored_at,
            created_at=moment.created_at,
            updated_at=moment.updated_at,
        )


@answer_dataclass
class RunWithVideoAnswer(ProvenanceRun):
    video_id: Annotated[str, Field(examples=["motivation"])]

    @classmethod
    def from_row(cls, run: RunWithVideo) -> Self:
        return cls(
            id=run.identifier,
            video_id=run.video_identifier,
            generation_config_id=run.generation_config_id,
            pipeline_type=run.pipeline_type,
            status=run.status,
            started_at=run.started_at,
            completed_at=run.completed_at,
            duration_seconds=run.duration_seconds,
            total_moments_generated=run.total_moments_generated,
            total_clips_created=run.total_clips_created,
            error_stage=run.error_stage,
            error_message=mask_values(run.error_message),
            created_at=run.created_at,
        )


@answer_dataclass
class PromptSummaryAnswer:
    id: Annotated[int, Field(examples=[7])]
    user_prompt: str
    prompt_hash: Annotated[str, Field(description="Hex SHA-256 of the user prompt followed by the system prompt")]
    created_at: datetime
    system_prompt_length: Annotated[int, Field(description="In characters; `GET /api/prompts/{id}` gives the text")]


@answer_dataclass
class PromptAnswer:
    id: Annotated[int, Field(examples=[7])]
    user_prompt: str
    system_prompt: str
    prompt_hash: Annotated[str, Field(description="Hex SHA-256 of the user prompt followed by the system prompt")]
    created_at: datetime


@answer_dataclass
class GenerationParameters:
    """The parameters of a model call."""

    id: Annotated[int, Field(examples=[3])]
    transcript_id: Annotated[int | None, Field(description="Null for none, or where several share it")]
    model: Annotated[str, Field(examples=["qwen3_vl_fp8"])]
    operation_type: Annotated[str, Field(examples=["generation"])]
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: Seconds | None
    max_moment_length: Seconds | None
    min_moments: int | None
    max_moments: int | None
    created_at: datetime


@answer_dataclass
class GenerationConfigAnswer(GenerationParameters):
    prompt_id: Annotated[int, Field(examples=[7])]

    @classmethod
    def from_row(cls, config: GenerationConfig) -> Self:
        return cls(
            id=config.id,
            prompt_id=config.prompt_id,
            transcript_id=config.transcript_id,
            model=config.model,
            operation_type=config.operation_type,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            min_moment_length=config.min_moment_length,
            max_moment_length=config.max_moment_length,
            min_moments=config.min_moments,
            max_moments=config.max_moments,
            created_at=config.created_at,
        )


@answer_dataclass
class LineageThumbnail:
    id: int
    file_size_kb: int | None
    created_at: datetime


@answer_dataclass
class LineageClip:
    id: int
    start_time: Seconds
    end_time: Seconds
    padding_left: Seconds
    padding_right: Seconds
    file_size_kb: int | None
    format: str | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    created_at: datetime
    thumbnail: LineageThumbnail | None


@answer_dataclass
class LineageMoment(ProvenanceMoment):
    """A moment with its refined moments, unless their parents form a circle."""

    clip: LineageClip | None
    refinements: list["LineageMoment"]


@answer_dataclass
class LineageConfig(GenerationParameters):
    """A generation config with its moments, except those that are listed below the moment that they refine."""

    moments: list[LineageMoment]


@answer_dataclass
class LineagePrompt:
    id: int
    user_prompt: str
    system_prompt: str
    created_at: datetime
    configs: list[LineageConfig]


@answer_dataclass
class LineageTranscript:
    """A transcript without its text."""

    id: int
    language: str
    number_of_words: int | None
    number_of_segments: int | None
    transcription_service: str | None
    processing_time_seconds: float | None
    created_at: datetime


@answer_dataclass
class LineageAnswer:
    """A video and everything made from it: moments ordered by time, other lists in the order of insertion."""

    id: Annotated[str, Field(examples=["motivation"])]
    title: str | None
    source_url: str | None
    duration_seconds: float | None
    file_size_kb: int | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None
    created_at: datetime
    thumbnail: LineageThumbnail | None
    transcript: LineageTranscript | None
    prompts: Annotated[list[LineagePrompt], Field(description="The prompts of the video's moments and runs")]
    by_hand: Annotated[list[LineageMoment], Field(description="Moments without a config, and their refined moments")]
    runs: Annotated[list[ProvenanceRun], Field(description="By their start")]


@lineage.get("", response_model=LineageAnswer, responses=NOT_FOUND)
async def get_lineage(video_id: VideoId, conn: AutocommitConnection) -> Response:
    """A video with its prompts, configs, moments, clips, thumbnails and runs, each row once."""
    return Response(await provenance.read_lineage(conn, video_id), media_type="application/json")


@prompts.get("", response_model=list[PromptSummaryAnswer], responses=PAGE_RESPONSES)
async def list_prompts(request: Request, conn: AutocommitConnection, page: PageQueryDep) -> Response:
    """A page of the prompts, in the order they were first used. System prompts may be long and are left out."""
    found = await provenance.list_masked_prompt_summaries(conn, page.limit, page.cursor)
    shown = [
        PromptSummaryAnswer(
            id=prompt.id,
            user_prompt=prompt.user_prompt,
            prompt_hash=prompt.prompt_hash,
            created_at=prompt.created_at,
            system_prompt_length=prompt.system_prompt_length,
        )
        for prompt in found
    ]
    return page_answer(request, page.limit, found, shown)


@prompts.get("/{prompt_id}", response_model=PromptAnswer, responses=NOT_FOUND)
async def get_prompt(prompt_id: Annotated[int, _PROMPT_ID], conn: AutocommitConnection) -> Response:
    """One prompt, with its system prompt."""
    prompt = await provenance.get_masked_prompt(conn, prompt_id)
    return json_answer(
        PromptAnswer(
            id=prompt.id,
            user_prompt=prompt.user_prompt,
            system_prompt=prompt.system_prompt,
            prompt_hash=prompt.prompt_hash,
            created_at=prompt.created_at,
        )
    )


@configs.get("", response_model=list[GenerationConfigAnswer], responses=PAGE_RESPONSES)
async def list_generation_configs(
    request: Request, conn: AutocommitConnection, query: Annotated[GenerationConfigsQuery, Query()]
) -> Response:
    """A page of the generation configs, in the order they were first used."""
    found = await provenance.list_generation_configs(
        conn, query.limit, query.cursor, query.prompt_id, query.model, query.operation_type
    )
    return page_answer(request, query.limit, found, [GenerationConfigAnswer.from_row(config) for config in found])


@configs.get("/{config_id}", response_model=GenerationConfigAnswer, responses=NOT_FOUND)
async def get_generation_config(config_id: Annotated[int, _CONFIG_ID], conn: AutocommitConnection) -> Response:
    """One generation config."""
    return json_answer(GenerationConfigAnswer.from_row(await provenance.get_generation_config(conn, config_id)))


def _add_result_routes(router: APIRouter, kind: provenance.Source, id_path: Any) -> None:
    """Add the routes that list the moments and the runs that were made with one prompt or one generation config."""

    @router.get(
        f"/{{{kind}_id}}/moments",
        name=f"list_{kind}_moments",
        description=f"A page of the moments made with the {kind}, over all videos, in the order they were added.",
        response_model=list[MomentWithVideoAnswer],
        responses=PAGE_RESPONSES | NOT_FOUND,
    )
    async def list_moments_of_prompt_or_config(
        request: Request, prompt_or_config_id: Annotated[int, id_path], conn: AutocommitConnection, page: PageQueryDep
    ) -> Response:
        found = await provenance.list_moments_of_prompt_or_config(
            conn, kind, prompt_or_config_id, page.limit, page.cursor
        )
        return page_answer(request, page.limit, found, [MomentWithVideoAnswer.from_row(moment) for moment in found])

    @router.get(
        f"/{{{kind}_id}}/runs",
        name=f"list_{kind}_runs",
        description=f"A page of the runs that used the {kind}, over all videos, in the order they were accepted.",
        response_model=list[RunWithVideoAnswer],
        responses=PAGE_RESPONSES | NOT_FOUND,
    )
    async def list_runs_of_prompt_or_config(
        request: Request, prompt_or_config_id: Annotated[int, id_path], conn: AutocommitConnection, page: PageQueryDep
    ) -> Response:
        found = await provenance.list_runs_of_prompt_or_config(conn, kind, prompt_or_config_id, page.limit, page.cursor)
        return page_answer(request, page.limit, found, [RunWithVideoAnswer.from_row(run) for run in found])


_add_result_routes(prompts, "prompt", _PROMPT_ID)
_add_result_routes(configs, "config", _CONFIG_ID)
