"""One question to an OpenAI-compatible chat completion service, and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.ai.dialects import Dialect
from app.ai.protocols import Usage
from app.ai.service import Refusal, Service, read_name, versioned
from app.ai.text import clean
from app.core.errors import ModelAnswerInvalid

_MAX_TOKENS = 15000  # of an answer, the thinking of models that think included
_LIMIT_SECONDS = 600.0
_LONGEST_NAME = 100  # characters that are stored of a model's name
_LONGEST_TEXT = 400_000  # characters; 15,000 tokens are about 60,000

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """What was answered. `is_cut` says that the model came to the end of its tokens before that of its answer."""

    text: str
    model: str
    is_cut: bool
    usage: Usage


class ChatService:
    """Asks one service. `dialects` holds how services are asked, by address and model, for all who ask."""

    def __init__(self, service: Service, dialects: dict[str, Dialect]) -> None:
        self._service = service
        self._config = service.config
        self._dialects = dialects

    async def complete(
        self, operation: str, messages: Sequence[Message], temperature: float, schema: Mapping[str, Any]
    ) -> Completion:
        """Ask as the service takes it, with the schema if it can be. Raises what a `MomentFinder` raises."""
        address = f"{self._config.base_url} {self._config.model_id}"
        dialect = self._dialects.get(address, Dialect())
        while True:
            body = self._body(dialect, messages, temperature)
            if dialect.takes_schema:
                body["response_format"] = _response_format(operation, schema)
            try:
                answer = await self._ask(operation, body)
            except Refusal as refusal:
                simpler = dialect.after(str(refusal)) if refusal.status in (400, 422) else None
                if simpler is None:
                    raise
                dialect = simpler
            else:
                self._dialects[address] = dialect
                return answer

    def _body(self, dialect: Dialect, messages: Sequence[Message], temperature: float) -> dict[str, Any]:
        optional = {
            "temperature": temperature if dialect.takes_temperature else None,
            "model": self._config.model_id,
            "top_p": self._config.top_p,
            "top_k": self._config.top_k,
        }
        return {
            "messages": list(messages),
            dialect.tokens_field: _MAX_TOKENS,
            **{name: value for name, value in optional.items() if value is not None},
        }

    async def _ask(self, operation: str, body: Mapping[str, Any]) -> Completion:
        async with self._service.logged(operation) as call:
            answer = await self._service.post(versioned(self._config, "/chat/completions"), _LIMIT_SECONDS, json=body)
            call.usage = _read_usage(answer)
            completion = self._read(answer)
        return replace(completion, usage=call.usage)

    def _read(self, answer: Any) -> Completion:
        match answer:
            case {"choices": [{"message": dict() as message} as choice, *_]}:
                model = read_name(answer.get("model"), self._config.model_id or self._config.name, _LONGEST_NAME)
                return Completion(_read_text(message), model, choice.get("finish_reason") == "length", Usage())
            case _:
                reason = f"{self._config.name} did not answer as a chat completion service does"
                raise ModelAnswerInvalid(reason, clean(str(answer))[:_LONGEST_TEXT])


def _response_format(operation: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": operation, "strict": True, "schema": schema}}


def _read_text(message: Mapping[str, Any]) -> str:
    """Return the text of a message, which some services give in parts."""
    # Of a thought that a model did not close, some servers make all of its answer.
    content = message.get("content") or message.get("reasoning_content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return clean(content)[:_LONGEST_TEXT] if isinstance(content, str) else ""


def _read_usage(answer: Any) -> Usage:
    counted = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(counted, dict):
        return Usage()
    return Usage(
        prompt_tokens=_count(counted.get("prompt_tokens")), completion_tokens=_count(counted.get("completion_tokens"))
    )


def _count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0
