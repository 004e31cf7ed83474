"""Files that runs have left without a row."""

import asyncio
import os
import time
from pathlib import Path

from app.models.run import RunStatus
from app.pipeline.context import RunContext
from app.repositories import VideoRepository
from app.repositories.replaced import ReplacedRepository
from app.repositories.work import Outcome, WorkRepository
from app.services.unused_files import delete_unused_files
from app.storage import clip_folder, thumbnail_folder
from app.storage.folders import path_of
from tests.factories import make_clip, make_moment, make_thumbnail
from tests.pipeline.contexts import make_context

OF_RUN = "talk_0123456789abcdef_{}_clip.mp4"
PICTURE = "talk-{}.jpg"


async def put(context: RunContext, key: str, source: Path, age_hours: float = 0) -> str:
    await asyncio.to_thread(source.write_bytes, b"bytes")
    url = (await context.storage.put(key, source)).url
    then = time.time() - age_hours * 3600
    os.utime(path_of(url), (then, then))
    return url


async def list_files(context: RunContext) -> set[str]:
    folders = (clip_folder("talk"), thumbnail_folder("talk"))
    return {file.url for folder in folders for file in await context.storage.list(folder)}


async def test_files_of_runs_without_a_row_go_when_no_run_is_under_way(own_database_url: str, tmp_path: Path) -> None:
    clips, pictures, source = clip_folder("talk"), thumbnail_folder("talk"), tmp_path / "source"
    async with (
        make_context(own_database_url, tmp_path, video={"identifier": "talk"}) as context,
        context.database.connect() as conn,
    ):
        kept = {
            "clip": await put(context, f"{clips}/{OF_RUN.format('a' * 8)}", source),
            "imported": await put(context, f"{clips}/talk_0123456789abcdef_clip.mp4", source),
            "picture": await put(context, f"{pictures}/{PICTURE.format('a' * 24)}", source, 2),
            "young": await put(context, f"{pictures}/{PICTURE.format('b' * 24)}", source),
            "uploaded": await put(context, f"{pictures}/talk.jpg", source, 2),
        }
        left = {
            await put(context, f"{clips}/{OF_RUN.format('b' * 8)}", source),
            await put(context, f"{pictures}/{PICTURE.format('c' * 24)}", source, 2),
        }
        moment = await make_moment(conn, video_id=context.run.video_id)
        clip = await make_clip(conn, moment, cloud_url=kept["clip"])
        await make_thumbnail(conn, clip_id=clip.id, cloud_url=kept["picture"])
        await delete_unused_files(context.database, context.storage, "talk")
        assert await list_files(context) == {*kept.values(), *left}  # the run may give them a row yet
        async with conn.transaction():
            await WorkRepository(conn).finish(context.run, Outcome(RunStatus.CANCELLED))
        await delete_unused_files(context.database, context.storage, "talk")
        assert await list_files(context) == set(kept.values())


async def test_a_file_that_a_run_has_replaced_is_referred_to_until_the_run_ends(
    own_database_url: str, tmp_path: Path
) -> None:
    async with (
        make_context(own_database_url, tmp_path, video={"identifier": "talk"}) as context,
        context.database.connect() as conn,
    ):
        moment = await make_moment(conn, video_id=context.run.video_id)
        await make_clip(conn, moment, cloud_url="file:///media/old.mp4")
        await ReplacedRepository(conn).replace(context.run.id, [moment.id], [])
        assert await VideoRepository(conn).refers_to("talk", "file:///media/old.mp4")
        async with conn.transaction():
            await WorkRepository(conn).finish(context.run, Outcome(RunStatus.COMPLETED))
        assert not await VideoRepository(conn).refers_to("talk", "file:///media/old.mp4")
