"""The peer to compare with: the same answers from SQLAlchemy's async ORM on asyncpg, with pydantic response models.

A run is started as taskiq's users do it: a row, and after the commit a task. Nothing keeps two from starting at once.
"""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Query, Response
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload, undefer_group
from sqlalchemy.sql.base import ExecutableOption
from taskiq_redis import RedisStreamBroker

from tests.performance.peer_models import GenerationConfig, Moment, PipelineRun, Prompt, Transcript, Video
from tests.performance.peer_orm_lineage import LineageOut, read_lineage

MAX_MOMENT_SECONDS = 120

engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"),
    pool_size=5,
    max_overflow=10,
    pool_timeout=30,
)
async_session = async_sessionmaker(engine, expire_on_commit=False)
broker = RedisStreamBroker(os.environ["REDIS_URL"], queue_name="peer:orm", maxlen=10_000)


@broker.task
async def run_pipeline(identifier: str) -> None:
    """Stand for what a worker does: none is measured."""


async def get_db() -> AsyncIterator[AsyncSession]:
    async with async_session() as session:
        try:
            yield session
            await session.commit()
        except Exception:
            await session.rollback()
            raise


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await broker.shutdown()
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
Session = Annotated[AsyncSession, Depends(get_db)]


class VideoOut(BaseModel):
    id: str
    filename: str
    title: str
    thumbnail_url: str | None
    has_audio: bool
    has_transcript: bool


class MomentIn(BaseModel):
    start_time: float
    end_time: float
    title: str


class MomentOut(BaseModel):
    id: str
    start_time: float
    end_time: float
    title: str
    is_refined: bool
    parent_id: str | None
    model_name: str | None
    generation_config: dict[str, Any] | None


class StartOut(BaseModel):
    message: str
    video_id: str


class WordTimestamp(BaseModel):
    word: str
    start: float
    end: float


class SegmentTimestamp(BaseModel):
    text: str
    start: float
    end: float
    word_count: int


class TranscriptMetadata(BaseModel):
    total_segments: int
    total_words: int
    duration: float | None


class TranscriptOut(BaseModel):
    transcription: str
    processing_time: float | None
    word_timestamps: list[WordTimestamp]
    segment_timestamps: list[SegmentTimestamp]
    metadata: TranscriptMetadata


class HitOut(BaseModel):
    video_id: str
    video_title: str
    rank: float
    snippet: str


class SearchOut(BaseModel):
    query: str
    hits: list[HitOut]


@app.get("/api/videos", response_model=list[VideoOut])
async def list_videos(
    db: Session, response: Response, limit: Annotated[int | None, Query(ge=1, le=1000)] = None, cursor: str = ""
) -> list[VideoOut]:
    videos = (
        await db.scalars(
            select(Video)
            .where(Video.identifier > cursor)
            .order_by(Video.identifier)
            .limit(limit)
            .options(undefer_group("card"))
        )
    ).all()
    if limit is not None and len(videos) == limit:
        response.headers["Link"] = f'</api/videos?limit={limit}&cursor={videos[-1].identifier}>; rel="next"'
    return [show_video(video) for video in videos]


@app.get("/api/videos/{identifier}", response_model=VideoOut)
async def get_video(db: Session, identifier: str) -> VideoOut:
    return show_video(await find_video(db, identifier, undefer_group("card")))


@app.get("/api/videos/{identifier}/moments", response_model=list[MomentOut])
async def list_moments(db: Session, identifier: str) -> list[MomentOut]:
    video = await find_video(db, identifier)
    moments = await db.scalars(
        select(Moment)
        .where(Moment.video_id == video.id)
        .order_by(Moment.id)
        .options(
            joinedload(Moment.parent).load_only(Moment.identifier),
            joinedload(Moment.generation_config).joinedload(GenerationConfig.prompt).defer(Prompt.system_prompt),
        )
    )
    return [show_moment(moment) for moment in moments]


@app.post("/api/videos/{identifier}/moments", response_model=MomentOut, status_code=201)
async def add_moment(db: Session, identifier: str, body: MomentIn) -> MomentOut:
    video = await find_video(db, identifier)
    check_moment(body, video)
    overlapping = await db.scalar(
        select(Moment)
        .where(Moment.video_id == video.id, Moment.start_time < body.end_time, Moment.end_time > body.start_time)
        .order_by(Moment.id)
        .limit(1)
    )
    if overlapping is not None:
        times = f"({overlapping.start_time}s - {overlapping.end_time}s)"
        raise HTTPException(400, f"Moment overlaps with existing moment '{overlapping.title}' {times}")
    moment = Moment(
        identifier=secrets.token_hex(8),
        video_id=video.id,
        start_time=body.start_time,
        end_time=body.end_time,
        title=body.title,
    )
    db.add(moment)
    await db.commit()
    return MomentOut(
        id=moment.identifier,
        start_time=moment.start_time,
        end_time=moment.end_time,
        title=moment.title,
        is_refined=moment.is_refined,
        parent_id=None,
        model_name=None,
        generation_config=None,
    )


@app.post("/api/videos/{identifier}/process-audio", response_model=StartOut)
async def process_audio(db: Session, identifier: str) -> StartOut:
    video = await find_video(db, identifier)
    running = await db.scalar(
        select(PipelineRun)
        .where(
            PipelineRun.video_id == video.id,
            PipelineRun.status == "running",
            PipelineRun.pipeline_type.in_(("full", "audio_only")),
        )
        .limit(1)
    )
    if running is not None:
        raise HTTPException(409, "Audio processing already in progress for this video")
    check_files(identifier, video)
    now = datetime.now(UTC)
    run = PipelineRun(
        identifier=f"pipeline:{identifier}:{int(now.timestamp() * 1000)}",
        video_id=video.id,
        pipeline_type="audio_only",
        status="running",
        started_at=now.replace(tzinfo=None),
    )
    db.add(run)
    await db.commit()
    await run_pipeline.kiq(run.identifier)
    return StartOut(message="Audio processing started", video_id=identifier)


@app.get("/api/videos/{identifier}/transcript", response_model=TranscriptOut)
async def get_transcript(db: Session, identifier: str) -> TranscriptOut:
    transcript = await db.scalar(select(Transcript).join(Transcript.video).where(Video.identifier == identifier))
    if transcript is None:
        await find_video(db, identifier)
        raise HTTPException(404, "Transcript not found for this video")
    segments = transcript.segment_timestamps
    return TranscriptOut.model_validate(
        {
            "transcription": transcript.full_text,
            "processing_time": transcript.processing_time_seconds,
            "word_timestamps": transcript.word_timestamps,
            "segment_timestamps": segments,
            "metadata": {
                "total_segments": transcript.number_of_segments,
                "total_words": transcript.number_of_words,
                "duration": segments[-1]["end"] if segments else None,
            },
        }
    )


@app.get("/api/videos/{identifier}/lineage", response_model=LineageOut)
async def get_lineage(db: Session, identifier: str) -> LineageOut:
    lineage = await read_lineage(db, identifier)
    if lineage is None:
        raise HTTPException(404, "Video not found")
    return lineage


@app.get("/api/search", response_model=SearchOut)
async def search(db: Session, q: str, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> SearchOut:
    query = func.websearch_to_tsquery("english", q)
    document = func.to_tsvector("english", Transcript.full_text)
    rank = func.ts_rank(document, query).label("rank")
    snippet = func.ts_headline("english", Transcript.full_text, query)
    rows = await db.execute(
        select(Video, rank, snippet)
        .join(Transcript.video)
        .where(document.op("@@")(query))
        .order_by(rank.desc(), Transcript.id)
        .limit(limit)
    )
    hits = [
        HitOut(video_id=video.identifier, video_title=video.display_title, rank=rank, snippet=snippet)
        for video, rank, snippet in rows
    ]
    return SearchOut(query=q, hits=hits)


async def find_video(db: AsyncSession, identifier: str, *options: ExecutableOption) -> Video:
    video = await db.scalar(select(Video).where(Video.identifier == identifier).options(*options))
    if video is None:
        raise HTTPException(404, "Video not found")
    return video


def show_video(video: Video) -> VideoOut:
    return VideoOut(
        id=video.identifier,
        filename=video.filename,
        title=video.display_title,
        thumbnail_url=video.thumbnail_url,
        has_audio=False,  # no audio is extracted in the data that is measured over
        has_transcript=video.has_transcript,
    )


def show_moment(moment: Moment) -> MomentOut:
    return MomentOut(
        id=moment.identifier,
        start_time=moment.start_time,
        end_time=moment.end_time,
        title=moment.title,
        is_refined=moment.is_refined,
        parent_id=moment.parent.identifier if moment.parent else None,
        model_name=moment.generation_model,
        generation_config=show_config(moment.generation_config) if moment.generation_config else None,
    )


def show_config(config: GenerationConfig) -> dict[str, Any]:
    values = {
        "model": config.model,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k,
        "operation_type": config.operation_type,
        "user_prompt": config.prompt.user_prompt,
        "min_moment_length": config.min_moment_length,
        "max_moment_length": config.max_moment_length,
        "min_moments": config.min_moments,
        "max_moments": config.max_moments,
    }
    return {name: value for name, value in values.items() if value is not None}


def check_files(identifier: str, video: Video) -> None:
    file = Path(urlsplit(video.cloud_url).path)
    if (file.parents[1] / "audio" / f"{identifier}.wav").exists():
        raise HTTPException(400, "Audio file already exists for this video")
    if not file.exists():
        raise HTTPException(400, "The video file is missing, so its audio cannot be extracted")


def check_moment(body: MomentIn, video: Video) -> None:
    length = body.end_time - body.start_time
    duration = video.duration_seconds
    if not body.title.strip():
        raise HTTPException(400, "title must be a non-empty string")
    if body.start_time < 0:
        raise HTTPException(400, "start_time must be >= 0")
    if duration is not None and body.end_time > duration:
        raise HTTPException(400, f"end_time must be <= video duration ({duration} seconds)")
    if length <= 0:
        raise HTTPException(400, "end_time must be greater than start_time")
    if length > MAX_MOMENT_SECONDS:
        raise HTTPException(400, f"Moment duration ({length} seconds) exceeds maximum of 120 seconds (2 minutes)")
