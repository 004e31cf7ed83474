"""Entries of the stream `pipeline:requests`: what each asks for, and the form in which one is kept that is rejected."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from app.core.errors import InvalidInput
from app.core.masking import mask_values
from app.core.text import to_nfc
from app.core.validation import describe_problem
from app.models.run import RunRequest
from app.repositories.runs import new_run_identifier
from app.services.pipeline_options import PipelineOptions
from app.services.video_details import check_text
from app.services.video_urls import check_video_url, identifier_from_url

# Of a rejected entry so much is kept.
MOST_KEPT_FIELDS = 50
LONGEST_KEPT_NAME = 100
LONGEST_KEPT_TEXT = 10_000

_LONGEST_VIDEO = 255
_LONGEST_URL = 4096
_LONGEST_REQUEST_ID = 1024
_DIGEST_LENGTH = 8
_MILLISECONDS = re.compile("[1-9][0-9]{0,18}")
_RUN_MESSAGE = "pipeline.run"  # the task that earlier versions of this server named in their own entries
# What options are called elsewhere in the previous backend; each means the same.
_FORMER_NAMES = {"user_prompt": "generation_prompt", "include_video": "include_video_refinement"}

Fields = Mapping[bytes, bytes]


class RequestedOptions(PipelineOptions):
    """Options of a full run as other programs write them, with the URL of its video where it has one."""

    video_url: str | None = Field(None, max_length=_LONGEST_URL)
    force_download: bool = False

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        renamed = {new: values[former] for former, new in _FORMER_NAMES.items() if former in values}
        return renamed | values


@dataclass(frozen=True, slots=True)
class RequestedRun:
    """What an entry asks for. `video` is '' where only the URL of `request` says which video; `identifier` is that of
    the run, and the same whenever the entry is read."""

    identifier: str
    video: str
    request: RunRequest
    force_download: bool


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """An entry as it is stored where it is rejected: without secrets, and in text that PostgreSQL can hold.

    `other_id` is its id where another entry has its `id`. `is_cut` is whether it had more than is kept.
    """

    id: str
    other_id: str
    fields: dict[str, str]
    is_cut: bool

    @classmethod
    def make(cls, entry_id: str, fields: Fields) -> Self:
        first = list(fields.items())[:MOST_KEPT_FIELDS]
        # More than what is kept is masked: a secret that begins in what is kept may end behind it.
        texts = {_to_text(name[:LONGEST_KEPT_NAME]): _to_text(value[: 2 * LONGEST_KEPT_TEXT]) for name, value in first}
        kept = {name: value[:LONGEST_KEPT_TEXT] for name, value in mask_values(texts).items()}
        is_cut = len(fields) > len(kept) or any(
            len(name) > LONGEST_KEPT_NAME or len(value) > LONGEST_KEPT_TEXT for name, value in first
        )
        return cls(entry_id, f"{entry_id} {_digest(fields)}", kept, is_cut)


def read_run_message(fields: Fields) -> str | None:
    """Return the identifier of the run that an entry names which an earlier version of this server wrote."""
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


def read_requested_run(entry_id: str, fields: Fields, most_bytes: int) -> RequestedRun:
    """Return what an entry asks for; `most_bytes` is how long its config may be.

    Raises `InvalidInput`, which says in one sentence what is wrong with the entry.
    """
    options = _read_options(fields.get(b"config", b""), most_bytes)
    url = options.video_url or None
    video = _read_video(fields.get(b"video_id", b""))
    if url is not None:
        check_video_url(url)
    elif not video:
        raise InvalidInput("video_id is missing")
    requested_id = fields.get(b"request_id", b"")[:_LONGEST_REQUEST_ID].decode("utf-8", "replace")
    named_after = video or identifier_from_url(url or "")
    identifier = _identify_run(entry_id, to_nfc(requested_id), named_after)
    return RequestedRun(identifier, video, replace(options.to_request(), video_url=url), options.force_download)


def _read_options(config: bytes, most_bytes: int) -> RequestedOptions:
    if not config:
        raise InvalidInput("config is missing")
    if len(config) > most_bytes:
        raise InvalidInput(f"config must have at most {most_bytes} bytes")
    try:
        values = json.loads(config.decode())
    except UnicodeDecodeError:
        raise InvalidInput("config must be text in UTF-8") from None
    except (ValueError, RecursionError):
        raise InvalidInput("config is not valid JSON") from None
    if not isinstance(values, dict):
        raise InvalidInput("config must be a JSON object")
    try:
        return RequestedOptions.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise InvalidInput(describe_problem(str(problem["loc"][0]), problem)) from None


def _read_video(video: bytes) -> str:
    try:
        text = to_nfc(video.decode())
    except UnicodeDecodeError:
        raise InvalidInput("video_id must be text in UTF-8") from None
    check_text("video_id", text, _LONGEST_VIDEO)
    return text


def _identify_run(entry_id: str, requested_id: str, video: str) -> str:
    """Return the identifier that an entry gives to its run, or else one that no other entry leads to."""
    prefix = f"pipeline:{video}:"
    number = requested_id.removeprefix(prefix)
    if requested_id.startswith(prefix) and _MILLISECONDS.fullmatch(number):
        return new_run_identifier(video, int(number))
    milliseconds, _, number = entry_id.partition("-")
    return new_run_identifier(video, int(f"{milliseconds}{number:0>3}"))


def _to_text(data: bytes) -> str:
    r"""Return a text that jsonb can hold: what is no UTF-8 becomes `\xff`, and U+0000 `\x00`."""
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _digest(fields: Fields) -> str:
    digest = hashlib.sha256()
    for part in (part for field in sorted(fields.items()) for part in field):
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:_DIGEST_LENGTH]
