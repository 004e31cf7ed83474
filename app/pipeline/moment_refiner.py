"""The refinement of one moment: its window and clip, the model's times, and the refined moment."""

import base64
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import quote

from tenacity import stop_after_attempt, wait_exponential

from app.ai.protocols import ClipLink, FoundMoment, MomentFinder, RefineRequest, RefineResult, Usage
from app.core.errors import FileMissing, ModelAnswerInvalid, StageFailed, StorageUnavailable, TransientFailure
from app.core.media_types import guess_media_type
from app.core.retrying import RetryPolicy, call_with_retries
from app.core.text import strip_unstorable
from app.database import Connection
from app.models import Clip as ClipRow
from app.models import Moment, Transcript
from app.models.stages import RunType, Stage
from app.models.videos import describe_moment_after_video_end
from app.pipeline.context import RunContext
from app.pipeline.files import delete_unused_files
from app.pipeline.model_answers import (
    ModelAnswerKey,
    find_earlier_refined_times,
    store_generation_config,
    store_raw_answer_if_invalid,
    store_refined_times,
)
from app.pipeline.moments import delete_moments, group_refinements_by_original, map_moments_to_originals
from app.pipeline.time_limits import limit_working_time
from app.pipeline.transcripts import MomentWindow, find_moment_window, list_timed_words
from app.repositories import ClipRepository, MomentRepository, RunRepository
from app.repositories.moments import NewMomentWithId, make_random_moment_identifier
from app.repositories.stages import ClaimedRunRepository

TIME_LIMIT_SECONDS = 600.0  # for all attempts at one moment, without their waiting for a turn
_MODEL_POLICY = RetryPolicy(TransientFailure, wait_exponential(multiplier=1.0), stop_after_attempt(3))
# Models round to hundredths of a second, so a time may lie this far outside the window.
_TOLERANCE_SECONDS = 0.05
_SAME_TIME_SECONDS = 0.005  # times of one hundredth of a second are equal
_MODEL_LENGTH = 100  # of `moments.generation_model`
_UNCHANGED_KEY = "exact"  # of the stage's result: ids of moments whose refinement changed nothing
_log = logging.getLogger(__name__)
_MAX_ENCODED_BYTES = 20 * 1024**2  # base64 makes the request a third larger


class RefinementSkipped(StageFailed):
    """A moment that cannot be refined or was deleted; a full run does not count it as failed."""


@dataclass(frozen=True, slots=True)
class RefinementTarget:
    """A moment to refine, with the parent and the reserved id of the refined moment.

    Ids are reserved in order of time, because moments are listed by id, and refinements finish in any order.
    """

    moment: Moment
    original_id: int | None
    refined_id: int = 0


@dataclass(frozen=True, slots=True)
class RefinementResult:
    """How one moment was refined: by which model, at which cost, with a clip or not, and whether its times changed."""

    model: str
    usage: Usage
    with_clip: bool
    is_unchanged: bool


@dataclass(frozen=True, slots=True)
class _RefinementOutcome:
    """Whether a refinement changed nothing, and the URLs of files that no row names any more."""

    is_unchanged: bool = False
    unused_urls: Iterable[str] = ()


class MomentRefiner:
    """Refines the moments of one run, several of them in parallel."""

    def __init__(self, context: RunContext, finder: MomentFinder, transcript: Transcript, duration: float) -> None:
        self._context = context
        self._finder = finder
        self._transcript_id = transcript.id
        self._duration = duration
        self._words = list_timed_words(transcript)

    async def refine_moment(self, target: RefinementTarget) -> RefinementResult:
        """Let the model choose better times of a moment, and store them as a refined moment.

        Raises `StageFailed`, its subclass `RefinementSkipped`, and `RunLost`.
        """
        if problem := describe_moment_after_video_end(target.moment.end_time, self._duration):
            raise StageFailed(problem)
        clip, window = await self._choose_clip_and_window(target.moment)
        if clip is None and not window.words:
            raise RefinementSkipped("Nothing is said around the moment")
        answer_key, earlier_answer = await self._context.save_result(
            lambda conn: self._store_config_and_find_answer(conn, target.moment, clip)
        )
        refined = earlier_answer or await self._refine_with_model(
            self._make_refine_request(target.moment, window, clip)
        )
        is_earlier = earlier_answer is not None
        outcome = await self._context.save_result(
            lambda conn: self._store_refined_moment(conn, target, refined, answer_key, is_earlier_answer=is_earlier)
        )
        await delete_unused_files(self._context, outcome.unused_urls)
        return RefinementResult(refined.model, refined.usage, clip is not None, outcome.is_unchanged)

    async def _choose_clip_and_window(self, moment: Moment) -> tuple[ClipLink | None, MomentWindow]:
        window = find_moment_window(self._words, moment.start_time, moment.end_time, self._duration)
        if not (self._context.run.request.include_video_refinement and self._finder.supports_video):
            return None, window
        async with self._context.database.connect() as conn:
            row = await ClipRepository(conn).get_by_moment(moment.id)
        # A clip that was cut before the moment was edited may show another span.
        if row is None or row.start_time > moment.start_time or row.end_time < moment.end_time:
            return None, window
        clip = await load_clip_for_model(self._context, moment, row)
        if clip is None:
            return None, window
        inside = [word for word in self._words if row.start_time <= word.start and word.end <= row.end_time]
        return clip, MomentWindow(row.start_time, row.end_time, inside)

    async def _store_config_and_find_answer(
        self, conn: Connection, moment: Moment, clip: ClipLink | None
    ) -> tuple[ModelAnswerKey, RefineResult | None]:
        """Store the generation config of the model call; return the key of its answer, and an earlier answer if any."""
        run_request = self._context.run.request
        config_id = await store_generation_config(
            conn,
            self._finder,
            self._finder.make_refinement_prompt(run_request.refinement_prompt, with_clip=clip is not None),
            transcript_id=self._transcript_id,
            model=run_request.refinement_model,
            operation_type="refinement",
            temperature=run_request.refinement_temperature,
        )
        await ClaimedRunRepository(conn).set_generation_config(self._context.run, config_id, only_if_unset=True)
        answer_key = ModelAnswerKey(self._transcript_id, config_id, moment.start_time, moment.end_time)
        return answer_key, await find_earlier_refined_times(conn, self._context, answer_key)

    def _make_refine_request(self, moment: Moment, window: MomentWindow, clip: ClipLink | None) -> RefineRequest:
        return RefineRequest(
            moment=FoundMoment(moment.start_time, moment.end_time, moment.title),
            words=window.words,
            window_start=window.start,
            window_end=window.end,
            duration_seconds=self._duration,
            prompt=self._context.run.request.refinement_prompt,
            temperature=self._context.run.request.refinement_temperature,
            clip=clip,
        )

    async def _refine_with_model(self, request: RefineRequest) -> RefineResult:
        try:
            async with store_raw_answer_if_invalid(self._context), limit_working_time(TIME_LIMIT_SECONDS):
                refined = await call_with_retries(partial(self._finder.refine, request, lambda _: None), _MODEL_POLICY)
                return _clamp_refined_times(refined, request)
        except TimeoutError:
            raise StageFailed(f"The refinement took longer than {TIME_LIMIT_SECONDS:.0f} seconds") from None

    async def _store_refined_moment(
        self,
        conn: Connection,
        target: RefinementTarget,
        refined: RefineResult,
        answer_key: ModelAnswerKey,
        *,
        is_earlier_answer: bool,
    ) -> _RefinementOutcome:
        """Insert the refined moment, unless an earlier attempt did, or a moment of the tree has the same times."""
        moments = await MomentRepository(conn).list_by_video(target.moment.video_id)
        ids = {moment.id for moment in moments}
        if target.refined_id in ids:  # a commit whose answer was lost
            return _RefinementOutcome()
        if target.moment.id not in ids:
            raise RefinementSkipped("The moment was deleted")
        replaced = await self._list_refinements_to_replace(conn, target, moments)
        if replaced is None:
            return _RefinementOutcome()
        await store_refined_times(conn, self._context, answer_key, refined)
        same_ids = {each.id for each in _list_moment_tree(target, moments) if _has_same_times(each, refined)}
        if self._context.run.type is RunType.REFINEMENT:
            count = 0 if same_ids else 1
            await RunRepository(conn).update(self._context.run.id, total_moments_generated=count)
        if same_ids:
            if is_earlier_answer and not same_ids & {target.moment.id, target.original_id}:
                return _RefinementOutcome()
            await record_unchanged_moment(conn, self._context, target.moment.id)
            return _RefinementOutcome(is_unchanged=True)
        urls = await delete_moments(conn, target.moment.video_id, [moment.id for moment in replaced])
        await MomentRepository(conn).insert_many([_make_refined_moment_row(target, refined, answer_key.config_id)])
        return _RefinementOutcome(unused_urls=urls)

    async def _list_refinements_to_replace(
        self, conn: Connection, target: RefinementTarget, moments: list[Moment]
    ) -> list[Moment] | None:
        """Return the refinements of a moment that its new one replaces; None where it has one that must stay."""
        run = self._context.run
        if run.type is RunType.REFINEMENT:
            history = await RunRepository(conn).get(run.id)
            return [] if history and history.total_moments_generated is None else None
        before = group_refinements_by_original(moments)[target.moment.id]
        return None if before and not run.request.override_existing_refinement else before


async def list_unchanged_moment_ids(conn: Connection, context: RunContext) -> list[int]:
    result = await ClaimedRunRepository(conn).get_stage_result(context.run, Stage.REFINEMENT)
    return list(result.get(_UNCHANGED_KEY, ()))


async def record_unchanged_moment(conn: Connection, context: RunContext, moment_id: int) -> None:
    result = {_UNCHANGED_KEY: [*await list_unchanged_moment_ids(conn, context), moment_id]}
    await ClaimedRunRepository(conn).merge_stage_result(context.run, Stage.REFINEMENT, result)


def _make_refined_moment_row(target: RefinementTarget, refined: RefineResult, config_id: int) -> NewMomentWithId:
    return NewMomentWithId(
        id=target.refined_id,
        identifier=make_random_moment_identifier(),
        video_id=target.moment.video_id,
        start_time=refined.start,
        end_time=refined.end,
        title=target.moment.title,
        is_refined=True,
        parent_id=target.original_id,
        generation_model=strip_unstorable(refined.model)[:_MODEL_LENGTH],
        generation_config_id=config_id,
    )


def _list_moment_tree(target: RefinementTarget, moments: list[Moment]) -> list[Moment]:
    """Return the target, its original, and all refinements of that original."""
    originals = map_moments_to_originals(moments)
    tree = {target.moment.id, target.original_id}
    return [
        moment
        for moment in moments
        if moment.id in tree or ((original := originals.get(moment.id)) and original.id == target.original_id)
    ]


def _has_same_times(moment: Moment, refined: RefineResult) -> bool:
    differences = (abs(moment.start_time - refined.start), abs(moment.end_time - refined.end))
    return max(differences) < _SAME_TIME_SECONDS


def _clamp_refined_times(refined: RefineResult, request: RefineRequest) -> RefineResult:
    """Clamp times within a tolerance to the window of the request. Raises `ModelAnswerInvalid` for other times."""
    first, last = request.window_start, min(request.window_end, request.duration_seconds)
    if not (math.isfinite(refined.start) and math.isfinite(refined.end)):
        raise ModelAnswerInvalid("The refined times are no numbers", refined.raw)
    if refined.start < first - _TOLERANCE_SECONDS or refined.end > last + _TOLERANCE_SECONDS:
        raise ModelAnswerInvalid("The refined times lie outside of what the model was shown", refined.raw)
    start, end = max(refined.start, first), min(refined.end, last)
    if start >= end:
        raise ModelAnswerInvalid("The refined moment ends before it begins", refined.raw)
    return replace(refined, start=start, end=end)


async def load_clip_for_model(context: RunContext, moment: Moment, row: ClipRow) -> ClipLink | None:
    """Return a signed URL of a clip, or a `data:` URL of a small one; None for audio and a missing clip."""
    if row.video_codec is None and row.audio_codec is not None:
        return None
    try:
        link = await context.storage.get_signed_url(row.cloud_url)
        if link is not None:
            return ClipLink(link.url)
        return await _encode_clip_as_data_url(context, row.cloud_url) or _make_public_clip_link(context, moment)
    except (FileMissing, StorageUnavailable) as error:
        _log.warning("Moment %s is refined without its clip: %s", moment.identifier, error)
        return None


async def _encode_clip_as_data_url(context: RunContext, url: str) -> ClipLink | None:
    async with context.storage.open_async(url) as file:
        if file.stored.size > _MAX_ENCODED_BYTES:
            return None
        content = b"".join([chunk async for chunk in file.read()])
        if len(content) != file.stored.size:  # it was replaced while it was read
            raise FileMissing
    return ClipLink(f"data:{guess_media_type(url)};base64,{base64.b64encode(content).decode()}")


def _make_public_clip_link(context: RunContext, moment: Moment) -> ClipLink | None:
    """Return the clip's URL below `PUBLIC_URL`; None, with a warning, without one, or where the server has API keys."""
    if context.settings.public_url is None or context.settings.api_keys:
        _log.warning("Moment %s is refined without its clip, which is too large to send", moment.identifier)
        return None
    name = quote(f"{context.run.video}_{moment.identifier}_clip.mp4", safe="")
    return ClipLink(f"{context.settings.public_url.rstrip('/')}/moment_clips/{name}")
