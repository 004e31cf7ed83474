"""The refinement of one moment: its window, its clip, the call, and the stored answer."""

import asyncio
import base64
import logging
import math
from dataclasses import dataclass, replace
from itertools import count
from urllib.parse import quote

from app.ai.protocols import Clip, FoundMoment, MomentFinder, Refined, RefineRequest, Usage
from app.core.errors import FileMissing, ModelAnswerInvalid, StageFailed, StorageUnavailable, TransientFailure
from app.core.media_types import media_type_of
from app.core.text import strip_unstorable
from app.database import Connection
from app.models import Clip as ClipRow
from app.models import Moment, Transcript
from app.models.stages import RunType, Stage
from app.models.video import describe_moment_outside
from app.pipeline.context import RunContext
from app.pipeline.files import delete_unused_files
from app.pipeline.model_answers import (
    AnswerKey,
    load_refined_answer,
    recording_invalid_answers,
    store_generation_config,
    store_refined_answer,
)
from app.pipeline.moments import delete_moments, find_originals, group_refinements
from app.pipeline.time_limits import limit_working_time
from app.pipeline.transcripts import Window, find_moment_window, list_timed_words
from app.repositories import (
    ClipRepository,
    MomentRepository,
    PipelineHistoryRepository,
)
from app.repositories.claimed_runs import ClaimedRunRepository
from app.repositories.moments import ReservedMoment, new_identifier

LIMIT_SECONDS = 600.0  # for all attempts at one moment, without what they wait for their turn
_ATTEMPTS = 3
_FIRST_PAUSE_SECONDS = 1.0
# Models count in hundredths of a second, so a time may lie this far outside of what they were shown.
_TOLERANCE_SECONDS = 0.05
_EQUAL_SECONDS = 0.005  # times of one hundredth of a second are equal
_MODEL_LENGTH = 100  # of `moments.generation_model`
_EXACT = "exact"  # in the result of the stage: ids of moments whose refinement changed nothing
_log = logging.getLogger(__name__)
_SENT_BYTES = 20 * 1024**2  # a request holds a third more than the file


class RefinementSkipped(StageFailed):
    """A moment that stays as it is, which is no failure of a run over the whole video: nothing can refine it, or it is
    gone."""


@dataclass(frozen=True, slots=True)
class Target:
    """A moment to refine, the original under which the result hangs, None where older rows name none, and the id that
    is reserved for the result: rows are listed in the order of their ids, whichever of them is finished first."""

    moment: Moment
    original_id: int | None
    refined_id: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """What refining a moment took; `is_unchanged` is whether its times were exact already."""

    model: str
    usage: Usage
    with_clip: bool
    is_unchanged: bool


@dataclass(frozen=True, slots=True)
class _Stored:
    """What came of storing a result; `files` are URLs of files that nothing refers to any more."""

    is_unchanged: bool = False
    files: frozenset[str] = frozenset()


class MomentRefiner:
    """Refines moments of one run; several calls may be under way."""

    def __init__(self, context: RunContext, finder: MomentFinder, transcript: Transcript, duration: float) -> None:
        self._context = context
        self._finder = finder
        self._transcript_id = transcript.id
        self._duration = duration
        self._words = list_timed_words(transcript)

    async def refine(self, target: Target) -> Done:
        """Raises `StageFailed` where this moment cannot be refined, `RefinementSkipped` where that is no failure, and
        `RunLost` where nothing can be refined any more."""
        if problem := describe_moment_outside(target.moment.end_time, self._duration):
            raise StageFailed(problem)
        clip, window = await self._find_window(target.moment)
        if clip is None and not window.words:
            raise RefinementSkipped("Nothing is said around the moment")
        answer_key, recalled = await self._context.save(lambda conn: self._prepare(conn, target.moment, clip))
        refined = recalled or await self._ask(self._make_request(target.moment, window, clip))
        stored = await self._context.save(
            lambda conn: self._store(conn, target, refined, answer_key, is_recalled=recalled is not None)
        )
        await delete_unused_files(self._context, stored.files)
        return Done(refined.model, refined.usage, clip is not None, stored.is_unchanged)

    async def _find_window(self, moment: Moment) -> tuple[Clip | None, Window]:
        """Return what a model is shown: the clip and the words in it, or the words alone."""
        window = find_moment_window(self._words, moment.start_time, moment.end_time, self._duration)
        if not (self._context.run.request.include_video_refinement and self._finder.supports_video):
            return None, window
        async with self._context.database.connect() as conn:
            row = await ClipRepository(conn).get_by_moment(moment.id)
        # A clip that was cut before the moment was edited may show another part.
        if row is None or row.start_time > moment.start_time or row.end_time < moment.end_time:
            return None, window
        clip = await load_model_clip(self._context, moment, row)
        return clip, window if clip is None else self._window_of(row.start_time, row.end_time)

    def _window_of(self, start: float, end: float) -> Window:
        return Window(start, end, [word for word in self._words if start <= word.start and word.end <= end])

    async def _prepare(self, conn: Connection, moment: Moment, clip: Clip | None) -> tuple[AnswerKey, Refined | None]:
        """Return what is asked about a moment, and what was answered to it before.

        A run that names no config yet names that of the call from now on.
        """
        asked = self._context.run.request
        config_id = await store_generation_config(
            conn,
            self._finder,
            self._finder.refine_prompt(asked.refinement_prompt, with_clip=clip is not None),
            transcript_id=self._transcript_id,
            model=asked.refinement_model,
            operation_type="refinement",
            temperature=asked.refinement_temperature,
        )
        await ClaimedRunRepository(conn).set_first_config(self._context.run, config_id)
        answer_key = AnswerKey(self._transcript_id, config_id, moment.start_time, moment.end_time)
        return answer_key, await load_refined_answer(conn, self._context, answer_key)

    def _make_request(self, moment: Moment, window: Window, clip: Clip | None) -> RefineRequest:
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

    async def _ask(self, request: RefineRequest) -> Refined:
        try:
            async with recording_invalid_answers(self._context), limit_working_time(LIMIT_SECONDS):
                return _check(await self._ask_again(request), request)
        except TimeoutError:
            raise StageFailed(f"The refinement took longer than {LIMIT_SECONDS:.0f} seconds") from None

    async def _ask_again(self, request: RefineRequest) -> Refined:
        for attempt in count(1):
            try:
                return await self._finder.refine(request, lambda _: None)
            except TransientFailure:
                if attempt == _ATTEMPTS:
                    raise
            await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
        raise AssertionError("count() does not end")

    async def _store(
        self, conn: Connection, target: Target, refined: Refined, answer_key: AnswerKey, *, is_recalled: bool
    ) -> _Stored:
        """Add the refined moment, unless this run or the one it tries again has, or a moment of the same family has
        these times."""
        moments = await MomentRepository(conn).list_by_video(target.moment.video_id)
        ids = {moment.id for moment in moments}
        if target.refined_id in ids:  # a commit whose answer was lost
            return _Stored()
        if target.moment.id not in ids:
            raise RefinementSkipped("The moment was deleted")
        replaced = await self._list_replaced(conn, target, moments)
        if replaced is None:
            return _Stored()
        await store_refined_answer(conn, self._context, answer_key, refined)
        equal = [each for each in _list_family(target, moments) if _has_times(each, refined)]
        if self._context.run.type is RunType.REFINEMENT:
            count = 0 if equal else 1
            await PipelineHistoryRepository(conn).update(self._context.run.id, total_moments_generated=count)
        if is_recalled and equal and not {each.id for each in equal} & {target.moment.id, target.original_id}:
            return _Stored()
        if equal:
            await add_unchanged_id(conn, self._context, target.moment.id)
            return _Stored(is_unchanged=True)
        files = await delete_moments(conn, target.moment.video_id, [moment.id for moment in replaced])
        await MomentRepository(conn).copy([_make_row(target, refined, answer_key.config_id)])
        return _Stored(files=frozenset(files))

    async def _list_replaced(self, conn: Connection, target: Target, moments: list[Moment]) -> list[Moment] | None:
        """Return the moments that a result replaces; None where no result is wanted because this run has stored one."""
        run = self._context.run
        if run.type is RunType.REFINEMENT:
            history = await PipelineHistoryRepository(conn).get(run.id)
            return [] if history and history.total_moments_generated is None else None
        before = group_refinements(moments)[target.moment.id]
        return None if before and not run.request.override_existing_refinement else before


async def list_unchanged_ids(conn: Connection, context: RunContext) -> list[int]:
    """Return the ids of the moments whose times this run has found to be exact already."""
    result = await ClaimedRunRepository(conn).get_result(context.run, Stage.REFINEMENT)
    return list(result.get(_EXACT, ()))


async def add_unchanged_id(conn: Connection, context: RunContext, moment_id: int) -> None:
    """Note a moment whose times are exact: no row says so to a worker that takes the run over."""
    noted = {_EXACT: [*await list_unchanged_ids(conn, context), moment_id]}
    await ClaimedRunRepository(conn).add_result(context.run, Stage.REFINEMENT, noted)


def _make_row(target: Target, refined: Refined, config_id: int) -> ReservedMoment:
    return ReservedMoment(
        id=target.refined_id,
        identifier=new_identifier(),
        video_id=target.moment.video_id,
        start_time=refined.start,
        end_time=refined.end,
        title=target.moment.title,
        is_refined=True,
        parent_id=target.original_id,
        generation_model=strip_unstorable(refined.model)[:_MODEL_LENGTH],
        generation_config_id=config_id,
    )


def _list_family(target: Target, moments: list[Moment]) -> list[Moment]:
    """Return the moment that was refined, its original, and all that was refined from that."""
    originals = find_originals(moments)
    family = {target.moment.id, target.original_id}
    return [
        moment
        for moment in moments
        if moment.id in family or ((original := originals.get(moment.id)) and original.id == target.original_id)
    ]


def _has_times(moment: Moment, refined: Refined) -> bool:
    differences = (abs(moment.start_time - refined.start), abs(moment.end_time - refined.end))
    return max(differences) < _EQUAL_SECONDS


def _check(refined: Refined, request: RefineRequest) -> Refined:
    """Return the answer with its times inside of what the model was shown. Raises `ModelAnswerInvalid`."""
    first, last = request.window_start, min(request.window_end, request.duration_seconds)
    if not (math.isfinite(refined.start) and math.isfinite(refined.end)):
        raise ModelAnswerInvalid("The refined times are no numbers", refined.raw)
    if refined.start < first - _TOLERANCE_SECONDS or refined.end > last + _TOLERANCE_SECONDS:
        raise ModelAnswerInvalid("The refined times lie outside of what the model was shown", refined.raw)
    start, end = max(refined.start, first), min(refined.end, last)
    if start >= end:
        raise ModelAnswerInvalid("The refined moment ends before it begins", refined.raw)
    return replace(refined, start=start, end=end)


async def load_model_clip(context: RunContext, moment: Moment, row: ClipRow) -> Clip | None:
    """Return an address of a clip, or the clip itself where it is small; None where it cannot be shown.

    Audio without a picture never can be.
    """
    if row.video_codec is None and row.audio_codec is not None:
        return None
    try:
        link = await context.storage.get_link(row.cloud_url)
        if link is not None:
            return Clip(link.url)
        return await _send(context, row.cloud_url) or _own_address(context, moment)
    except (FileMissing, StorageUnavailable) as error:
        _log.warning("Moment %s is refined without its clip: %s", moment.identifier, error)
        return None


async def _send(context: RunContext, url: str) -> Clip | None:
    async with context.storage.opened(url) as file:
        if file.stored.size > _SENT_BYTES:
            return None
        content = b"".join([chunk async for chunk in file.read()])
        if len(content) != file.stored.size:  # it was replaced while it was read
            raise FileMissing
    return Clip(f"data:{media_type_of(url)};base64,{base64.b64encode(content).decode()}")


def _own_address(context: RunContext, moment: Moment) -> Clip | None:
    """Return where this server sends the clip; where keys are set, that is closed to services."""
    if context.settings.public_url is None or context.settings.api_keys:
        _log.warning("Moment %s is refined without its clip, which is too large to send", moment.identifier)
        return None
    name = quote(f"{context.run.video}_{moment.identifier}_clip.mp4", safe="")
    return Clip(f"{context.settings.public_url.rstrip('/')}/moment_clips/{name}")
