"""A row of `generation_configs`."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class GenerationConfig:
    """The parameters of a model call and its prompt, shared by all calls that used the same ones."""

    id: int
    prompt_id: int
    transcript_id: int | None
    model: str
    operation_type: str
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_moment_length: float | None
    max_moment_length: float | None
    min_moments: int | None
    max_moments: int | None
    config_hash: str
    created_at: datetime
