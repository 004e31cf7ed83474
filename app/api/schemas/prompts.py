"""Prompts."""

from datetime import datetime

from pydantic import BaseModel, Field


class _PromptValues(BaseModel):
    id: int = Field(examples=[7])
    user_prompt: str
    prompt_hash: str = Field(description="Hex SHA-256 of the user prompt followed by the system prompt")
    created_at: datetime


class PromptSummaryAnswer(_PromptValues):
    system_prompt_length: int = Field(description="In characters; `GET /api/prompts/{id}` gives the text")


class PromptAnswer(_PromptValues):
    system_prompt: str
