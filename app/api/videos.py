"""`/api/videos`: list, read, change and delete videos."""

import time
from typing import Annotated, Self
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from app.api.answers import CURSOR_DESCRIPTION, NOT_FOUND, Error, answer_dataclass, json_answer, next_page_header
from app.api.conditional_requests import (
    CONDITIONAL_RESPONSES,
    GZIP_ENCODING,
    HttpValidators,
    accepts_gzip,
    check_preconditions,
    make_revalidation_headers,
)
from app.api.dependencies import FastReadRoute, Limit, OptionalQueryRoute, ResourcesDep, VideoId, get_resources
from app.models.videos import PlayableCopyStatus, describe_early_end
from app.repositories.videos import DetailedVideoCard, VideoCard, VideoChanges
from app.services.deletion import DeletionOptions, VideoDeletionResult, delete_video
from app.services.media import VideosWithAudio
from app.services.videos import SOURCE_URL_PATTERN, BatchedVideoReader, VideoListQuery, update_video

router = APIRouter(prefix="/api/videos", tags=["videos"])
lists = APIRouter(prefix="/api/videos", tags=["videos"], route_class=OptionalQueryRoute)
reads = APIRouter(prefix="/api/videos", tags=["videos"], route_class=FastReadRoute)

SOURCE_URL_DESCRIPTION = "Where it comes from: http://, https:// or gs://"
_REPORTED_STATUSES = frozenset({PlayableCopyStatus.MAKING, PlayableCopyStatus.READY, PlayableCopyStatus.FAILED})
_NO_AUDIO: frozenset[str] = frozenset()  # faster to search than an empty index

Cursor = Annotated[str, Query(max_length=255, description=CURSOR_DESCRIPTION)]


@answer_dataclass
class VideoAnswer:
    id: Annotated[str, Field(examples=["demo-talk"])]
    filename: Annotated[str, Field(examples=["demo-talk.mp4"])]
    title: Annotated[str, Field(examples=["Demo Talk"])]
    thumbnail_url: Annotated[str | None, Field(examples=["/static/thumbnails/demo-talk.jpg"])]
    has_audio: Annotated[bool | None, Field(description="Null where no audio and no file to extract it from exists")]
    has_transcript: bool

    @classmethod
    def from_card(cls, card: VideoCard, videos_with_audio: VideosWithAudio | frozenset[str]) -> Self:
        return cls(
            id=card.identifier,
            filename=card.filename,
            title=card.title,
            thumbnail_url=f"/static/thumbnails/{quote(card.identifier)}.jpg" if card.has_thumbnail else None,
            has_audio=card.identifier in videos_with_audio or (False if card.may_have_file else None),
            has_transcript=card.has_transcript,
        )


@answer_dataclass
class PlayableCopyAnswer:
    status: Annotated[str, Field(description="`making`, `ready` or `failed`", examples=["making"])]
    reason: Annotated[str | None, Field(description="Why no copy could be made")]


@answer_dataclass
class VideoWithFileReport(VideoAnswer):
    """A video whose file is damaged, or is not playable by browsers."""

    playable_copy: Annotated[PlayableCopyAnswer | None, Field(description="Null where browsers play the file itself")]
    file_problem: Annotated[str | None, Field(examples=["The file ends early: 12.0 of 20.0 seconds can be played"])]


SingleVideoAnswer = VideoWithFileReport | VideoAnswer


class VideoChangesBody(BaseModel):
    """Changes of a video; null clears a field."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"minProperties": 1, "examples": [{"title": "Demo Talk"}, {"source_url": None}]},
    )

    title: str | None = Field(None, min_length=1, max_length=500)
    source_url: str | None = Field(
        None, max_length=4096, description=SOURCE_URL_DESCRIPTION, json_schema_extra={"pattern": SOURCE_URL_PATTERN}
    )

    @model_validator(mode="after")
    def _check_something_changes(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("Nothing to change: give title or source_url")
        return self


class DeleteQuery(BaseModel):
    """What a deletion keeps."""

    force: bool = Field(False, description="Delete even while a run uses the video")
    skip_local_video: bool = Field(False, description="Keep the video and its file")
    skip_local_audio: bool = Field(False, description="Keep extracted audio in files")
    skip_local_thumbnail: bool = Field(False, description="Keep the thumbnail, and so the video")
    skip_local_transcript: bool = Field(False, description="Keep the transcript, and so the video")
    skip_local_moments: bool = Field(False, description="Keep the moments, and so the video")
    skip_local_clips: bool = Field(False, description="Keep clips in files, and so their moments")
    skip_gcs_audio: bool = Field(False, description="Keep extracted audio in a bucket")
    skip_gcs_clips: bool = Field(False, description="Keep clips in a bucket, and so their moments")
    skip_redis: bool = Field(False, description="Keep the live state of runs and jobs")
    skip_registry: bool = Field(False, description="Keep the source_url of a video that stays")


@answer_dataclass
class DeletedLocally:
    """What was deleted. Files of imported libraries are kept and not counted."""

    video: Annotated[bool, Field(description="The file; its row is deleted too, or only the row where the file stays")]
    audio: bool
    thumbnail: bool
    transcript: bool
    moments: bool
    clips: Annotated[int, Field(description="Files")]


@answer_dataclass
class DeletedFromBucket:
    audio_files: int
    clip_files: int


@answer_dataclass
class DeletedVideoParts:
    local: DeletedLocally
    gcs: DeletedFromBucket
    redis_keys: int
    url_registry: Annotated[bool, Field(description="Whether a source_url was cleared")]


@answer_dataclass
class VideoDeletionAnswer:
    status: Annotated[str, Field(description="`completed`, or `partial` if something is left: repeat the request")]
    video_id: str
    deleted: DeletedVideoParts
    errors: list[str] | None
    duration_ms: int

    @classmethod
    def from_deletion(cls, video_id: str, deletion: VideoDeletionResult, duration_ms: int) -> Self:
        rows, local_files, bucket_files = deletion.rows, deletion.local_files, deletion.bucket_files
        return cls(
            status="partial" if deletion.errors else "completed",
            video_id=video_id,
            deleted=DeletedVideoParts(
                local=DeletedLocally(
                    video=local_files["video"] + bucket_files["video"] > 0,
                    audio=local_files["audio"] > 0,
                    thumbnail=local_files["thumbnail"] + bucket_files["thumbnail"] > 0,
                    transcript=rows.transcript,
                    moments=rows.moments,
                    clips=local_files["clip"],
                ),
                gcs=DeletedFromBucket(audio_files=bucket_files["audio"], clip_files=bucket_files["clip"]),
                redis_keys=deletion.redis_keys,
                url_registry=rows.source_url,
            ),
            errors=deletion.errors or None,
            duration_ms=duration_ms,
        )


@lists.get("", response_model=list[VideoAnswer], responses=CONDITIONAL_RESPONSES)
async def list_videos(request: Request, limit: Limit = None, cursor: Cursor = "") -> Response:
    """List videos, ordered by id. Without `limit` the whole library; with it, `Link` names the next page."""
    resources = await get_resources(request)
    document = await resources.video_list.get_document(VideoListQuery(limit, cursor), _serialize_video_list)
    gzipped = accepts_gzip(request)
    etag = f'"{document.digest}-gzip"' if gzipped else f'"{document.digest}"'
    headers = make_revalidation_headers(etag)
    if refusal := check_preconditions(request, HttpValidators(etag), headers):
        return refusal
    if document.last_identifier is not None:
        headers |= next_page_header(request, document.last_identifier)
    if gzipped:
        return Response(document.gzipped_json, headers=headers | GZIP_ENCODING, media_type="application/json")
    return Response(document.plain_json, headers=headers, media_type="application/json")


def _serialize_video_list(cards: list[VideoCard], videos_with_audio: VideosWithAudio) -> bytes:
    searched = videos_with_audio or _NO_AUDIO
    return orjson.dumps([VideoAnswer.from_card(card, searched) for card in cards])


@reads.get("/{video_id}", response_model=SingleVideoAnswer, responses=NOT_FOUND)
async def get_video(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """One video."""
    return json_answer(await make_video_answer(resources.reads, video_id))


@router.patch("/{video_id}", response_model=SingleVideoAnswer, responses={**NOT_FOUND, 422: {"model": Error}})
async def edit_video(video_id: VideoId, body: VideoChangesBody, resources: ResourcesDep) -> Response:
    """Correct a video's title or source_url; null clears it."""
    changes: VideoChanges = body.model_dump(include=body.model_fields_set)  # type: ignore[assignment]
    async with resources.database.connect() as conn:
        await update_video(conn, video_id, changes)
    return json_answer(await make_video_answer(resources.reads, video_id))


@router.delete(
    "/{video_id}",
    name="delete_video",
    response_model=VideoDeletionAnswer,
    responses={
        400: {"model": Error, "description": "A run uses the video, and `force` is not set"},
        404: {"model": Error},
        422: {"model": Error},
        503: {"model": Error, "description": "The database, the storage or Redis is unavailable: nothing was deleted"},
    },
)
async def remove_video(video_id: VideoId, query: Annotated[DeleteQuery, Query()], resources: ResourcesDep) -> Response:
    """Delete a video with everything that belongs to it, or what an interrupted deletion has left."""
    started = time.perf_counter()
    deletion = await delete_video(
        resources.database, resources.storage, resources.redis, video_id, DeletionOptions(**query.model_dump())
    )
    duration_ms = round((time.perf_counter() - started) * 1000)
    return json_answer(VideoDeletionAnswer.from_deletion(video_id, deletion, duration_ms))


async def make_video_answer(video_reader: BatchedVideoReader, identifier: str) -> SingleVideoAnswer:
    found = await video_reader.get_video(identifier)
    video = VideoAnswer.from_card(found.card, await video_reader.audio.get_videos_with_audio())
    playable_copy = _make_playable_copy_answer(found)
    file_problem = describe_early_end(found.duration_seconds, found.ends_early, found.declared_seconds)
    if playable_copy is None and not file_problem:
        return video
    return VideoWithFileReport(**vars(video), playable_copy=playable_copy, file_problem=file_problem)


def _make_playable_copy_answer(card: DetailedVideoCard) -> PlayableCopyAnswer | None:
    if card.copy_status is None or card.copy_status not in _REPORTED_STATUSES:
        return None
    return PlayableCopyAnswer(status=card.copy_status, reason=card.copy_reason or None)
