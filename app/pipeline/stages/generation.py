"""The stage that finds the moments of a video with a model and replaces those found before."""

import asyncio
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.ai.protocols import FindRequest, Found, FoundMoment, MomentFinder
from app.core.errors import FileMissing, StageFailed, StorageUnavailable, VideoDeleted
from app.core.text import clean_line, strip_unstorable
from app.database import Connection
from app.media.scenes import find_scene_cuts
from app.models import Transcript, Video
from app.models.stages import Stage
from app.pipeline.context import RunContext
from app.pipeline.files import AUDIO_NAME, find_local_path, get_local_audio
from app.pipeline.model_answers import (
    AnswerKey,
    describe_usage,
    load_found_answer,
    recording_invalid_answers,
    store_found_answer,
    store_generation_config,
)
from app.pipeline.moments import list_manual_moments, overlaps
from app.pipeline.transcripts import end_of, list_segments, list_words
from app.repositories import (
    MomentRepository,
    PipelineHistoryRepository,
    TranscriptRepository,
    VideoRepository,
)
from app.repositories.claimed_runs import ClaimedRunRepository
from app.repositories.moments import ReservedMoment, new_identifier
from app.repositories.parts import PartRepository
from app.repositories.replaced import ReplacedRepository
from app.storage import find_audio_file
from app.storage.workers import Workers

_TITLE_LENGTH = 500  # of `moments.title`
_MODEL_LENGTH = 100  # of `moments.generation_model`
_NOISE_SECONDS = 1e-6  # of sums of floats
_finders = Workers("scenes", 2)


@dataclass(frozen=True, slots=True)
class _Material:
    """What moments are sought in; `found_before` is how many this run has found already, None where it has not."""

    video: Video
    transcript: Transcript
    found_before: int | None

    @property
    def duration_seconds(self) -> float:
        return self.video.duration_seconds or end_of(self.transcript)


@dataclass(frozen=True, slots=True)
class _Replaced:
    """What came of saving: how many moments there are, were left out, and went."""

    added: int = 0
    left_out: int = 0
    gone: int = 0


async def skip_reason(context: RunContext) -> str | None:
    if context.run.request.override_existing_moments:
        return None
    async with context.database.connect() as conn:
        moments = (await PartRepository(conn).get(context.run.video_id)).moments
    return f"Moments already exist ({moments} moments)" if moments else None


async def run_stage(context: RunContext) -> Mapping[str, Any]:
    material = await _read_material(context)
    if material.found_before is not None:  # by a worker that died before it could say so
        return {"moments": material.found_before}
    finder = await context.models.get_finder(context.run.request.generation_model)
    request = await _make_request(context, material, finder)
    if not request.segments:
        return await _end_without(context, _find_dropped_speech(context) or "Nothing is said in the video")
    if reason := _too_short(material.video, request.min_length):
        return await _end_without(context, reason)
    config_id, found = await context.save(lambda conn: _prepare(conn, context, finder, material.transcript.id))
    if found is None:
        found = await _find(context, finder, request, AnswerKey(material.transcript.id, config_id))
    moments = _list_storable(found, material.duration_seconds)
    replaced = await context.save(lambda conn: _replace(conn, context, moments, found, config_id))
    context.report(percentage=100)
    return _describe(found, replaced, _why_few(replaced.added, finder, request))


async def _read_material(context: RunContext) -> _Material:
    async with context.database.connect() as conn:
        run = await PipelineHistoryRepository(conn).get(context.run.id)
        video = await VideoRepository(conn).get(context.run.video_id)
        transcript = await TranscriptRepository(conn).get_by_video(context.run.video_id)
    if run is None or video is None:
        raise VideoDeleted
    if transcript is None:
        raise StageFailed("Transcript not found. Please generate transcript first.")
    return _Material(video, transcript, run.total_moments_generated)


async def _make_request(context: RunContext, material: _Material, finder: MomentFinder) -> FindRequest:
    asked = context.run.request
    return FindRequest(
        segments=list_segments(material.transcript),
        words=list_words(material.transcript),
        duration_seconds=material.duration_seconds,
        min_length=asked.min_moment_length,
        max_length=asked.max_moment_length,
        min_count=asked.min_moments,
        max_count=asked.max_moments,
        prompt=asked.generation_prompt,
        temperature=asked.generation_temperature,
        audio=await _find_audio(context, finder),
        film=await _find_film(context, material.video),
    )


def _find_dropped_speech(context: RunContext) -> str | None:
    """Return what the run's transcript leaves out, as a sentence, where its stage has stored that."""
    record = context.run.stages.get(Stage.TRANSCRIPT)
    return record.result.get("dropped_speech") if record else None


def _too_short(video: Video, min_length: float) -> str | None:
    """Return why no moment can be found at all, whoever is asked."""
    seconds = video.duration_seconds
    if not seconds or seconds >= min_length:
        return None
    return f"The video takes {_floor(seconds):g} seconds, and a moment should take at least {min_length:g}"


async def _find_audio(context: RunContext, finder: MomentFinder) -> Path | None:
    """Return the audio as a local file, None where there is none. A local finder, which listens to it, gets a copy out
    of a bucket: another worker may have extracted it."""
    made = context.folder / AUDIO_NAME
    if await asyncio.to_thread(made.is_file):
        return made
    try:
        if finder.is_local:
            return await get_local_audio(context)
        return await find_local_path(context, await find_audio_file(context.storage, context.run.video))
    except (FileMissing, StorageUnavailable):
        return None


async def _find_film(context: RunContext, video: Video) -> Path | None:
    try:
        return await find_local_path(context, video.cloud_url)
    except (FileMissing, StorageUnavailable):
        return None


async def _find(context: RunContext, finder: MomentFinder, request: FindRequest, answer_key: AnswerKey) -> Found:
    """Ask the finder, and keep the moments of its answer that can be rows: whatever fails later, they are paid for."""
    if finder.is_local:
        request = replace(request, scene_cuts=await find_scene_cuts_of_file(request.film))
    async with recording_invalid_answers(context):
        answer = await finder.find(request, lambda done: context.report(percentage=int(done * 100)))
    found = replace(answer, moments=_list_storable(answer, request.duration_seconds))
    await context.save(lambda conn: store_found_answer(conn, context, answer_key, found))
    return found


async def _prepare(
    conn: Connection, context: RunContext, finder: MomentFinder, transcript_id: int
) -> tuple[int, Found | None]:
    """Return the id of the config of the call, which the run names from now on, and what was answered to it before."""
    asked = context.run.request
    config_id = await store_generation_config(
        conn,
        finder,
        finder.find_prompt(asked.generation_prompt),
        transcript_id=transcript_id,
        model=asked.generation_model,
        operation_type="generation",
        temperature=asked.generation_temperature,
        min_moment_length=asked.min_moment_length,
        max_moment_length=asked.max_moment_length,
        min_moments=asked.min_moments,
        max_moments=asked.max_moments,
    )
    await ClaimedRunRepository(conn).set_config(context.run, config_id)
    return config_id, await load_found_answer(conn, context, AnswerKey(transcript_id, config_id))


def _list_storable(found: Found, duration: float) -> list[FoundMoment]:
    """Return the moments that can be rows, in order of time, none overlapping another."""
    moments: list[FoundMoment] = []
    last = 0.0
    for moment in sorted(found.moments, key=lambda moment: moment.start):
        title = clean_line(strip_unstorable(moment.title)).strip()[:_TITLE_LENGTH]
        start = last if last - _NOISE_SECONDS <= moment.start < last else moment.start
        if title and math.isfinite(moment.end) and last <= start < moment.end <= duration:
            moments.append(FoundMoment(start, moment.end, title))
            last = moment.end
    return moments


async def _replace(
    conn: Connection, context: RunContext, found: Sequence[FoundMoment], answer: Found, config_id: int
) -> _Replaced:
    """Put the moments in the place of those that a model has found before; without any of them those stay.

    What is replaced is kept until the run has ended: it comes back where the run does not complete.
    """
    video_id = context.run.video_id
    existing = await MomentRepository(conn).list_by_video(video_id)
    own = list_manual_moments(existing)
    new = [moment for moment in found if not overlaps(moment.start, moment.end, own)]
    await PipelineHistoryRepository(conn).update(context.run.id, total_moments_generated=len(new))
    if not new:
        return _Replaced(left_out=len(found))
    gone = sorted({moment.id for moment in existing} - {moment.id for moment in own})
    ids = await MomentRepository(conn).reserve_ids(len(new))
    if gone:
        await ReplacedRepository(conn).replace(context.run.id, gone, ids)
    await _insert(conn, video_id, ids, new, answer.model, config_id)
    return _Replaced(len(new), len(found) - len(new), len(gone))


async def _insert(
    conn: Connection, video_id: int, ids: Sequence[int], moments: Sequence[FoundMoment], model: str, config_id: int
) -> None:
    await MomentRepository(conn).copy(
        ReservedMoment(
            id=moment_id,
            identifier=new_identifier(),
            video_id=video_id,
            start_time=moment.start,
            end_time=moment.end,
            title=moment.title,
            generation_model=strip_unstorable(model)[:_MODEL_LENGTH],
            generation_config_id=config_id,
        )
        for moment_id, moment in zip(ids, moments, strict=True)
    )


async def _end_without(context: RunContext, reason: str) -> Mapping[str, Any]:
    await context.save(lambda conn: PipelineHistoryRepository(conn).update(context.run.id, total_moments_generated=0))
    return {"moments": 0, "reason": reason}


def _describe(found: Found, replaced: _Replaced, why_few: str | None) -> Mapping[str, Any]:
    described: dict[str, Any] = {
        "moments": replaced.added,
        "replaced": replaced.gone,
        "model": strip_unstorable(found.model),
        "usage": describe_usage(found.usage),
    }
    if replaced.left_out:
        described["overlapping"] = replaced.left_out
        described["reason"] = _left_out(replaced)
    elif why_few:
        described["reason"] = why_few
    if why_few and replaced.added:
        described["too_few"] = True
    return described


def _why_few(count: int, finder: MomentFinder, request: FindRequest) -> str | None:
    """Return why there are fewer moments than asked for, None where there are enough."""
    asked, shortest, duration = request.min_count, request.min_length, request.duration_seconds
    if count >= asked:
        return None
    if not count:
        return "No moment was found that fits the limits"
    made = f"{count} of the {asked} moments that were asked for"
    if asked * shortest > duration:
        return f"Found {made}: the video takes {_floor(duration):g} seconds, and each takes at least {shortest:g}"
    if finder.is_local:
        return f"Found {made}: there is speech for no more within the limits of length"
    return f"Found {made}: the model proposed no more within the limits of length"


def _floor(seconds: float) -> float:
    return math.floor(seconds * 10) / 10


def _left_out(replaced: _Replaced) -> str:
    if not replaced.added:
        return "Every moment that was found overlaps one that was added by hand"
    return f"Moments that overlap one that was added by hand were left out ({replaced.left_out})"


async def find_scene_cuts_of_file(film: Path | None) -> Sequence[float]:
    """Return seconds of the film; none where there is no file or it cannot be read."""
    if film is None:
        return ()
    stopping = threading.Event()
    try:
        return await _finders.run_in_turn(partial(_find_scene_cuts, film, stopping), on_cancel=stopping.set)
    except OSError:
        return ()


def _find_scene_cuts(film: Path, stopping: threading.Event) -> Sequence[float]:
    with film.open("rb") as file:
        return find_scene_cuts(file, stopping)
