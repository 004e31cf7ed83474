"""A client of OpenAI-compatible chat completion services, which learns the request options that each supports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.ai.protocols import Usage
from app.ai.service import ModelServiceClient, RequestRefused, make_openai_api_path, parse_short_line
from app.core.errors import ModelAnswerInvalid
from app.core.text import clean_text

_REASONING_TOKENS_FIELD = "max_completion_tokens"  # replaces max_tokens in OpenAI's reasoning models


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """The optional request fields of a service; the first request uses all of them."""

    supports_schema: bool = True
    supports_temperature: bool = True
    tokens_field: str = "max_tokens"

    def without_refused_option(self, refusal: str) -> "ProviderOptions | None":
        """Return the options without the one that the refusal names, None if nothing is left to drop."""
        if _REASONING_TOKENS_FIELD in refusal and self.tokens_field != _REASONING_TOKENS_FIELD:
            return replace(self, tokens_field=_REASONING_TOKENS_FIELD)
        if "temperature" in refusal and self.supports_temperature:
            return replace(self, supports_temperature=False)
        return replace(self, supports_schema=False) if self.supports_schema else None


_MAX_ANSWER_TOKENS = 15000  # including reasoning tokens
_REQUEST_TIMEOUT_SECONDS = 600.0
_MAX_NAME_LENGTH = 100  # stored characters
_MAX_TEXT_LENGTH = 400_000  # characters; 15,000 tokens are about 60,000

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """An answer. `is_truncated` if the model reached its token limit."""

    text: str
    model: str
    is_truncated: bool
    usage: Usage


class ChatClient:
    """Calls one service. `options` is shared: supported request options by address and model."""

    def __init__(self, service: ModelServiceClient, options: dict[str, ProviderOptions]) -> None:
        self._service = service
        self._config = service.config
        self._options = options

    async def complete(
        self, operation: str, messages: Sequence[Message], temperature: float, schema: Mapping[str, Any]
    ) -> ChatCompletion:
        """Request a completion, with a JSON schema if supported. Raises the errors of a `MomentFinder`."""
        address = f"{self._config.base_url} {self._config.model_id}"
        request_options = self._options.get(address, ProviderOptions())
        while True:
            body = self._build_body(request_options, messages, temperature)
            if request_options.supports_schema:
                body["response_format"] = _response_format(operation, schema)
            try:
                answer = await self._request_completion(operation, body)
            except RequestRefused as refusal:
                simpler = request_options.without_refused_option(str(refusal)) if refusal.status in (400, 422) else None
                if simpler is None:
                    raise
                request_options = simpler
            else:
                self._options[address] = request_options
                return answer

    def _build_body(
        self, request_options: ProviderOptions, messages: Sequence[Message], temperature: float
    ) -> dict[str, Any]:
        values = {
            "temperature": temperature if request_options.supports_temperature else None,
            "model": self._config.model_id,
            "top_p": self._config.top_p,
            "top_k": self._config.top_k,
        }
        return {
            "messages": list(messages),
            request_options.tokens_field: _MAX_ANSWER_TOKENS,
            **{name: value for name, value in values.items() if value is not None},
        }

    async def _request_completion(self, operation: str, body: Mapping[str, Any]) -> ChatCompletion:
        async with self._service.log_call(operation) as call:
            answer = await self._service.post(
                make_openai_api_path(self._config, "/chat/completions"), _REQUEST_TIMEOUT_SECONDS, json=body
            )
            call.usage = _parse_token_usage(answer)
            completion = self._parse_completion(answer)
        return replace(completion, usage=call.usage)

    def _parse_completion(self, answer: Any) -> ChatCompletion:
        match answer:
            case {"choices": [{"message": dict() as message} as choice, *_]}:
                model = parse_short_line(
                    answer.get("model"), self._config.model_id or self._config.name, _MAX_NAME_LENGTH
                )
                return ChatCompletion(
                    _get_message_text(message), model, choice.get("finish_reason") == "length", Usage()
                )
            case _:
                reason = f"{self._config.name} did not answer as a chat completion service does"
                raise ModelAnswerInvalid(reason, clean_text(str(answer))[:_MAX_TEXT_LENGTH])


def _response_format(operation: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": operation, "strict": True, "schema": schema}}


def _get_message_text(message: Mapping[str, Any]) -> str:
    # If a model does not close its reasoning, some servers return the whole answer as reasoning. Content may be a list.
    content = message.get("content") or message.get("reasoning_content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return clean_text(content)[:_MAX_TEXT_LENGTH] if isinstance(content, str) else ""


def _parse_token_usage(answer: Any) -> Usage:
    counted = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(counted, dict):
        return Usage()
    return Usage(
        prompt_tokens=_parse_token_count(counted.get("prompt_tokens")),
        completion_tokens=_parse_token_count(counted.get("completion_tokens")),
    )


def _parse_token_count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0
