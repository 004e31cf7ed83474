"""The intake: what other programs ask for becomes a run, or is kept with the reason why it cannot be one."""

import logging

import psycopg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.config import Settings
from app.core.errors import (
    AddressRefused,
    DatabaseAhead,
    DatabaseUnavailable,
    InvalidInput,
    RedisUnavailable,
    StorageUnavailable,
    VideoMomentsError,
)
from app.core.masking import mask_secrets
from app.core.redis import redis_unavailable
from app.core.text import escape_controls
from app.database import Connection, Database
from app.database.errors import domain_error
from app.models.stages import RunType, list_stages
from app.repositories import RunRepository
from app.repositories.ended_runs import EndedRunRepository
from app.repositories.requests import RejectedRequestRepository
from app.services.accepting import accept_run, mask_prompts
from app.services.identifiers import findable
from app.services.intake_entries import (
    LONGEST_KEPT_TEXT,
    MOST_KEPT_FIELDS,
    Fields,
    KeptEntry,
    RequestedRun,
    read_requested_run,
    read_run_message,
)
from app.services.known_models import remember_model_keys
from app.services.starts import Notify, Starts
from app.services.video_details import check_identifier
from app.services.video_urls import resolve_url
from app.storage import Storage

_log = logging.getLogger(__name__)

_LONGEST_REASON = 1000
_FIRST_STAGE = list_stages(RunType.FULL)[0]
_CUT = f"of its fields, the first {MOST_KEPT_FIELDS} with {LONGEST_KEPT_TEXT} bytes each are kept"
_ID_IS_TAKEN = "request_id is that of another run"
_NAMES_NO_RUN = "The run that it names is not there"
_UNEXPECTED = "The server failed at this request, its log has the reason"
_TRANSIENT = (DatabaseUnavailable, DatabaseAhead, RedisUnavailable, StorageUnavailable)


class RequestIntake:
    """Accepts or rejects the entries of the stream, each once, however often and by however many workers it is read."""

    def __init__(self, settings: Settings, database: Database, redis: Redis, storage: Storage, notify: Notify) -> None:
        self._longest_config = settings.max_body_bytes
        self._database = database
        self._redis = redis
        self._storage = storage
        self._notify = notify
        self._starts = Starts(database, storage, redis, settings, notify)

    async def settle(self, entry_id: str, fields: Fields) -> None:
        """Accept the run that an entry asks for, or reject the entry. What was settled before stays as it is.

        Raises transient errors, see `is_transient`; the entry is then to be settled again.
        """
        await remember_model_keys(self._redis)
        if (named := read_run_message(fields)) is not None:
            await self._settle_message(named, KeptEntry.make(entry_id, fields))
            return
        requested, refusal, reason = None, None, ""
        try:
            requested = read_requested_run(entry_id, fields, self._longest_config)
            refusal = await self._check(requested)
        except Exception as error:
            reason = _find_reason(error)
        identifier = await self._decide(KeptEntry.make(entry_id, fields), requested, refusal, reason)
        if identifier is not None:
            _log.info("Accepted run %s, which entry %s of another program asks for", identifier, entry_id)
            await self._notify(identifier, _FIRST_STAGE)

    async def _check(self, requested: RequestedRun) -> AddressRefused | None:
        """Refuse what HTTP refuses, too; returns why the URL of the video may not be downloaded from."""
        url = requested.request.video_url
        if url is not None:
            return await self._starts.check_from_url(url, requested.request)
        await self._starts.check_full(requested.video, requested.request)
        return None

    async def _decide(
        self, entry: KeptEntry, requested: RequestedRun | None, refusal: AddressRefused | None, reason: str
    ) -> str | None:
        """Return the identifier of the run that was accepted, or None where there is no new one."""
        async with self._database.connect() as conn, conn.transaction():
            rejected = RejectedRequestRepository(conn)
            await rejected.lock(requested.identifier if requested else entry.id)
            if await rejected.has(entry.id, entry.other_id, entry.fields):
                return None
            if requested is not None:
                is_accepted = await _is_accepted(conn, requested)
                if is_accepted:
                    return None
                reason = _ID_IS_TAKEN if is_accepted is False else reason
            if requested is not None and not reason:
                try:
                    async with conn.transaction():
                        return await self._accept(conn, requested, refusal)
                except Exception as error:
                    reason = _find_reason(error)
            reason = _clean_reason(reason, is_cut=entry.is_cut)
            await rejected.add(entry.id, entry.other_id, entry.fields, reason)
        _log.warning("Rejected entry %s of another program, which is kept: %s", entry.id, reason)
        return None

    async def _accept(self, conn: Connection, requested: RequestedRun, refusal: AddressRefused | None) -> str:
        video, url = requested.video, requested.request.video_url
        if url is not None:
            name = _name_if_valid(video)
            resolved = await resolve_url(conn, self._storage, url, requested.force_download, name)
            if refusal is not None and resolved.download_required:
                raise refusal
            video = resolved.video
        return await accept_run(conn, video, RunType.FULL, requested.request, given_identifier=requested.identifier)

    async def _settle_message(self, identifier: str, entry: KeptEntry) -> None:
        async with self._database.connect() as conn:
            run = await RunRepository(conn).get_by_identifier(findable(identifier))
        if run is None:
            await self._decide(entry, None, None, _NAMES_NO_RUN)


async def _is_accepted(conn: Connection, requested: RequestedRun) -> bool | None:
    """Whether the run of a request is there already; None where there is none, and False where another one has its
    identifier."""
    known = await EndedRunRepository(conn).find(identifier=requested.identifier)
    if known is None:  # an imported run, whose request is not kept
        imported = await RunRepository(conn).get_by_identifier(requested.identifier)
        return None if imported is None else True
    is_same_video = requested.request.video_url is not None or known.video == requested.video
    is_same_request = mask_prompts(known.request) == mask_prompts(requested.request)
    return known.type is RunType.FULL and is_same_video and is_same_request


def is_transient(error: Exception) -> bool:
    """Whether what has failed may succeed later: a server is away, or refuses for now."""
    expected: Exception | None = error
    if isinstance(error, psycopg.Error):
        expected = domain_error(error)
    elif isinstance(error, RedisError | ConnectionError | TimeoutError):
        expected = redis_unavailable(error)
    return isinstance(expected, _TRANSIENT)


def _find_reason(error: Exception) -> str:
    """Return why a request cannot become a run. Raises transient errors."""
    if is_transient(error):
        raise error
    expected = domain_error(error) if isinstance(error, psycopg.Error) else error
    if isinstance(expected, VideoMomentsError):
        return str(expected)
    _log.error("Failed at a request of another program", exc_info=error)
    return _UNEXPECTED


def _clean_reason(reason: str, is_cut: bool) -> str:
    clean = escape_controls(mask_secrets(reason))[:_LONGEST_REASON]
    return f"{clean} ({_CUT})" if is_cut else clean


def _name_if_valid(video: str) -> str:
    """Return what a new video may be called, or ''."""
    try:
        check_identifier(video)
    except InvalidInput:
        return ""
    return video
