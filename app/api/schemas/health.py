"""Health."""

from pydantic import BaseModel, Field


class HealthAnswer(BaseModel):
    status: str = Field(examples=["healthy"])
    redis: str = Field(examples=["connected"])
    database: str = Field(examples=["connected"])


class ServiceAnswer(BaseModel):
    message: str = Field(examples=["Video Moments API"])
    version: str
