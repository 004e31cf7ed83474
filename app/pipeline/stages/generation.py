"""The stage that finds the moments of a video with a model and replaces those found before."""

import asyncio
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.ai.protocols import FindRequest, FindResult, FoundMoment, MomentFinder
from app.core.errors import FileMissing, StorageUnavailable
from app.core.text import clean_line, strip_unstorable
from app.core.thread_pool import ThreadPool
from app.database import Connection
from app.media.scene_cuts import find_scene_cuts
from app.models import Transcript, Video
from app.models.stages import Stage
from app.pipeline.context import RunContext
from app.pipeline.files import AUDIO_NAME, find_local_path, get_local_audio
from app.pipeline.model_answers import (
    ModelAnswerKey,
    find_earlier_found_moments,
    serialize_model_usage,
    store_found_moments,
    store_generation_config,
    store_raw_answer_if_invalid,
)
from app.pipeline.moments import list_manual_moments, overlaps_any_moment
from app.pipeline.transcripts import find_end_of_speech, get_run_video_and_transcript, list_segments, list_words
from app.repositories import MomentRepository, RunRepository
from app.repositories.contents import ReplacedMomentsRepository, VideoContentsRepository
from app.repositories.moments import NewMomentWithId, make_random_moment_identifier
from app.repositories.stages import ClaimedRunRepository
from app.storage import find_audio_file

_TITLE_LENGTH = 500  # of `moments.title`
_MODEL_LENGTH = 100  # of `moments.generation_model`
_NOISE_SECONDS = 1e-6  # rounding errors of float sums
_scene_finders = ThreadPool("scenes", 2)


@dataclass(frozen=True, slots=True)
class _GenerationInputs:
    """The rows that a finder needs, and the number of moments that an earlier attempt stored, None without one."""

    video: Video
    transcript: Transcript
    found_before: int | None

    @property
    def duration_seconds(self) -> float:
        return self.video.duration_seconds or find_end_of_speech(self.transcript)


@dataclass(frozen=True, slots=True)
class _ReplacementCounts:
    """How many moments were inserted, left out because they overlap manual ones, and deleted."""

    added: int = 0
    left_out: int = 0
    deleted: int = 0


async def skip_reason(context: RunContext) -> str | None:
    """Return that the video has moments already, unless the run overrides them; else None."""
    if context.run.request.override_existing_moments:
        return None
    async with context.database.connect() as conn:
        moments = (await VideoContentsRepository(conn).get_contents(context.run.video_id)).moments
    return f"Moments already exist ({moments} moments)" if moments else None


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    """Find the moments of the video with a model, and return their number, the model and its usage."""
    inputs = await _read_inputs_for_finding_moments(context)
    if inputs.found_before is not None:  # by a worker that died before it recorded the stage as completed
        return {"moments": inputs.found_before}
    finder = await context.models.get_finder(context.run.request.generation_model)
    request = await _make_find_request(context, inputs, finder)
    if not request.segments:
        return await _finish_without_moments(
            context, _get_dropped_speech_of_transcript_stage(context) or "Nothing is said in the video"
        )
    if reason := _explain_video_too_short(inputs.video, request.min_length):
        return await _finish_without_moments(context, reason)
    config_id, found = await context.save_result(
        lambda conn: _store_config_and_find_answer(conn, context, finder, inputs.transcript.id)
    )
    if found is None:
        found = await _find_and_store_moments(context, finder, request, ModelAnswerKey(inputs.transcript.id, config_id))
    moments = _select_valid_moments(found, inputs.duration_seconds)
    replaced = await context.save_result(lambda conn: _replace_moments(conn, context, moments, found, config_id))
    context.report_progress(percentage=100)
    return _make_generation_result(found, replaced, _explain_too_few_moments(replaced.added, finder, request))


async def _read_inputs_for_finding_moments(context: RunContext) -> _GenerationInputs:
    async with context.database.connect() as conn:
        run, video, transcript = await get_run_video_and_transcript(conn, context.run)
    return _GenerationInputs(video, transcript, run.total_moments_generated)


async def _make_find_request(context: RunContext, inputs: _GenerationInputs, finder: MomentFinder) -> FindRequest:
    run_request = context.run.request
    return FindRequest(
        segments=list_segments(inputs.transcript),
        words=list_words(inputs.transcript),
        duration_seconds=inputs.duration_seconds,
        min_length=run_request.min_moment_length,
        max_length=run_request.max_moment_length,
        min_count=run_request.min_moments,
        max_count=run_request.max_moments,
        prompt=run_request.generation_prompt,
        temperature=run_request.generation_temperature,
        audio=await _find_audio_path(context, finder),
        video=await _find_video_path(context, inputs.video),
    )


def _get_dropped_speech_of_transcript_stage(context: RunContext) -> str | None:
    record = context.run.stages.get(Stage.TRANSCRIPT)
    return record.result.get("dropped_speech") if record else None


def _explain_video_too_short(video: Video, min_length: float) -> str | None:
    seconds = video.duration_seconds
    if not seconds or seconds >= min_length:
        return None
    return f"The video takes {_floor_to_tenths(seconds):g} seconds, and a moment should take at least {min_length:g}"


async def _find_audio_path(context: RunContext, finder: MomentFinder) -> Path | None:
    """Return the path of the audio on this machine, else None; for a local finder it is copied out of a bucket."""
    extracted = context.folder / AUDIO_NAME
    if await asyncio.to_thread(extracted.is_file):
        return extracted
    try:
        if finder.is_local:
            return await get_local_audio(context)
        return await find_local_path(context, await find_audio_file(context.storage, context.run.video))
    except (FileMissing, StorageUnavailable):
        return None


async def _find_video_path(context: RunContext, video: Video) -> Path | None:
    try:
        return await find_local_path(context, video.cloud_url)
    except (FileMissing, StorageUnavailable):
        return None


async def _find_and_store_moments(
    context: RunContext, finder: MomentFinder, request: FindRequest, answer_key: ModelAnswerKey
) -> FindResult:
    if finder.is_local:
        request = replace(request, scene_cuts=await find_scene_cuts_in_file(request.video))
    async with store_raw_answer_if_invalid(context):
        answer = await finder.find(request, context.report_share)
    found = replace(answer, moments=_select_valid_moments(answer, request.duration_seconds))
    await context.save_result(lambda conn: store_found_moments(conn, context, answer_key, found))
    return found


async def _store_config_and_find_answer(
    conn: Connection, context: RunContext, finder: MomentFinder, transcript_id: int
) -> tuple[int, FindResult | None]:
    """Store the generation config of the model call; return its id, and an earlier answer to it if any."""
    run_request = context.run.request
    config_id = await store_generation_config(
        conn,
        finder,
        finder.make_generation_prompt(run_request.generation_prompt),
        transcript_id=transcript_id,
        model=run_request.generation_model,
        operation_type="generation",
        temperature=run_request.generation_temperature,
        min_moment_length=run_request.min_moment_length,
        max_moment_length=run_request.max_moment_length,
        min_moments=run_request.min_moments,
        max_moments=run_request.max_moments,
    )
    await ClaimedRunRepository(conn).set_generation_config(context.run, config_id)
    return config_id, await find_earlier_found_moments(conn, context, ModelAnswerKey(transcript_id, config_id))


def _select_valid_moments(found: FindResult, duration: float) -> list[FoundMoment]:
    """Return the moments with a title and times within the video, in order of start, without overlaps."""
    moments: list[FoundMoment] = []
    last = 0.0
    for moment in sorted(found.moments, key=lambda moment: moment.start):
        title = clean_line(strip_unstorable(moment.title)).strip()[:_TITLE_LENGTH]
        start = last if last - _NOISE_SECONDS <= moment.start < last else moment.start
        if title and math.isfinite(moment.end) and last <= start < moment.end <= duration:
            moments.append(FoundMoment(start, moment.end, title))
            last = moment.end
    return moments


async def _replace_moments(
    conn: Connection, context: RunContext, found: Sequence[FoundMoment], answer: FindResult, config_id: int
) -> _ReplacementCounts:
    """Replace the moments that a model found before, unless all new ones overlap manual moments.

    Replaced moments are kept until the run ends, and restored where it does not complete.
    """
    video_id = context.run.video_id
    existing = await MomentRepository(conn).list_by_video(video_id)
    manual = list_manual_moments(existing)
    new = [moment for moment in found if not overlaps_any_moment(moment.start, moment.end, manual)]
    await RunRepository(conn).update(context.run.id, total_moments_generated=len(new))
    if not new:
        return _ReplacementCounts(left_out=len(found))
    deleted = sorted({moment.id for moment in existing} - {moment.id for moment in manual})
    ids = await MomentRepository(conn).reserve_moment_ids(len(new))
    if deleted:
        await ReplacedMomentsRepository(conn).set_moments_aside(context.run.id, deleted, ids)
    await _insert_moments(conn, video_id, ids, new, answer.model, config_id)
    return _ReplacementCounts(len(new), len(found) - len(new), len(deleted))


async def _insert_moments(
    conn: Connection, video_id: int, ids: Sequence[int], moments: Sequence[FoundMoment], model: str, config_id: int
) -> None:
    await MomentRepository(conn).insert_many(
        NewMomentWithId(
            id=moment_id,
            identifier=make_random_moment_identifier(),
            video_id=video_id,
            start_time=moment.start,
            end_time=moment.end,
            title=moment.title,
            generation_model=strip_unstorable(model)[:_MODEL_LENGTH],
            generation_config_id=config_id,
        )
        for moment_id, moment in zip(ids, moments, strict=True)
    )


async def _finish_without_moments(context: RunContext, reason: str) -> Mapping[str, Any]:
    await context.save_result(lambda conn: RunRepository(conn).update(context.run.id, total_moments_generated=0))
    return {"moments": 0, "reason": reason}


def _make_generation_result(
    found: FindResult, counts: _ReplacementCounts, too_few_reason: str | None
) -> Mapping[str, Any]:
    result: dict[str, Any] = {
        "moments": counts.added,
        "replaced": counts.deleted,
        "model": strip_unstorable(found.model),
        "usage": serialize_model_usage(found.usage),
    }
    if counts.left_out:
        result["overlapping"] = counts.left_out
        result["reason"] = _explain_left_out_moments(counts)
    elif too_few_reason:
        result["reason"] = too_few_reason
    if too_few_reason and counts.added:
        result["too_few"] = True
    return result


def _explain_too_few_moments(count: int, finder: MomentFinder, request: FindRequest) -> str | None:
    requested, shortest, duration = request.min_count, request.min_length, request.duration_seconds
    if count >= requested:
        return None
    if not count:
        return "No moment was found that fits the limits"
    made = f"{count} of the {requested} moments that were asked for"
    if requested * shortest > duration:
        seconds = _floor_to_tenths(duration)
        return f"Found {made}: the video takes {seconds:g} seconds, and each takes at least {shortest:g}"
    if finder.is_local:
        return f"Found {made}: there is speech for no more within the limits of length"
    return f"Found {made}: the model proposed no more within the limits of length"


def _floor_to_tenths(seconds: float) -> float:
    return math.floor(seconds * 10) / 10


def _explain_left_out_moments(counts: _ReplacementCounts) -> str:
    if not counts.added:
        return "Every moment that was found overlaps one that was added by hand"
    return f"Moments that overlap one that was added by hand were left out ({counts.left_out})"


async def find_scene_cuts_in_file(path: Path | None) -> Sequence[float]:
    if path is None:
        return ()
    try:
        return await _scene_finders.run_in_slot(partial(_find_scene_cuts_blocking, path))
    except OSError:
        return ()


def _find_scene_cuts_blocking(path: Path, stop_event: threading.Event) -> Sequence[float]:
    with path.open("rb") as file:
        return find_scene_cuts(file, stop_event)
