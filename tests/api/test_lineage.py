"""`GET /api/videos/{id}/lineage`."""

from dataclasses import fields

from httpx import AsyncClient
from pydantic import TypeAdapter

from app.api.provenance import LineageAnswer
from app.database import Connection
from tests.conftest import Statements
from tests.factories import (
    make_clip,
    make_generation_config,
    make_moment,
    make_run,
    make_thumbnail,
    make_transcript,
    make_video,
)


async def test_a_lineage_is_answered_as_it_is_documented(
    client: AsyncClient, conn: Connection, statements: Statements
) -> None:
    video = await make_video(conn, identifier="talk – 1")
    await make_transcript(conn, video_id=video.id, full_text="what was said")
    await make_thumbnail(conn, video_id=video.id)
    config = await make_generation_config(conn)
    await make_run(conn, video_id=video.id, generation_config_id=config.id)
    original = await make_moment(conn, video_id=video.id, generation_config_id=config.id)
    refined = await make_moment(conn, video_id=video.id, parent_id=original.id, generation_config_id=config.id)
    clip = await make_clip(conn, refined)
    await make_thumbnail(conn, clip_id=clip.id)
    with statements:
        answer = await client.get("/api/videos/talk – 1/lineage")
    assert statements == 1
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    documented = TypeAdapter(LineageAnswer).validate_json(answer.content, extra="forbid")
    assert {field.name for field in fields(documented)} == answer.json().keys()
    (moment,) = documented.prompts[0].configs[0].moments
    assert [below.id for below in moment.refinements] == [refined.identifier]
    assert "what was said" not in answer.text


async def test_the_lineage_of_an_unknown_video_is_404(client: AsyncClient) -> None:
    answer = await client.get("/api/videos/nobody/lineage")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Video not found"})
