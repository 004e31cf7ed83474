"""The refinement of one moment: its window and clip, the call of the model, and the stored answer."""

import base64
import logging
import math
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
    AnswerKey,
    load_refined_times,
    record_invalid_answers,
    store_generation_config,
    store_refined_times,
)
from app.pipeline.moments import delete_moments, find_originals, group_refinements
from app.pipeline.time_limits import limit_working_time
from app.pipeline.transcripts import MomentWindow, find_moment_window, list_timed_words
from app.repositories import ClipRepository, MomentRepository, RunRepository
from app.repositories.moments import NewMomentWithId, make_moment_identifier
from app.repositories.stages import ClaimedRunRepository

TIME_LIMIT_SECONDS = 600.0  # for all attempts at one moment, without their waiting for a turn
_MODEL_POLICY = RetryPolicy(TransientFailure, wait_exponential(multiplier=1.0), stop_after_attempt(3))
# Models round to hundredths of a second, so a time may lie this far outside the window.
_TOLERANCE_SECONDS = 0.05
_EQUAL_SECONDS = 0.005  # times of one hundredth of a second are equal
_MODEL_LENGTH = 100  # of `moments.generation_model`
_UNCHANGED_KEY = "exact"  # of the stage's result: ids of moments whose refinement changed nothing
_log = logging.getLogger(__name__)
_MAX_ENCODED_BYTES = 20 * 1024**2  # base64 makes the request a third larger


class RefinementSkipped(StageFailed):
    """A moment that cannot be refined or was deleted; a full run counts it as unchanged and not as failed."""


@dataclass(frozen=True, slots=True)
class RefinementTarget:
    """A moment to refine. `original_id` becomes the parent of the refined moment; `refined_id` is its reserved id.

    Ids are reserved in order of time, because moments are listed by id, and refinements finish in any order.
    """

    moment: Moment
    original_id: int | None
    refined_id: int = 0


@dataclass(frozen=True, slots=True)
class RefinementResult:
    """How one moment was refined; `is_unchanged` is true where the model returned the times that it had."""

    model: str
    usage: Usage
    with_clip: bool
    is_unchanged: bool


@dataclass(frozen=True, slots=True)
class _StoredRefinement:
    """How a refinement was stored; `files` are the URLs of files without a row."""

    is_unchanged: bool = False
    files: frozenset[str] = frozenset()


class MomentRefiner:
    """Refines the moments of one run, several of them in parallel."""

    def __init__(self, context: RunContext, finder: MomentFinder, transcript: Transcript, duration: float) -> None:
        self._context = context
        self._finder = finder
        self._transcript_id = transcript.id
        self._duration = duration
        self._words = list_timed_words(transcript)

    async def refine(self, target: RefinementTarget) -> RefinementResult:
        """Ask the model for better times of a moment, and store them as a refined moment.

        Raises `StageFailed`, its subclass `RefinementSkipped`, and `RunLost`.
        """
        if problem := describe_moment_after_video_end(target.moment.end_time, self._duration):
            raise StageFailed(problem)
        clip, window = await self._find_window(target.moment)
        if clip is None and not window.words:
            raise RefinementSkipped("Nothing is said around the moment")
        answer_key, earlier_answer = await self._context.save_result(
            lambda conn: self._store_config(conn, target.moment, clip)
        )
        refined = earlier_answer or await self._call_model(self._make_request(target.moment, window, clip))
        stored = await self._context.save_result(
            lambda conn: self._store_refinement(
                conn, target, refined, answer_key, is_earlier_answer=earlier_answer is not None
            )
        )
        await delete_unused_files(self._context, stored.files)
        return RefinementResult(refined.model, refined.usage, clip is not None, stored.is_unchanged)

    async def _find_window(self, moment: Moment) -> tuple[ClipLink | None, MomentWindow]:
        window = find_moment_window(self._words, moment.start_time, moment.end_time, self._duration)
        if not (self._context.run.request.include_video_refinement and self._finder.supports_video):
            return None, window
        async with self._context.database.connect() as conn:
            row = await ClipRepository(conn).get_by_moment(moment.id)
        # A clip that was cut before the moment was edited may show another span.
        if row is None or row.start_time > moment.start_time or row.end_time < moment.end_time:
            return None, window
        clip = await load_model_clip(self._context, moment, row)
        return clip, window if clip is None else self._window_of_clip(row.start_time, row.end_time)

    def _window_of_clip(self, start: float, end: float) -> MomentWindow:
        return MomentWindow(start, end, [word for word in self._words if start <= word.start and word.end <= end])

    async def _store_config(
        self, conn: Connection, moment: Moment, clip: ClipLink | None
    ) -> tuple[AnswerKey, RefineResult | None]:
        """Store the generation config of the call, and return the key of its answer with an answer stored before."""
        run_request = self._context.run.request
        config_id = await store_generation_config(
            conn,
            self._finder,
            self._finder.refine_prompt(run_request.refinement_prompt, with_clip=clip is not None),
            transcript_id=self._transcript_id,
            model=run_request.refinement_model,
            operation_type="refinement",
            temperature=run_request.refinement_temperature,
        )
        await ClaimedRunRepository(conn).set_generation_config_if_unset(self._context.run, config_id)
        answer_key = AnswerKey(self._transcript_id, config_id, moment.start_time, moment.end_time)
        return answer_key, await load_refined_times(conn, self._context, answer_key)

    def _make_request(self, moment: Moment, window: MomentWindow, clip: ClipLink | None) -> RefineRequest:
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

    async def _call_model(self, request: RefineRequest) -> RefineResult:
        try:
            async with record_invalid_answers(self._context), limit_working_time(TIME_LIMIT_SECONDS):
                refined = await call_with_retries(partial(self._finder.refine, request, lambda _: None), _MODEL_POLICY)
                return _clamp_times(refined, request)
        except TimeoutError:
            raise StageFailed(f"The refinement took longer than {TIME_LIMIT_SECONDS:.0f} seconds") from None

    async def _store_refinement(
        self,
        conn: Connection,
        target: RefinementTarget,
        refined: RefineResult,
        answer_key: AnswerKey,
        *,
        is_earlier_answer: bool,
    ) -> _StoredRefinement:
        """Insert the refined moment, unless an earlier attempt has, or a moment of the tree has the same times."""
        moments = await MomentRepository(conn).list_by_video(target.moment.video_id)
        ids = {moment.id for moment in moments}
        if target.refined_id in ids:  # a commit whose answer was lost
            return _StoredRefinement()
        if target.moment.id not in ids:
            raise RefinementSkipped("The moment was deleted")
        replaced = await self._list_replaced(conn, target, moments)
        if replaced is None:
            return _StoredRefinement()
        await store_refined_times(conn, self._context, answer_key, refined)
        same_times = [each for each in _list_moment_tree(target, moments) if _has_same_times(each, refined)]
        if self._context.run.type is RunType.REFINEMENT:
            count = 0 if same_times else 1
            await RunRepository(conn).update(self._context.run.id, total_moments_generated=count)
        if (
            is_earlier_answer
            and same_times
            and not {each.id for each in same_times} & {target.moment.id, target.original_id}
        ):
            return _StoredRefinement()
        if same_times:
            await add_unchanged_id(conn, self._context, target.moment.id)
            return _StoredRefinement(is_unchanged=True)
        files = await delete_moments(conn, target.moment.video_id, [moment.id for moment in replaced])
        await MomentRepository(conn).insert_many([_make_moment_row(target, refined, answer_key.config_id)])
        return _StoredRefinement(files=frozenset(files))

    async def _list_replaced(
        self, conn: Connection, target: RefinementTarget, moments: list[Moment]
    ) -> list[Moment] | None:
        """Return the refinements to replace; None where the moment has one already that is to stay."""
        run = self._context.run
        if run.type is RunType.REFINEMENT:
            history = await RunRepository(conn).get(run.id)
            return [] if history and history.total_moments_generated is None else None
        before = group_refinements(moments)[target.moment.id]
        return None if before and not run.request.override_existing_refinement else before


async def list_unchanged_ids(conn: Connection, context: RunContext) -> list[int]:
    result = await ClaimedRunRepository(conn).get_stage_result(context.run, Stage.REFINEMENT)
    return list(result.get(_UNCHANGED_KEY, ()))


async def add_unchanged_id(conn: Connection, context: RunContext, moment_id: int) -> None:
    """Record that the refinement of a moment changed nothing, for another worker that takes the run over."""
    result = {_UNCHANGED_KEY: [*await list_unchanged_ids(conn, context), moment_id]}
    await ClaimedRunRepository(conn).add_stage_result(context.run, Stage.REFINEMENT, result)


def _make_moment_row(target: RefinementTarget, refined: RefineResult, config_id: int) -> NewMomentWithId:
    return NewMomentWithId(
        id=target.refined_id,
        identifier=make_moment_identifier(),
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
    originals = find_originals(moments)
    tree = {target.moment.id, target.original_id}
    return [
        moment
        for moment in moments
        if moment.id in tree or ((original := originals.get(moment.id)) and original.id == target.original_id)
    ]


def _has_same_times(moment: Moment, refined: RefineResult) -> bool:
    differences = (abs(moment.start_time - refined.start), abs(moment.end_time - refined.end))
    return max(differences) < _EQUAL_SECONDS


def _clamp_times(refined: RefineResult, request: RefineRequest) -> RefineResult:
    """Limit the times to the window that the model was shown. Raises `ModelAnswerInvalid` for times outside it."""
    first, last = request.window_start, min(request.window_end, request.duration_seconds)
    if not (math.isfinite(refined.start) and math.isfinite(refined.end)):
        raise ModelAnswerInvalid("The refined times are no numbers", refined.raw)
    if refined.start < first - _TOLERANCE_SECONDS or refined.end > last + _TOLERANCE_SECONDS:
        raise ModelAnswerInvalid("The refined times lie outside of what the model was shown", refined.raw)
    start, end = max(refined.start, first), min(refined.end, last)
    if start >= end:
        raise ModelAnswerInvalid("The refined moment ends before it begins", refined.raw)
    return replace(refined, start=start, end=end)


async def load_model_clip(context: RunContext, moment: Moment, row: ClipRow) -> ClipLink | None:
    """Return a signed URL of a clip, or a `data:` URL of a small one; None for audio and an unavailable clip."""
    if row.video_codec is None and row.audio_codec is not None:
        return None
    try:
        link = await context.storage.get_signed_url(row.cloud_url)
        if link is not None:
            return ClipLink(link.url)
        return await _encode_clip(context, row.cloud_url) or _make_clip_url(context, moment)
    except (FileMissing, StorageUnavailable) as error:
        _log.warning("Moment %s is refined without its clip: %s", moment.identifier, error)
        return None


async def _encode_clip(context: RunContext, url: str) -> ClipLink | None:
    async with context.storage.open_async(url) as file:
        if file.stored.size > _MAX_ENCODED_BYTES:
            return None
        content = b"".join([chunk async for chunk in file.read()])
        if len(content) != file.stored.size:  # it was replaced while it was read
            raise FileMissing
    return ClipLink(f"data:{guess_media_type(url)};base64,{base64.b64encode(content).decode()}")


def _make_clip_url(context: RunContext, moment: Moment) -> ClipLink | None:
    """Return the URL of the clip on this server, None where it has API keys, which services do not send."""
    if context.settings.public_url is None or context.settings.api_keys:
        _log.warning("Moment %s is refined without its clip, which is too large to send", moment.identifier)
        return None
    name = quote(f"{context.run.video}_{moment.identifier}_clip.mp4", safe="")
    return ClipLink(f"{context.settings.public_url.rstrip('/')}/moment_clips/{name}")
