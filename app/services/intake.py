"""The intake: requests of other programs, from the Redis stream `pipeline:requests`, become runs or are rejected."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import psycopg
from pydantic import Field, ValidationError, model_validator
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

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
from app.core.masking import mask_secrets, mask_values
from app.core.redis import translate_redis_error
from app.core.text import escape_controls, is_valid_identifier, to_nfc
from app.core.validation import describe_validation_error
from app.database import Connection, Database
from app.database.errors import translate_database_error
from app.models.runs import RunRequest
from app.models.stages import RunType, list_stages
from app.repositories import RunRepository
from app.repositories.ended_runs import EndedRunRepository
from app.repositories.requests import RejectedRequestRepository
from app.repositories.runs import make_run_identifier
from app.services.models import register_api_keys_to_mask
from app.services.queue import Notify, enqueue_run, mask_secrets_in_prompts
from app.services.run_requests import PipelineOptions, RunStarter
from app.services.video_urls import check_video_url, find_or_add_video_of_url, identifier_from_url
from app.services.videos import check_text_field, check_video_identifier
from app.storage import Storage

# The stream and its consumer group, in the format of the previous backend.
REQUEST_STREAM = "pipeline:requests"
REQUEST_GROUP = "pipeline_workers"
# Limits of a stored rejected entry.
MAX_STORED_FIELDS = 50
MAX_STORED_NAME_LENGTH = 100
MAX_STORED_TEXT_LENGTH = 10_000
_LONGEST_VIDEO = 255
_LONGEST_VIDEO_URL = 4096
_LONGEST_REQUEST_ID = 1024
_DIGEST_LENGTH = 8
_MILLISECONDS = re.compile("[1-9][0-9]{0,18}")
_RUN_MESSAGE = "pipeline.run"  # task name in entries of earlier versions of this server
# Former option name -> current name.
_FORMER_NAMES = {"user_prompt": "generation_prompt", "include_video": "include_video_refinement"}
EntryFields = Mapping[bytes, bytes]
_log = logging.getLogger(__name__)
_LONGEST_REASON = 1000
_FIRST_STAGE = list_stages(RunType.FULL)[0]
_TRUNCATED = f"of its fields, the first {MAX_STORED_FIELDS} with {MAX_STORED_TEXT_LENGTH} bytes each are kept"
_IDENTIFIER_TAKEN = "request_id is that of another run"
_RUN_NOT_FOUND = "The run that it names is not there"
_UNEXPECTED = "The server failed at this request, its log has the reason"
_TRANSIENT = (DatabaseUnavailable, DatabaseAhead, RedisUnavailable, StorageUnavailable)


async def create_request_consumer_group(redis: Redis) -> None:
    try:
        await redis.xgroup_create(REQUEST_STREAM, REQUEST_GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


class StreamRequestOptions(PipelineOptions):
    """Options of a full run as other programs write them, with the URL of a video to download."""

    video_url: str | None = Field(None, max_length=_LONGEST_VIDEO_URL)
    force_download: bool = False

    @model_validator(mode="before")
    @classmethod
    def _accept_former_option_names(cls, option_values: Any) -> Any:
        if not isinstance(option_values, dict):
            return option_values
        renamed = {new: option_values[former] for former, new in _FORMER_NAMES.items() if former in option_values}
        return renamed | option_values


@dataclass(frozen=True, slots=True)
class RequestedRun:
    """The run that a stream entry requests; `video` is '' if only the URL of `request` identifies it."""

    identifier: str
    video: str
    request: RunRequest
    force_download: bool


@dataclass(frozen=True, slots=True)
class RejectedStreamEntry:
    """A stream entry as it is stored when it is rejected; `other_id` is used if another entry has the same `id`."""

    id: str
    other_id: str
    fields: dict[str, str]
    are_fields_truncated: bool

    @classmethod
    def from_entry_with_masked_fields(cls, entry_id: str, fields: EntryFields) -> Self:
        first = list(fields.items())[:MAX_STORED_FIELDS]
        # Mask before cutting: a secret may cross the limit.
        texts = {
            _decode_text_for_jsonb(name[:MAX_STORED_NAME_LENGTH]): _decode_text_for_jsonb(
                value[: 2 * MAX_STORED_TEXT_LENGTH]
            )
            for name, value in first
        }
        kept = {name: value[:MAX_STORED_TEXT_LENGTH] for name, value in mask_values(texts).items()}
        are_fields_truncated = len(fields) > len(kept) or any(
            len(name) > MAX_STORED_NAME_LENGTH or len(value) > MAX_STORED_TEXT_LENGTH for name, value in first
        )
        return cls(entry_id, f"{entry_id} {_make_digest_of_entry_fields(fields)}", kept, are_fields_truncated)


def parse_legacy_run_message(fields: EntryFields) -> str | None:
    """Return the run identifier in a stream entry that an earlier version of this server wrote, else None."""
    if set(fields) != {b"data"}:
        return None
    try:
        message = json.loads(fields[b"data"])
    except (ValueError, RecursionError):
        return None
    match message:
        case {"task_name": task, "args": [str(identifier)]} if task == _RUN_MESSAGE:
            return identifier
    return None


def parse_requested_run(entry_id: str, fields: EntryFields, max_config_bytes: int) -> RequestedRun:
    """Return the run that a stream entry of another program requests. Raises `InvalidInput`."""
    options = _parse_request_options(fields.get(b"config", b""), max_config_bytes)
    url = options.video_url or None
    video = _decode_video_id(fields.get(b"video_id", b""))
    if url is not None:
        check_video_url(url)
    elif not video:
        raise InvalidInput("video_id is missing")
    requested_id = fields.get(b"request_id", b"")[:_LONGEST_REQUEST_ID].decode("utf-8", "replace")
    named_after = video or identifier_from_url(url or "")
    identifier = _make_requested_run_identifier(entry_id, to_nfc(requested_id), named_after)
    return RequestedRun(identifier, video, replace(options.to_run_request(), video_url=url), options.force_download)


def _parse_request_options(config_json: bytes, max_config_bytes: int) -> StreamRequestOptions:
    if not config_json:
        raise InvalidInput("config is missing")
    if len(config_json) > max_config_bytes:
        raise InvalidInput(f"config must have at most {max_config_bytes} bytes")
    try:
        option_values = json.loads(config_json.decode())
    except UnicodeDecodeError:
        raise InvalidInput("config must be text in UTF-8") from None
    except (ValueError, RecursionError):
        raise InvalidInput("config is not valid JSON") from None
    if not isinstance(option_values, dict):
        raise InvalidInput("config must be a JSON object")
    try:
        return StreamRequestOptions.model_validate(option_values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InvalidInput(describe_validation_error(str(problem["loc"][0]), problem)) from None


def _decode_video_id(utf8_bytes: bytes) -> str:
    try:
        text = to_nfc(utf8_bytes.decode())
    except UnicodeDecodeError:
        raise InvalidInput("video_id must be text in UTF-8") from None
    check_text_field("video_id", text, _LONGEST_VIDEO)
    return text


def _make_requested_run_identifier(entry_id: str, requested_id: str, video: str) -> str:
    """Return the requested identifier if it is one of the video, else one from the time in the entry's id."""
    prefix = f"pipeline:{video}:"
    number = requested_id.removeprefix(prefix)
    if requested_id.startswith(prefix) and _MILLISECONDS.fullmatch(number):
        return make_run_identifier(video, int(number))
    milliseconds, _, number = entry_id.partition("-")
    return make_run_identifier(video, int(f"{milliseconds}{number:0>3}"))


def _decode_text_for_jsonb(field_bytes: bytes) -> str:
    return field_bytes.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _make_digest_of_entry_fields(fields: EntryFields) -> str:
    digest = hashlib.sha256()
    for part in (part for field in sorted(fields.items()) for part in field):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:_DIGEST_LENGTH]


class StreamRequestIntake:
    """Enqueues each run that an entry of the stream `pipeline:requests` asks for once, or stores it as rejected."""

    def __init__(self, settings: Settings, database: Database, redis: Redis, storage: Storage, notify: Notify) -> None:
        self._longest_config = settings.max_body_bytes
        self._database = database
        self._redis = redis
        self._storage = storage
        self._notify = notify
        self._run_starter = RunStarter(database, storage, redis, settings, notify)

    async def enqueue_or_reject(self, entry_id: str, fields: EntryFields) -> None:
        """Enqueue the run that an entry requests, or store the entry as rejected. Raises transient errors."""
        await register_api_keys_to_mask(self._redis)
        if (named := parse_legacy_run_message(fields)) is not None:
            await self._reject_message_if_run_is_unknown(
                named, RejectedStreamEntry.from_entry_with_masked_fields(entry_id, fields)
            )
            return
        requested, refusal, reason = None, None, ""
        try:
            requested = parse_requested_run(entry_id, fields, self._longest_config)
            refusal = await self._check_requested_run(requested)
        except Exception as error:
            reason = _describe_error_or_raise_transient(error)
        identifier = await self._enqueue_run_or_store_rejection(
            RejectedStreamEntry.from_entry_with_masked_fields(entry_id, fields), requested, refusal, reason
        )
        if identifier is not None:
            _log.info("Enqueued run %s for entry %s of another program", identifier, entry_id)
            await self._notify(identifier, _FIRST_STAGE)

    async def _check_requested_run(self, requested: RequestedRun) -> AddressRefused | None:
        """Raise what the HTTP API raises for such a run; return why its video must not be downloaded, or None."""
        url = requested.request.video_url
        if url is not None:
            return await self._run_starter.check_full_run_from_url(url, requested.request)
        await self._run_starter.check_full_run(requested.video, requested.request)
        return None

    async def _enqueue_run_or_store_rejection(
        self, entry: RejectedStreamEntry, requested: RequestedRun | None, refusal: AddressRefused | None, reason: str
    ) -> str | None:
        """Enqueue the run and return its identifier; None if it was before, or is rejected, as with a `reason`."""
        async with self._database.connect() as conn, conn.transaction():
            rejected = RejectedRequestRepository(conn)
            await rejected.lock_request_until_commit(requested.identifier if requested else entry.id)
            if await rejected.is_request_rejected(entry.id, entry.other_id, entry.fields):
                return None
            if requested is not None:
                is_enqueued = await _was_run_enqueued_before(conn, requested)
                if is_enqueued:
                    return None
                reason = _IDENTIFIER_TAKEN if is_enqueued is False else reason
            if requested is not None and not reason:
                try:
                    async with conn.transaction():
                        return await self._enqueue_requested_run(conn, requested, refusal)
                except Exception as error:
                    reason = _describe_error_or_raise_transient(error)
            reason = _mask_and_shorten_reason(reason, are_fields_truncated=entry.are_fields_truncated)
            await rejected.add_rejected_request(entry.id, entry.other_id, entry.fields, reason)
        _log.warning("Rejected entry %s of another program and stored it: %s", entry.id, reason)
        return None

    async def _enqueue_requested_run(
        self, conn: Connection, requested: RequestedRun, refusal: AddressRefused | None
    ) -> str:
        video, url = requested.video, requested.request.video_url
        if url is not None:
            preferred = _return_identifier_or_empty_if_invalid(video)
            resolved = await find_or_add_video_of_url(conn, self._storage, url, requested.force_download, preferred)
            if refusal is not None and not resolved.is_cached:
                raise refusal
            video = resolved.video
        return await enqueue_run(conn, video, RunType.FULL, requested.request, given_identifier=requested.identifier)

    async def _reject_message_if_run_is_unknown(self, run_identifier: str, entry: RejectedStreamEntry) -> None:
        run = None
        if is_valid_identifier(run_identifier):
            async with self._database.connect() as conn:
                run = await RunRepository(conn).get_by_identifier(run_identifier)
        if run is None:
            await self._enqueue_run_or_store_rejection(entry, None, None, _RUN_NOT_FOUND)


async def _was_run_enqueued_before(conn: Connection, requested: RequestedRun) -> bool | None:
    """Return True if this run was enqueued before, None if not, False if another run has its identifier."""
    known = await EndedRunRepository(conn).find_ended_run(run_identifier=requested.identifier)
    if known is None:  # an imported run has no request
        imported = await RunRepository(conn).get_by_identifier(requested.identifier)
        return None if imported is None else True
    is_same_video = requested.request.video_url is not None or known.video == requested.video
    is_same_request = mask_secrets_in_prompts(known.request) == mask_secrets_in_prompts(requested.request)
    return known.type is RunType.FULL and is_same_video and is_same_request


def is_transient_error(error: BaseException) -> bool:
    expected: BaseException | None = error
    if isinstance(error, psycopg.Error):
        expected = translate_database_error(error)
    elif isinstance(error, RedisError | ConnectionError | TimeoutError):
        expected = translate_redis_error(error)
    return isinstance(expected, _TRANSIENT)


def _describe_error_or_raise_transient(error: Exception) -> str:
    if is_transient_error(error):
        raise error
    expected = translate_database_error(error) if isinstance(error, psycopg.Error) else error
    if isinstance(expected, VideoMomentsError):
        return str(expected)
    _log.error("Unexpected error in a request of another program", exc_info=error)
    return _UNEXPECTED


def _mask_and_shorten_reason(reason: str, are_fields_truncated: bool) -> str:
    clean = escape_controls(mask_secrets(reason))[:_LONGEST_REASON]
    return f"{clean} ({_TRUNCATED})" if are_fields_truncated else clean


def _return_identifier_or_empty_if_invalid(requested_identifier: str) -> str:
    try:
        check_video_identifier(requested_identifier)
    except InvalidInput:
        return ""
    return requested_identifier
