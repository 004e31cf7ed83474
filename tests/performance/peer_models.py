"""The tables as SQLAlchemy models, as the plan of the database describes them."""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, String, Text, exists, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Transcript(Base):
    __tablename__ = "transcripts"

    id: Mapped[int] = mapped_column(primary_key=True)
    video_id: Mapped[int] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"), unique=True)
    full_text: Mapped[str] = mapped_column(Text)
    word_timestamps: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    segment_timestamps: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    language: Mapped[str] = mapped_column(String(10), default="en")
    number_of_words: Mapped[int | None]
    number_of_segments: Mapped[int | None]
    transcription_service: Mapped[str | None] = mapped_column(String(50))
    processing_time_seconds: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    video: Mapped["Video"] = relationship(back_populates="transcripts")


class Prompt(Base):
    __tablename__ = "prompts"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_prompt: Mapped[str] = mapped_column(Text)
    system_prompt: Mapped[str] = mapped_column(Text)
    prompt_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GenerationConfig(Base):
    __tablename__ = "generation_configs"

    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompts.id", ondelete="CASCADE"))
    transcript_id: Mapped[int | None] = mapped_column(ForeignKey("transcripts.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(100))
    operation_type: Mapped[str] = mapped_column(String(50))
    temperature: Mapped[float | None] = mapped_column(Float)
    top_p: Mapped[float | None] = mapped_column(Float)
    top_k: Mapped[int | None]
    min_moment_length: Mapped[float | None] = mapped_column(Float)
    max_moment_length: Mapped[float | None] = mapped_column(Float)
    min_moments: Mapped[int | None]
    max_moments: Mapped[int | None]
    config_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    prompt: Mapped[Prompt] = relationship()
    transcript: Mapped[Transcript | None] = relationship()


class Moment(Base):
    __tablename__ = "moments"

    id: Mapped[int] = mapped_column(primary_key=True)
    identifier: Mapped[str] = mapped_column(String(20), unique=True)
    video_id: Mapped[int] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"))
    start_time: Mapped[float] = mapped_column(Float)
    end_time: Mapped[float] = mapped_column(Float)
    title: Mapped[str] = mapped_column(String(500))
    is_refined: Mapped[bool] = mapped_column(default=False)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("moments.id", ondelete="SET NULL"))
    generation_model: Mapped[str | None] = mapped_column(String(100))
    generation_config_id: Mapped[int | None] = mapped_column(ForeignKey("generation_configs.id", ondelete="CASCADE"))
    score: Mapped[int | None]
    scoring_model: Mapped[str | None] = mapped_column(String(100))
    scored_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    video: Mapped["Video"] = relationship(back_populates="moments")
    parent: Mapped["Moment | None"] = relationship(remote_side=id)
    generation_config: Mapped[GenerationConfig | None] = relationship()
    clip: Mapped["Clip | None"] = relationship()


class Clip(Base):
    __tablename__ = "clips"

    id: Mapped[int] = mapped_column(primary_key=True)
    moment_id: Mapped[int] = mapped_column(ForeignKey("moments.id", ondelete="CASCADE"), unique=True)
    video_id: Mapped[int] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"))
    cloud_url: Mapped[str] = mapped_column(Text)
    start_time: Mapped[float] = mapped_column(Float)
    end_time: Mapped[float] = mapped_column(Float)
    padding_left: Mapped[float] = mapped_column(Float)
    padding_right: Mapped[float] = mapped_column(Float)
    file_size_kb: Mapped[int | None] = mapped_column(BigInteger)
    format: Mapped[str | None] = mapped_column(String(20))
    video_codec: Mapped[str | None] = mapped_column(String(50))
    audio_codec: Mapped[str | None] = mapped_column(String(50))
    resolution: Mapped[str | None] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    thumbnail: Mapped["Thumbnail | None"] = relationship()


class PipelineRun(Base):
    __tablename__ = "pipeline_history"

    id: Mapped[int] = mapped_column(primary_key=True)
    identifier: Mapped[str] = mapped_column(String(100), unique=True)
    video_id: Mapped[int] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"))
    generation_config_id: Mapped[int | None] = mapped_column(ForeignKey("generation_configs.id", ondelete="CASCADE"))
    pipeline_type: Mapped[str] = mapped_column(String(50))
    status: Mapped[str] = mapped_column(String(20))
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    duration_seconds: Mapped[float | None] = mapped_column(Float)
    total_moments_generated: Mapped[int | None]
    total_clips_created: Mapped[int | None]
    error_stage: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Thumbnail(Base):
    __tablename__ = "thumbnails"

    id: Mapped[int] = mapped_column(primary_key=True)
    video_id: Mapped[int | None] = mapped_column(ForeignKey("videos.id", ondelete="CASCADE"))
    clip_id: Mapped[int | None] = mapped_column(ForeignKey("clips.id", ondelete="CASCADE"))
    cloud_url: Mapped[str] = mapped_column(Text)
    file_size_kb: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Video(Base):
    __tablename__ = "videos"

    id: Mapped[int] = mapped_column(primary_key=True)
    identifier: Mapped[str] = mapped_column(String(255), unique=True)
    source_url: Mapped[str | None] = mapped_column(Text)
    cloud_url: Mapped[str] = mapped_column(Text)
    title: Mapped[str | None] = mapped_column(String(500))
    duration_seconds: Mapped[float | None] = mapped_column(Float)
    file_size_kb: Mapped[int | None] = mapped_column(BigInteger)
    video_codec: Mapped[str | None] = mapped_column(String(50))
    audio_codec: Mapped[str | None] = mapped_column(String(50))
    resolution: Mapped[str | None] = mapped_column(String(20))
    frame_rate: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    transcripts: Mapped[list[Transcript]] = relationship(back_populates="video")
    moments: Mapped[list[Moment]] = relationship(back_populates="video", order_by=Moment.id)
    thumbnails: Mapped[list[Thumbnail]] = relationship()
    runs: Mapped[list[PipelineRun]] = relationship(order_by=(PipelineRun.started_at, PipelineRun.identifier))

    has_transcript: Mapped[bool] = column_property(
        exists().where(Transcript.video_id == id).correlate_except(Transcript),
        deferred=True,
        group="card",
    )
    has_thumbnail: Mapped[bool] = column_property(
        exists().where(Thumbnail.video_id == id).correlate_except(Thumbnail),
        deferred=True,
        group="card",
    )

    @property
    def filename(self) -> str:
        return PurePosixPath(self.cloud_url).name

    @property
    def display_title(self) -> str:
        return self.title or self.identifier.replace("-", " ").replace("_", " ").title()

    @property
    def thumbnail_url(self) -> str | None:
        return f"/static/thumbnails/{self.identifier}.jpg" if self.has_thumbnail else None
