import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.ai.protocols import FindResult, FoundMoment
from app.core.errors import InvalidMoment, ModelAnswerInvalid, RunLost, StageFailed, TransientFailure
from app.database import Connection
from app.models import Moment
from app.models.runs import RunOutcome, RunStatus, StageRecord, StageStatus
from app.models.stages import STAGE_TABLE, Stage
from app.pipeline.context import RunContext
from app.pipeline.files import AUDIO_NAME, delete_unused_files
from app.pipeline.stages import generation
from app.pipeline.stages.generation import find_scene_cuts_in_file
from app.repositories import (
    ClipRepository,
    GenerationConfigRepository,
    MomentRepository,
    PromptRepository,
    RunRepository,
    VideoRepository,
)
from app.repositories.stages import ClaimedRunRepository
from app.services.moments import add_moment
from app.storage import clip_folder_key
from tests.factories import make_clip, make_generation_config, make_moment, make_thumbnail, make_transcript
from tests.media.movies import make_colour_movie
from tests.pipeline.contexts import make_context, take_over
from tests.pipeline.scripted_models import USAGE, ScriptedFinder, ScriptedModels, found, talk
from tests.runs import set_record

_FOUND = found((10.0, 70.0, "One"), (80.0, 150.0, "Two"))


@asynccontextmanager
async def _ready(url: str, folder: Path, finder: ScriptedFinder, **values: Any) -> AsyncIterator[RunContext]:
    """A run over a video of 300 s in which something is said in each second."""
    async with make_context(url, folder, models=ScriptedModels(finder=finder), **values) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, **talk(300))
        yield context


async def _list(context: RunContext) -> list[Moment]:
    async with context.database.connect() as conn:
        return await MomentRepository(conn).list_by_video(context.run.video_id)


def _titles(moments: Sequence[Moment]) -> list[str]:
    return [moment.title for moment in moments]


async def _make_generated(conn: Connection, video_id: int, **values: Any) -> Moment:
    config = await make_generation_config(conn)
    defaults = {"generation_model": "old/finder", "generation_config_id": config.id}
    return await make_moment(conn, video_id=video_id, **(defaults | values))


async def _raw_answer(context: RunContext) -> str | None:
    async with context.database.connect() as conn:
        cursor = await conn.execute("SELECT raw_answer FROM pipeline.runs WHERE run_id = %s", (context.run.id,))
        row = await cursor.fetchone()
    return row[0] if row else None


async def test_stores_what_is_found_with_the_model_that_found_it(own_database_url: str, tmp_path: Path) -> None:
    seen: list[object] = []

    async def look() -> None:
        seen.append(context.progress)

    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND, meanwhile=look), min_moments=2) as context:
        assert await generation.skip_reason(context) is None
        result = await generation.run_stage(context)
        moments = await _list(context)
    assert [(each.start_time, each.end_time, each.title) for each in moments] == [(10, 70, "One"), (80, 150, "Two")]
    assert all(len(each.identifier) == 16 and int(each.identifier, 16) for each in moments)
    assert {(each.is_refined, each.parent_id, each.generation_model) for each in moments} == {
        (False, None, "scripted/finder-2b")
    }
    usage = {"calls": 1, "seconds": 0.5, "prompt_tokens": 100, "completion_tokens": 10}
    assert result == {"moments": 2, "replaced": 0, "model": "scripted/finder-2b", "usage": usage}
    assert [*seen, context.progress] == [{"percentage": 50}, {"percentage": 100}]


async def test_prompt_and_config_are_rows_before_the_model_is_asked(own_database_url: str, tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    async def look() -> None:
        async with context.database.connect() as conn:
            run = await RunRepository(conn).get(context.run.id)
            assert run is not None
            config = await GenerationConfigRepository(conn).get(run.generation_config_id or 0)
            assert config is not None
            prompt = await PromptRepository(conn).get(config.prompt_id)
            assert prompt is not None
            seen.append((prompt.user_prompt, prompt.system_prompt, config.model, config.operation_type))
            seen.append((config.temperature, config.top_p, config.top_k))
            seen.append((config.min_moment_length, config.max_moment_length, config.min_moments, config.max_moments))
            seen.append((config.id,))

    finder = ScriptedFinder(_FOUND, meanwhile=look)
    wishes = {
        "generation_model": "minimax",
        "generation_temperature": 0.3,
        "generation_prompt": "Find jokes",
        "min_moment_length": 20.0,
        "max_moment_length": 90.0,
        "min_moments": 2,
        "max_moments": 5,
    }
    async with _ready(own_database_url, tmp_path, finder, **wishes) as context:
        await generation.run_stage(context)
        moments = await _list(context)
    assert seen[:3] == [
        ("Find jokes", "{user_prompt} in {transcript}", "minimax", "generation"),
        (0.3, 0.9, 20),
        (20.0, 90.0, 2, 5),
    ]
    assert {moment.generation_config_id for moment in moments} == {seen[3][0]}
    [request] = finder.asked
    assert (request.prompt, request.temperature, request.duration_seconds) == ("Find jokes", 0.3, 300.0)
    assert (request.min_length, request.max_length, request.min_count, request.max_count) == (20.0, 90.0, 2, 5)


async def test_where_this_machine_finds_moments_their_config_names_its_engine(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder(_FOUND, is_local=True, model="local (tiny-2)", parameters={})
    async with _ready(own_database_url, tmp_path, finder, generation_model="minimax") as context:
        await generation.run_stage(context)
        config_id = (await _list(context))[0].generation_config_id
        async with context.database.connect() as conn:
            config = await GenerationConfigRepository(conn).get(config_id or 0)
    assert config is not None
    assert (config.model, config.temperature, config.min_moment_length) == ("local (tiny-2)", None, 60.0)


async def test_the_finder_gets_audio_and_video_that_lie_here(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(_FOUND)
    video_file = tmp_path / "library" / "talk.mp4"
    async with _ready(own_database_url, tmp_path, finder, video={"cloud_url": video_file.as_uri()}) as context:
        video_file.write_bytes(b"a video")
        (context.folder / AUDIO_NAME).write_bytes(b"its audio")
        await generation.run_stage(context)
        assert (finder.asked[0].video, finder.asked[0].audio) == (video_file, context.folder / AUDIO_NAME)


async def test_the_finder_does_without_what_is_missing(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(_FOUND)
    async with _ready(own_database_url, tmp_path, finder) as context:
        await generation.run_stage(context)
    assert (finder.asked[0].video, finder.asked[0].audio) == (None, None)


async def test_words_of_older_libraries_are_put_in_order(own_database_url: str, tmp_path: Path) -> None:
    words = [
        {"word": "b", "start": 5.0, "end": 6.0},
        {"word": "a", "start": 1, "end": 2.5},
        {"word": "lost", "start": None, "end": 3.0},
        {"start": 7.0, "end": 8.0},
    ]
    finder = ScriptedFinder()
    models = ScriptedModels(finder=finder)
    async with make_context(own_database_url, tmp_path, models=models, video={"duration_seconds": None}) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, word_timestamps=words)
        await generation.run_stage(context)
    assert [word.word for word in finder.asked[0].words] == ["a", "b"]
    assert finder.asked[0].duration_seconds == 6.0


async def test_without_a_transcript_it_says_what_to_do_first(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path) as context:
        with pytest.raises(StageFailed, match=r"^Transcript not found\. Please generate transcript first\.$"):
            await generation.run_stage(context)


async def test_a_video_in_which_nothing_is_said_has_no_moments_and_no_failure(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder(_FOUND)
    async with make_context(own_database_url, tmp_path, models=ScriptedModels(finder=finder)) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, word_timestamps=[], segment_timestamps=[])
        assert await generation.run_stage(context) == {"moments": 0, "reason": "Nothing is said in the video"}
    assert finder.asked == []


async def test_a_video_whose_speech_was_dropped_is_not_called_silent(own_database_url: str, tmp_path: Path) -> None:
    async with make_context(own_database_url, tmp_path, models=ScriptedModels(finder=ScriptedFinder())) as context:
        async with context.database.connect() as conn:
            await make_transcript(conn, video_id=context.run.video_id, word_timestamps=[], segment_timestamps=[])
        dropped = "Speech that could not be understood is not in the transcript: 0:00-0:20"
        async with context.database.connect() as conn:
            record = StageRecord(StageStatus.COMPLETED, result={"dropped_speech": dropped})
            await set_record(conn, context.run, Stage.TRANSCRIPT, record)
        claimed = await take_over(context)
        assert await generation.run_stage(claimed) == {"moments": 0, "reason": dropped}


@pytest.mark.parametrize(("seconds", "shown"), [(55.64, "55.6"), (59.99, "59.9")])
async def test_of_a_video_shorter_than_a_moment_nobody_is_asked_for_moments(
    own_database_url: str, tmp_path: Path, seconds: float, shown: str
) -> None:
    finder, video = ScriptedFinder(_FOUND), {"duration_seconds": seconds}
    async with _ready(own_database_url, tmp_path, finder, video=video, min_moment_length=60.0) as context:
        result = await generation.run_stage(context)
    reason = f"The video takes {shown} seconds, and a moment should take at least 60"
    assert result == {"moments": 0, "reason": reason}
    assert finder.asked == []


async def test_existing_moments_are_kept_where_they_are_not_to_be_replaced(
    own_database_url: str, tmp_path: Path
) -> None:
    async with make_context(own_database_url, tmp_path, override_existing_moments=False) as context:
        assert await generation.skip_reason(context) is None
        async with context.database.connect() as conn:
            moment = await make_moment(conn, video_id=context.run.video_id)
            await make_moment(conn, video_id=context.run.video_id, is_refined=True, parent_id=moment.id)
        assert await generation.skip_reason(context) == "Moments already exist (2 moments)"


async def test_what_a_model_found_before_is_replaced_and_what_a_user_added_stays(
    own_database_url: str, tmp_path: Path
) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND)) as context:
        video_id = context.run.video_id
        async with context.database.connect() as conn:
            old = await _make_generated(conn, video_id, title="Old")
            await _make_generated(conn, video_id, title="Old, refined", is_refined=True, parent_id=old.id)
            await make_moment(conn, video_id=video_id, title="Imported", generation_model="models/old")
            own = await make_moment(conn, video_id=video_id, title="Mine", start_time=200.0, end_time=220.0)
            better = {"start_time": 202.0, "end_time": 218.0, "is_refined": True}
            mine = await _make_generated(conn, video_id, title="Mine, refined", parent_id=own.id, **better)
            await _make_generated(conn, video_id, title="Mine, refined twice", parent_id=mine.id, **better)
            elsewhere = await _make_generated(conn, (await make_moment(conn)).video_id)
        result = await generation.run_stage(context)
        assert _titles(await _list(context)) == ["Mine", "Mine, refined", "Mine, refined twice", "One", "Two"]
        assert (result["moments"], result["replaced"]) == (2, 3)
        async with context.database.connect() as conn:
            assert await MomentRepository(conn).get(elsewhere.id) is not None


async def test_rows_of_older_libraries_that_go_round_in_circles_are_replaced(
    own_database_url: str, tmp_path: Path
) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND)) as context:
        async with context.database.connect() as conn:
            first = await _make_generated(conn, context.run.video_id, title="Itself", is_refined=True)
            second = await _make_generated(conn, context.run.video_id, title="a", is_refined=True, parent_id=first.id)
            third = await _make_generated(conn, context.run.video_id, title="b", is_refined=True, parent_id=second.id)
            moments = MomentRepository(conn)
            await moments.update(first.id, parent_id=first.id)
            await moments.update(second.id, parent_id=third.id)
        await generation.run_stage(context)
        assert _titles(await _list(context)) == ["One", "Two"]


async def test_what_overlaps_a_moment_of_a_user_is_left_out(own_database_url: str, tmp_path: Path) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND)) as context:
        async with context.database.connect() as conn:
            await make_moment(conn, video_id=context.run.video_id, title="Mine", start_time=60.0, end_time=80.0)
        result = await generation.run_stage(context)
        assert _titles(await _list(context)) == ["Mine", "Two"]
    assert (result["moments"], result["overlapping"]) == (1, 1)
    assert result["reason"] == "Moments that overlap one that was added by hand were left out (1)"


@pytest.mark.parametrize(
    ("answer", "own", "reason"),
    [
        (found(), (200.0, 210.0), "No moment was found that fits the limits"),
        (found((10.0, 400.0, "Too long")), (200.0, 210.0), "No moment was found that fits the limits"),
        (_FOUND, (0.0, 300.0), "Every moment that was found overlaps one that was added by hand"),
    ],
)
async def test_without_a_new_moment_nothing_is_replaced(
    own_database_url: str, tmp_path: Path, answer: FindResult, own: tuple[float, float], reason: str
) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(answer)) as context:
        async with context.database.connect() as conn:
            await _make_generated(conn, context.run.video_id, title="Old", start_time=220.0, end_time=290.0)
            await make_moment(conn, video_id=context.run.video_id, title="Mine", start_time=own[0], end_time=own[1])
        result = await generation.run_stage(context)
        assert _titles(await _list(context)) == ["Old", "Mine"]
    assert (result["moments"], result["replaced"], result["reason"]) == (0, 0, reason)


@pytest.mark.parametrize(
    ("is_local", "asked", "reason"),
    [
        (
            False,
            3,
            "Found 2 of the 3 moments that were asked for: the model proposed no more within the limits of length",
        ),
        (
            True,
            3,
            "Found 2 of the 3 moments that were asked for: there is speech for no more within the limits of length",
        ),
        (
            True,
            6,
            "Found 2 of the 6 moments that were asked for: the video takes 300 seconds, and each takes at least 60",
        ),
    ],
)
async def test_fewer_moments_than_asked_for_are_explained(
    own_database_url: str, tmp_path: Path, is_local: bool, asked: int, reason: str
) -> None:
    finder = ScriptedFinder(_FOUND)
    finder.is_local = is_local
    async with _ready(own_database_url, tmp_path, finder, min_moments=asked) as context:
        result = await generation.run_stage(context)
    assert (result["moments"], result["reason"]) == (2, reason)


async def test_what_cannot_be_a_moment_is_left_out(own_database_url: str, tmp_path: Path) -> None:
    nan, infinite = float("nan"), float("inf")
    answer = found(
        (20.0, 80.0, " \0 "),
        (nan, 80.0, "a"),
        (20.0, nan, "b"),
        (20.0, infinite, "c"),
        (-1.0, 50.0, "d"),
        (290.0, 300.1, "e"),
        (60.0, 60.0, "f"),
        (100.0, 170.0, "Later"),
        (0.0, 60.0, " \0" + "é" * 600),
        (50.0, 90.0, "overlaps"),
        (60.0 - 1e-9, 100.0, "touches\ud83d"),
        model="\0" + "m" * 200,
    )
    async with _ready(own_database_url, tmp_path, ScriptedFinder(answer)) as context:
        result = await generation.run_stage(context)
        moments = await _list(context)
    assert result["model"] == "m" * 200
    assert _titles(moments) == ["é" * 500, "touches", "Later"]
    assert moments[0].generation_model == "m" * 100


async def test_files_of_clips_go_once_the_run_has_completed(own_database_url: str, tmp_path: Path) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND)) as context:
        source = tmp_path / "clip.mp4"
        source.write_bytes(b"a clip")
        names = ("old", "picture", "shared", "own")
        folder = clip_folder_key(context.run.video)
        urls = {name: (await context.storage.put(f"{folder}/{name}.mp4", source)).url for name in names}
        theirs = (tmp_path / "library" / "theirs.mp4").resolve()
        theirs.write_bytes(b"a clip")
        async with context.database.connect() as conn:
            for url in (urls["old"], urls["shared"], theirs.as_uri()):
                clip = await make_clip(conn, await _make_generated(conn, context.run.video_id), cloud_url=url)
            await make_thumbnail(conn, clip_id=clip.id, cloud_url=urls["picture"])
            for url in (urls["own"], urls["shared"]):
                span = {"start_time": 200.0, "end_time": 210.0}
                await make_clip(conn, await make_moment(conn, video_id=context.run.video_id, **span), cloud_url=url)
        await generation.run_stage(context)
        assert {file.url for file in await context.storage.list_files(folder)} == set(urls.values())
        async with context.database.connect() as conn, conn.transaction():
            files = await ClaimedRunRepository(conn).finish_run(context.run, RunOutcome(RunStatus.COMPLETED))
        await delete_unused_files(context, files)
        assert {file.url for file in await context.storage.list_files(folder)} == {urls["own"], urls["shared"]}
        assert theirs.exists()
        async with context.database.connect() as conn:
            assert len(await ClipRepository(conn).list_by_video(context.run.video_id)) == 2


async def test_an_answer_that_cannot_be_used_is_kept_and_replaces_nothing(
    own_database_url: str, tmp_path: Path
) -> None:
    finder = ScriptedFinder(ModelAnswerInvalid("No moments found in AI model response", "I am\0 sorry\ud83d"))
    async with _ready(own_database_url, tmp_path, finder) as context:
        async with context.database.connect() as conn:
            await _make_generated(conn, context.run.video_id, title="Old")
        with pytest.raises(ModelAnswerInvalid, match="No moments found in AI model response"):
            await generation.run_stage(context)
        assert await _raw_answer(context) == "I am sorry"
        assert _titles(await _list(context)) == ["Old"]


async def test_a_failure_that_may_pass_is_left_to_who_tries_again(own_database_url: str, tmp_path: Path) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(TransientFailure("busy"))) as context:
        with pytest.raises(TransientFailure):
            await generation.run_stage(context)
    assert STAGE_TABLE[Stage.GENERATION].retry.attempts == 3


@pytest.mark.parametrize("answer", [_FOUND, found()])
async def test_a_worker_that_takes_over_after_the_moments_were_saved_pays_nobody_again(
    own_database_url: str, tmp_path: Path, answer: FindResult
) -> None:
    finder = ScriptedFinder(answer)
    async with _ready(own_database_url, tmp_path, finder) as context:
        first = await generation.run_stage(context)
        before = await _list(context)
        second = await generation.run_stage(await take_over(context))
        assert await _list(context) == before
    assert second == {"moments": first["moments"]}
    assert len(finder.asked) == 1


async def test_a_new_run_replaces_what_the_one_before_found(own_database_url: str, tmp_path: Path) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND)) as context:
        await generation.run_stage(context)
        before = await _list(context)
        await _end(context)
        video = {"identifier": context.run.video}
        async with make_context(own_database_url, tmp_path, models=context.models, video=video) as second:
            result = await generation.run_stage(second)
            after = await _list(second)
    assert (result["moments"], result["replaced"]) == (2, 2)
    assert _titles(after) == _titles(before)
    assert {moment.identifier for moment in after}.isdisjoint(moment.identifier for moment in before)


async def _end(context: RunContext) -> None:
    async with context.database.connect() as conn:
        await RunRepository(conn).update(context.run.id, status="completed")


async def test_of_a_user_who_adds_a_moment_meanwhile_nothing_is_lost(own_database_url: str, tmp_path: Path) -> None:
    async def add() -> None:
        async with context.database.connect() as conn:
            await add_moment(conn, context.run.video, 100.0, 110.0, "Mine")

    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND, meanwhile=add)) as context:
        result = await generation.run_stage(context)
        assert sorted(_titles(await _list(context))) == ["Mine", "One"]
    assert result["overlapping"] == 1


async def test_users_who_add_moments_while_others_are_replaced_overlap_none(
    own_database_url: str, tmp_path: Path
) -> None:
    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND)) as context:

        async def add(start: float) -> None:
            async with context.database.connect() as conn:
                try:
                    await add_moment(conn, context.run.video, start, start + 10, "Mine")
                except InvalidMoment:
                    refused.append(start)

        refused: list[float] = []
        await asyncio.gather(generation.run_stage(context), *(add(5.0 + 10 * step) for step in range(15)))
        moments = sorted(await _list(context), key=lambda moment: moment.start_time)
    assert all(left.end_time <= right.start_time for left, right in pairwise(moments))
    assert len([moment for moment in moments if moment.title == "Mine"]) + len(refused) == 15


async def test_a_video_that_is_deleted_meanwhile_ends_the_stage(own_database_url: str, tmp_path: Path) -> None:
    async def delete() -> None:
        async with context.database.connect() as conn:
            await VideoRepository(conn).delete(context.run.video_id)

    async with _ready(own_database_url, tmp_path, ScriptedFinder(_FOUND, meanwhile=delete)) as context:
        with pytest.raises(StageFailed, match=r"^The video was deleted$"):
            await generation.run_stage(context)
        with pytest.raises(StageFailed, match=r"^The video was deleted$"):
            await generation.run_stage(context)


async def test_a_worker_that_lost_its_run_writes_nothing(own_database_url: str, tmp_path: Path) -> None:
    finder = ScriptedFinder(_FOUND)
    async with _ready(own_database_url, tmp_path, finder) as context:
        async with context.database.connect() as conn:
            await _make_generated(conn, context.run.video_id, title="Old")
        finder.meanwhile = lambda: take_over(context)
        with pytest.raises(RunLost):
            await generation.run_stage(context)
        assert _titles(await _list(context)) == ["Old"]


@pytest.mark.parametrize("count", [2, 40])
async def test_replacing_many_takes_no_more_statements_than_replacing_few(
    own_database_url: str, tmp_path: Path, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    moments = [FoundMoment(5.0 * index, 5.0 * index + 4, "New") for index in range(count)]
    finder = ScriptedFinder(FindResult(moments, "m", "", USAGE))
    async with _ready(own_database_url, tmp_path, finder, settings={"database_echo": True}) as context:
        async with context.database.connect() as conn:
            for _ in range(count):
                await make_clip(conn, await _make_generated(conn, context.run.video_id))
        with caplog.at_level(logging.INFO, "app.database.statements"):
            caplog.clear()
            await generation.run_stage(context)
        statements = [record.getMessage() for record in caplog.records if record.name == "app.database.statements"]
        assert len(await _list(context)) == count
    assert len([each for each in statements if not each.startswith("SELECT pg_backend_pid()")]) == 20


async def test_the_cuts_of_a_video_are_found(tmp_path: Path) -> None:
    video_file = make_colour_movie(tmp_path / "video.mp4", 4.0, [(200, 0, 0), (200, 0, 0), (0, 200, 0), (0, 200, 0)])
    assert len(await find_scene_cuts_in_file(video_file)) == 1


async def test_a_video_that_is_not_there_has_no_cuts(tmp_path: Path) -> None:
    assert not await find_scene_cuts_in_file(None)
    assert not await find_scene_cuts_in_file(tmp_path / "video.mp4")
