"""A row of `prompts`."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words a model was asked with, stored once however often they are used. Immutable."""

    id: int
    user_prompt: str
    system_prompt: str
    prompt_hash: str
    created_at: datetime
