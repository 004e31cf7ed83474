"""What an OpenAI-compatible service takes of a request, learned from what it refuses."""

from dataclasses import dataclass, replace

_NEWER_TOKENS = "max_completion_tokens"  # what OpenAI's reasoning models want instead of max_tokens


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a service is asked; the first time it is asked for everything."""

    takes_schema: bool = True
    takes_temperature: bool = True
    tokens_field: str = "max_tokens"

    def after(self, refusal: str) -> "Dialect | None":
        """Return how to ask after a refusal, the words of which name what is wrong, or None where nothing is left."""
        if _NEWER_TOKENS in refusal and self.tokens_field != _NEWER_TOKENS:
            return replace(self, tokens_field=_NEWER_TOKENS)
        if "temperature" in refusal and self.takes_temperature:
            return replace(self, takes_temperature=False)
        return replace(self, takes_schema=False) if self.takes_schema else None
