"""HTTP calls of AI services, with translated errors, masked answers, retries, and a log line for each call."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from httpx_secure import SSRFProtectionError
from tenacity import stop_after_attempt, wait_chain, wait_exception, wait_fixed

from app.ai.protocols import Usage
from app.ai.registry import ModelConfig
from app.core.addresses import check_service_address
from app.core.errors import AddressRefused, ModelAnswerInvalid, StageFailed, TransientFailure
from app.core.guarded_http import block_metadata_addresses
from app.core.masking import mask_secrets, mask_values, remember_secret
from app.core.retrying import RetryPolicy, call_with_retries
from app.core.text import clean_text, to_single_line

_log = logging.getLogger("app.ai.calls")

_CONNECT_SECONDS = 10.0
# Unlimited: a call that waits for a connection would spend its time limit.
_CONNECTION_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=30)
_MAX_RESPONSE_BYTES = 64 * 1024**2  # an hour of timed words is about 1 MB
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 529})
_MAX_MESSAGE_LENGTH = 300  # characters
_MAX_RAW_LENGTH = 100_000  # characters
_MAX_WAIT_SECONDS = 30.0  # that `Retry-After` may ask for
_VERSIONED_PATH = re.compile(r"/v\d+[a-z0-9]*(/|$)")
_MESSAGE_FIELDS = ("error", "message", "detail", "error_description", "msg")


class RequestRefused(StageFailed):
    """A status 4xx: the request itself is wrong."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class _ServiceBusy(TransientFailure):
    """A refusal whose `Retry-After` asks for a wait, in seconds."""

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason)
        self.wait = wait


# Waits within one call; later retries are the caller's.
_BUSY_POLICY = RetryPolicy(
    _ServiceBusy,
    wait_exception(lambda error: error.wait if isinstance(error, _ServiceBusy) else 0.0),
    stop_after_attempt(4),
)


def open_http_client() -> httpx.AsyncClient:
    """Return a client that follows no redirects, calls no metadata service, and ignores proxies and `.netrc`."""
    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS, pool=None)
    return block_metadata_addresses(
        httpx.AsyncClient(timeout=timeout, limits=_CONNECTION_LIMITS, trust_env=False, follow_redirects=False)
    )


class ModelServiceClient:
    """A client of one registered model's service; `key` is its key in the registry, used in the log."""

    def __init__(self, client: httpx.AsyncClient, key: str, config: ModelConfig) -> None:
        self.key = key
        self.config = config
        self._client = client
        remember_secret(config.api_key)

    async def post(self, path: str, limit_seconds: float, **body: Any) -> Any:
        """Send a request, its body as httpx takes it, and return the JSON of the answer.

        `limit_seconds` bounds all of it, waits included. Raises `RequestRefused` for status 4xx, `TransientFailure`
        where a retry may help, and `ModelAnswerInvalid` for an answer that is not JSON.
        """
        try:
            async with asyncio.timeout(limit_seconds):
                return await call_with_retries(partial(self._post_without_retry, path, body), _BUSY_POLICY)
        except _ServiceBusy as error:
            raise TransientFailure(str(error)) from None
        except TimeoutError:
            raise TransientFailure(f"{self.config.name} did not answer within {limit_seconds:.0f} seconds") from None

    async def _post_without_retry(self, path: str, body: Mapping[str, Any]) -> Any:
        status, headers, content = await self._send_request(path, body)
        wait = _parse_retry_after(headers) if status in (429, 503) else None
        if wait is not None and wait <= _MAX_WAIT_SECONDS:
            raise _ServiceBusy(await asyncio.to_thread(self._describe_status, status, content), wait)
        return await asyncio.to_thread(self._parse_response, status, content)

    async def _send_request(self, path: str, body: Mapping[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        headers = {"Authorization": f"Bearer {self.config.api_key}"} if self.config.api_key else {}
        try:
            check_service_address(self.config.base_url)  # the registry may hold unchecked ones
            url = self.config.base_url.rstrip("/") + path
            async with self._client.stream("POST", url, headers=headers, **body) as response:
                content = bytearray()
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _MAX_RESPONSE_BYTES:
                        raise StageFailed(f"{self.config.name} answered with more than {_MAX_RESPONSE_BYTES} bytes")
                return response.status_code, response.headers, bytes(content)
        except (ValueError, AddressRefused, SSRFProtectionError):
            raise StageFailed(f"{self.config.name} has an address that is not called: set another one") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransientFailure(f"{self.config.name} cannot be reached: {_describe_http_error(error)}") from None

    def _parse_response(self, status: int, content: bytes) -> Any:
        if status in _TRANSIENT_STATUSES:
            raise TransientFailure(self._describe_status(status, content))
        if 400 <= status < 500:
            raise RequestRefused(self._describe_status(status, content), status)
        if 300 <= status < 400:
            raise StageFailed(f"{self.config.name} redirects to another address, which is not followed: set that one")
        if status != 200:
            raise StageFailed(self._describe_status(status, content))
        try:
            return parse_masked_json(content)
        except (ValueError, RecursionError):
            raise ModelAnswerInvalid(
                f"{self.config.name} did not answer with JSON", to_masked_answer_text(content)
            ) from None

    def _describe_status(self, status: int, content: bytes) -> str:
        message = _find_error_message(content)
        return f"{self.config.name} answered {status}" + (f": {message}" if message else "")

    @asynccontextmanager
    async def log_call(self, operation: str) -> AsyncIterator["ModelCallUsage"]:
        """Log duration, tokens and outcome of the call in the block, but nothing of its content."""
        call = ModelCallUsage()
        started = time.monotonic()
        outcome = "cancelled"
        try:
            yield call
            outcome = "completed"
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            call.usage = Usage(1, time.monotonic() - started, call.usage.prompt_tokens, call.usage.completion_tokens)
            _log_model_call(self.key, operation, outcome, call.usage)


class ModelCallUsage:
    """The usage of one call: the caller sets the tokens, `log_call` the rest."""

    def __init__(self) -> None:
        self.usage = Usage()


def make_openai_api_path(config: ModelConfig, path: str) -> str:
    """Return a path of OpenAI's API, without `/v1` if the base URL has a version."""
    return path if _VERSIONED_PATH.search(urlsplit(config.base_url).path) else f"/v1{path}"


def to_masked_answer_text(content: bytes) -> str:
    """Return an answer as stored with a run: decoded, masked and shortened."""
    return mask_secrets(clean_text(content.decode("utf-8", "replace")))[:_MAX_RAW_LENGTH]


def parse_masked_json(content: bytes) -> Any:
    """Parse JSON and mask secrets in it: some services echo the headers and URLs of a request.

    Raises `ValueError` and `RecursionError`.
    """
    answer = json.loads(content)
    text = json.dumps(answer, ensure_ascii=False)  # one check of all values
    return answer if mask_secrets(text) == text else mask_values(answer)


def parse_short_line(value: Any, default: str, max_length: int) -> str:
    """Return a string of an answer on one line, shortened, or the default."""
    return (to_single_line(value, max_length) if isinstance(value, str) else "") or default[:max_length]


def short_model_name(config: ModelConfig, max_length: int) -> str:
    """Return the last part of the model's identifier, which may be a path, else its name."""
    return ((config.model_id or "").rstrip("/").rpartition("/")[2] or config.name)[:max_length]


def _log_model_call(key: str, operation: str, outcome: str, usage: Usage) -> None:
    tokens = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"
    _log.info(
        "%s %s: %s after %.2f s, %s",
        *(key, operation, outcome, usage.seconds, tokens),
        extra={
            "model_key": key,
            "operation": operation,
            "outcome": outcome,
            "seconds": round(usage.seconds, 3),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        },
    )


def _parse_retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds of `Retry-After`; AI services do not use dates."""
    text = headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) else None


def _describe_http_error(error: Exception) -> str:
    """Describe an error without the address, which is not for the readers of a run."""
    match error:
        case httpx.ConnectTimeout():
            return "it takes no connection in time"
        case httpx.ConnectError():
            return "it takes no connection"
        case httpx.RemoteProtocolError() | httpx.ReadError() | httpx.WriteError():
            return "the connection was cut"
        case _:
            return type(error).__name__


def _find_error_message(content: bytes) -> str:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for _ in range(3):
        if isinstance(found, list) and found:
            found = found[0]
        if not isinstance(found, dict):
            break
        found = next((found[name] for name in _MESSAGE_FIELDS if found.get(name)), None)
    return to_single_line(mask_secrets(found), _MAX_MESSAGE_LENGTH) if isinstance(found, str) else ""


T = TypeVar("T")
_retry_log = logging.getLogger(__name__)

_CHUNK_POLICY = RetryPolicy(TransientFailure, wait_chain(wait_fixed(2), wait_fixed(8)), stop_after_attempt(3))


async def retry_transient_failures(call: Callable[[], Awaitable[T]]) -> T:
    """Await `call`, and retry it twice after a `TransientFailure`.

    For calls that are one of several for one result: the others are not paid for twice.
    """
    return await call_with_retries(
        call,
        _CHUNK_POLICY,
        before_wait=lambda failed: _retry_log.warning("Retrying in %g s: %s", failed.wait, failed.error),
    )
