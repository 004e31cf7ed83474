"""`/api/videos/{id}/moments`"""

from typing import Annotated, Any, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.responses import Response

from app.api.answers import NOT_FOUND, Error, Responses, Seconds, answer_dataclass, embed_json, json_answer
from app.api.dependencies import (
    AutocommitConnection,
    FastReadRoute,
    MomentId,
    ResourcesDep,
    TransactionConnection,
    VideoId,
)
from app.core.validation import InputLine
from app.repositories.moments import MomentWithConfig
from app.services import deletion, moments
from app.services.deletion import MomentDeletionResult

router = APIRouter(prefix="/api/videos/{video_id}/moments", tags=["moments"])
reads = APIRouter(prefix="/api/videos/{video_id}/moments", tags=["moments"], route_class=FastReadRoute)
_RULE_BROKEN: Responses = {**NOT_FOUND, 400: {"model": Error, "description": "A rule for moments is broken"}}


@answer_dataclass
class MomentAnswer:
    id: Annotated[str, Field(examples=["7621a017eec7482f"])]
    start_time: Seconds
    end_time: Seconds
    title: str
    is_refined: bool
    parent_id: Annotated[str | None, Field(description="The original that this moment was refined from")]
    model_name: Annotated[str | None, Field(description="Null for a moment that was added by hand")]
    generation_config: Annotated[
        dict[str, Any] | None,
        Field(description="Null as `model_name`", examples=[{"model": "qwen3_vl_fp8", "operation_type": "generation"}]),
    ]

    @classmethod
    def from_row(cls, moment: MomentWithConfig) -> "MomentAnswer":
        config = moment.generation_config
        plain = MomentAnswer(
            id=moment.identifier,
            start_time=moment.start_time,
            end_time=moment.end_time,
            title=moment.title,
            is_refined=moment.is_refined,
            parent_id=moment.parent_identifier,
            model_name=moment.generation_model,
            generation_config=None if config is None else embed_json(config),
        )
        if moment.score is None:
            return plain
        return ScoredMomentAnswer(**vars(plain), score=moment.score, scoring_model=moment.scoring_model)


@answer_dataclass
class ScoredMomentAnswer(MomentAnswer):
    score: Annotated[int, Field(description="0 to 10")]
    scoring_model: Annotated[str | None, Field(description="Who gave the score")]


class NewMomentBody(BaseModel):
    """A moment to add by hand. Further fields are ignored."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"start_time": 0, "end_time": 5, "title": "Intro"}]})

    start_time: Seconds
    end_time: Seconds
    title: InputLine = Field(max_length=500)


class MomentEditBody(BaseModel):
    """Changes of a moment: at least one of these fields, and no others."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "minProperties": 1,
            "examples": [{"title": "Intro", "end_time": 7.5}, {"score": 8, "scoring_model": "judge"}, {"score": None}],
        },
    )

    # A factory, because a default would be documented: a missing field is not changed.
    title: InputLine = Field(default_factory=str, max_length=500)
    start_time: Seconds = Field(default_factory=float)
    end_time: Seconds = Field(default_factory=float)
    score: int | None = Field(None, strict=True, ge=0, le=10, description="With `scoring_model`; null clears both")
    scoring_model: InputLine | None = Field(None, min_length=1, max_length=100, description="Who gave the score")

    @model_validator(mode="after")
    def _check_fields_given_together(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("At least one of title, start_time, end_time and score must be given")
        alone = "scoring_model" in self.model_fields_set and "score" not in self.model_fields_set
        if alone or (self.score is None) != (self.scoring_model is None):
            raise ValueError("score and scoring_model must be given together")
        return self


@answer_dataclass
class DeletedMomentAnswer:
    moment: Annotated[str, Field(examples=["7621a017eec7482f"])]
    clip: Annotated[bool, Field(description="Whether it had a clip, which was deleted too")]
    thumbnail: Annotated[bool, Field(description="Whether its clip had a thumbnail, which was deleted too")]
    files: Annotated[int, Field(description="Deleted files of this server; those of imported libraries are kept")]


@answer_dataclass
class MomentDeletionAnswer:
    deleted: DeletedMomentAnswer
    orphaned: Annotated[list[str], Field(description="Refined moments that have no parent from now on")]
    errors: Annotated[list[str] | None, Field(description="What could not be deleted: repeat the request")]

    @classmethod
    def from_deletion(cls, moment_id: str, deletion: MomentDeletionResult) -> Self:
        return cls(
            deleted=DeletedMomentAnswer(
                moment=moment_id, clip=deletion.had_clip, thumbnail=deletion.had_thumbnail, files=deletion.files
            ),
            orphaned=deletion.orphaned,
            errors=deletion.errors or None,
        )


@reads.get("", response_model=list[ScoredMomentAnswer | MomentAnswer], responses=NOT_FOUND)
async def list_moments(request: Request, video_id: VideoId, resources: ResourcesDep) -> Response:
    """List a video's moments in the order they were added."""
    return json_answer([MomentAnswer.from_row(moment) for moment in await resources.reads.list_moments(video_id)])


@router.post("", status_code=201, response_model=ScoredMomentAnswer | MomentAnswer, responses=_RULE_BROKEN)
async def add_moment(video_id: VideoId, body: NewMomentBody, conn: AutocommitConnection) -> Response:
    """Add a moment by hand: inside the video, at most 120 seconds long, and over no other moment."""
    added = await moments.add_moment(conn, video_id, body.start_time, body.end_time, body.title)
    return json_answer(MomentAnswer.from_row(added), 201)


@router.patch("/{moment_id}", response_model=ScoredMomentAnswer | MomentAnswer, responses=_RULE_BROKEN)
async def edit_moment(
    video_id: VideoId, moment_id: MomentId, body: MomentEditBody, conn: TransactionConnection
) -> Response:
    """Change a moment's title, times or score; new times may overlap its original and its refined moments only."""
    edit = body.model_dump(exclude_unset=True)
    return json_answer(MomentAnswer.from_row(await moments.edit_moment(conn, video_id, moment_id, **edit)))


@router.delete("/{moment_id}", response_model=MomentDeletionAnswer, responses=NOT_FOUND)
async def delete_moment(video_id: VideoId, moment_id: MomentId, resources: ResourcesDep) -> Response:
    """Delete a moment, its clip and the clip's thumbnail; moments refined from it stay, without a parent."""
    done = await deletion.delete_moment(resources.database, resources.storage, video_id, moment_id)
    return json_answer(MomentDeletionAnswer.from_deletion(moment_id, done))
