"""Videos."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.services.videos import SOURCE_URL_PATTERN


class VideoAnswer(BaseModel):
    id: str = Field(examples=["demo-talk"])
    filename: str = Field(examples=["demo-talk.mp4"])
    title: str = Field(examples=["Demo Talk"])
    thumbnail_url: str | None = Field(
        description="A path of this server", examples=["/static/thumbnails/demo-talk.jpg"]
    )
    has_audio: bool | None = Field(
        description="Whether its audio has been extracted, so that it can be transcribed; null where it has not and "
        "cannot be, because the video was imported without its file"
    )
    has_transcript: bool


class PlayableCopyAnswer(BaseModel):
    status: str = Field(description="`making`, `ready` or `failed`", examples=["making"])
    reason: str | None = Field(None, description="Why no copy could be made")


class SingleVideoAnswer(VideoAnswer):
    playable_copy: PlayableCopyAnswer | None = Field(
        None,
        description="The copy that `/stream` sends once it is ready; only of a video whose file browsers do not play",
    )
    file_problem: str | None = Field(
        None,
        description="What is wrong with the video's file, where anything is",
        examples=["The file ends early: 12.0 of 20.0 seconds can be played"],
    )


_FILENAME = "Name of the file: what the id and the title are made from where they are not given"
_ID = "Name of the video in addresses: without / ? # % and control characters"
_TITLE = "What the video is called"
_SOURCE_URL = "Where it comes from: http://, https:// or gs://"


class UploadQuery(BaseModel):
    """What is said of a video that is sent as the body itself."""

    filename: str = Field("", max_length=1024, description=_FILENAME, examples=["Demo Talk.mp4"])
    id: str = Field("", max_length=255, description=_ID, examples=["demo-talk"])
    title: str = Field("", max_length=500, description=_TITLE, examples=["Demo Talk"])
    source_url: str = Field("", max_length=4096, description=_SOURCE_URL, examples=["https://cdn.example/talk.mp4"])


class UploadForm(BaseModel):
    """A video as a form, the parts in any order."""

    file: bytes = Field(description="The video; its name is used as `filename` of the query is")
    id: str = Field("", max_length=255, description=_ID, examples=["demo-talk"])
    title: str = Field("", max_length=500, description=_TITLE, examples=["Demo Talk"])
    source_url: str = Field("", max_length=4096, description=_SOURCE_URL, examples=["https://cdn.example/talk.mp4"])


class VideoChangesBody(BaseModel):
    """What to change in a video: null forgets it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"minProperties": 1, "examples": [{"title": "Demo Talk"}, {"source_url": None}]},
    )

    title: str | None = Field(None, min_length=1, max_length=500)
    source_url: str | None = Field(
        None, max_length=4096, description=_SOURCE_URL, json_schema_extra={"pattern": SOURCE_URL_PATTERN}
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("Nothing to change: give title or source_url")
        return self


class DeleteQuery(BaseModel):
    """What a deletion leaves."""

    force: bool = Field(False, description="Delete although a run works on the video")
    skip_local_video: bool = Field(False, description="Keep the video and its file")
    skip_local_audio: bool = Field(False, description="Keep extracted audio that lies in files")
    skip_local_thumbnail: bool = Field(False, description="Keep the video's still picture, and so the video")
    skip_local_transcript: bool = Field(False, description="Keep the transcript, and so the video")
    skip_local_moments: bool = Field(False, description="Keep the moments, and so the video")
    skip_local_clips: bool = Field(False, description="Keep clips that lie in files, and so their moments")
    skip_gcs_audio: bool = Field(False, description="Keep extracted audio that lies in a bucket")
    skip_gcs_clips: bool = Field(False, description="Keep clips that lie in a bucket, and so their moments")
    skip_redis: bool = Field(False, description="Keep the live state of runs and jobs")
    skip_registry: bool = Field(False, description="Keep the source_url of a video that stays")


class DeletedLocally(BaseModel):
    """What is gone. Files of imported libraries stay and count as not deleted."""

    video: bool = Field(description="The file; the row goes with it or, where the file stays, without it")
    audio: bool
    thumbnail: bool
    transcript: bool
    moments: bool
    clips: int = Field(description="Files")


class DeletedFromBucket(BaseModel):
    audio_files: int
    clip_files: int


class Deleted(BaseModel):
    local: DeletedLocally
    gcs: DeletedFromBucket
    redis_keys: int
    url_registry: bool = Field(description="Whether a source_url was forgotten")


class DeletionAnswer(BaseModel):
    status: str = Field(description="`completed`, or `partial` where something could not be deleted: ask again")
    video_id: str
    deleted: Deleted
    errors: list[str] | None
    duration_ms: int
