"""What was made of a video, loaded eagerly and shown by pydantic models as an ORM's user writes them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer, joinedload, selectinload

from tests.performance.peer_models import Clip, GenerationConfig, Moment, PipelineRun, Transcript, Video

Time = Annotated[datetime, AfterValidator(lambda time: time.replace(tzinfo=UTC))]


class FromRow(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class PictureOut(FromRow):
    id: int
    file_size_kb: int | None
    created_at: Time


class ClipOut(FromRow):
    id: int
    start_time: float
    end_time: float
    padding_left: float
    padding_right: float
    file_size_kb: int | None
    format: str | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    created_at: Time
    thumbnail: PictureOut | None


class MomentNode(BaseModel):
    id: str
    parent_id: str | None
    start_time: float
    end_time: float
    title: str
    is_refined: bool
    model_name: str | None
    generation_config_id: int | None
    score: int | None
    scoring_model: str | None
    scored_at: Time | None
    created_at: Time
    updated_at: Time
    clip: ClipOut | None
    refinements: list[Self]


class ConfigNode(FromRow):
    id: int
    transcript_id: int | None
    model: str
    operation_type: str
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: float | None
    max_moment_length: float | None
    min_moments: int | None
    max_moments: int | None
    created_at: Time
    moments: list[MomentNode] = []


class PromptNode(FromRow):
    id: int
    user_prompt: str
    system_prompt: str
    created_at: Time
    configs: list[ConfigNode] = []


class TranscriptNode(FromRow):
    id: int
    language: str
    number_of_words: int | None
    number_of_segments: int | None
    transcription_service: str | None
    processing_time_seconds: float | None
    created_at: Time


class RunOut(BaseModel):
    id: str
    generation_config_id: int | None
    pipeline_type: str
    status: str
    started_at: Time
    completed_at: Time | None
    duration_seconds: float | None
    total_moments_generated: int | None
    total_clips_created: int | None
    error_stage: str | None
    error_message: str | None
    created_at: Time


class LineageOut(BaseModel):
    id: str
    title: str | None
    source_url: str | None
    duration_seconds: float | None
    file_size_kb: int | None
    video_codec: str | None
    audio_codec: str | None
    resolution: str | None
    frame_rate: float | None
    created_at: Time
    thumbnail: PictureOut | None
    transcript: TranscriptNode | None
    prompts: list[PromptNode]
    by_hand: list[MomentNode]
    runs: list[RunOut]


async def read_lineage(db: AsyncSession, identifier: str) -> LineageOut | None:
    video = await db.scalar(
        select(Video)
        .where(Video.identifier == identifier)
        .options(
            selectinload(Video.thumbnails),
            selectinload(Video.transcripts).options(
                defer(Transcript.full_text), defer(Transcript.word_timestamps), defer(Transcript.segment_timestamps)
            ),
            selectinload(Video.moments).joinedload(Moment.clip).joinedload(Clip.thumbnail),
            selectinload(Video.runs),
        )
    )
    if video is None:
        return None
    transcript = video.transcripts[0] if video.transcripts else None
    tops = build_trees(video.moments)
    return LineageOut(
        id=video.identifier,
        title=video.title,
        source_url=video.source_url,
        duration_seconds=video.duration_seconds,
        file_size_kb=video.file_size_kb,
        video_codec=video.video_codec,
        audio_codec=video.audio_codec,
        resolution=video.resolution,
        frame_rate=video.frame_rate,
        created_at=video.created_at,
        thumbnail=PictureOut.model_validate(video.thumbnails[0]) if video.thumbnails else None,
        transcript=TranscriptNode.model_validate(transcript) if transcript else None,
        prompts=await load_prompts(db, video, transcript, tops),
        by_hand=tops.get(None, []),
        runs=[show_run(run) for run in video.runs],
    )


async def load_prompts(
    db: AsyncSession, video: Video, transcript: Transcript | None, tops: dict[int | None, list[MomentNode]]
) -> list[PromptNode]:
    used = {row.generation_config_id for row in (*video.moments, *video.runs)} - {None}
    configs = await db.scalars(
        select(GenerationConfig)
        .where(
            or_(
                GenerationConfig.id.in_(used), GenerationConfig.transcript_id == (transcript.id if transcript else None)
            )
        )
        .order_by(GenerationConfig.prompt_id, GenerationConfig.id)
        .options(joinedload(GenerationConfig.prompt))
    )
    prompts: dict[int, PromptNode] = {}
    for config in configs:
        prompt = prompts.setdefault(config.prompt_id, PromptNode.model_validate(config.prompt))
        shown = ConfigNode.model_validate(config)
        shown.moments = tops.get(config.id, [])
        prompt.configs.append(shown)
    return list(prompts.values())


def build_trees(moments: Sequence[Moment]) -> dict[int | None, list[MomentNode]]:
    """Return the moments that refine no other one, by config, each with its refinements below it."""
    identifiers = {moment.id: moment.identifier for moment in moments}
    shown = {moment.id: show_moment(moment, identifiers) for moment in moments}
    tops: dict[int | None, list[MomentNode]] = {}
    for moment in moments:
        if moment.parent_id is None:
            tops.setdefault(moment.generation_config_id, []).append(shown[moment.id])
        else:
            shown[moment.parent_id].refinements.append(shown[moment.id])
    return tops


def show_moment(moment: Moment, identifiers: dict[int, str]) -> MomentNode:
    return MomentNode(
        id=moment.identifier,
        parent_id=None if moment.parent_id is None else identifiers[moment.parent_id],
        start_time=moment.start_time,
        end_time=moment.end_time,
        title=moment.title,
        is_refined=moment.is_refined,
        model_name=moment.generation_model,
        generation_config_id=moment.generation_config_id,
        score=moment.score,
        scoring_model=moment.scoring_model,
        scored_at=moment.scored_at,
        created_at=moment.created_at,
        updated_at=moment.updated_at,
        clip=ClipOut.model_validate(moment.clip) if moment.clip else None,
        refinements=[],
    )


def show_run(run: PipelineRun) -> RunOut:
    return RunOut(
        id=run.identifier,
        generation_config_id=run.generation_config_id,
        pipeline_type=run.pipeline_type,
        status=run.status,
        started_at=run.started_at,
        completed_at=run.completed_at,
        duration_seconds=run.duration_seconds,
        total_moments_generated=run.total_moments_generated,
        total_clips_created=run.total_clips_created,
        error_stage=run.error_stage,
        error_message=run.error_message,
        created_at=run.created_at,
    )
