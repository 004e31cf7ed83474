"""`/`, `/health`, `/health/live`, `/health/ready`"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from app import __version__
from app.api.answers import Error, answer_dataclass, json_answer
from app.api.dependencies import ResourcesDep
from app.api.errors import error_answer

router = APIRouter(tags=["health"])


@answer_dataclass
class HealthAnswer:
    status: Annotated[str, Field(examples=["healthy"])]
    redis: Annotated[str, Field(examples=["connected"])]
    database: Annotated[str, Field(examples=["connected"])]


@answer_dataclass
class ServiceVersionAnswer:
    message: Annotated[str, Field(examples=["Video Moments API"])]
    version: str


@router.get("/", response_model=ServiceVersionAnswer)
async def describe_service() -> Response:
    """Name and version of this service."""
    return json_answer(ServiceVersionAnswer(message="Video Moments API", version=__version__))


@router.get("/health", response_model=HealthAnswer)
async def report_health(resources: ResourcesDep) -> Response:
    """Always 200, within 2 seconds; reports whether Redis and the database are available."""
    redis, database = await resources.health.check_redis_and_database()
    words = {True: "connected", False: "disconnected"}
    return json_answer(HealthAnswer(status="healthy", redis=words[redis], database=words[database]))


@router.get("/health/live", response_model=ServiceVersionAnswer)
async def report_liveness() -> Response:
    """200 as long as the process answers at all."""
    return await describe_service()


@router.get("/health/ready", response_model=ServiceVersionAnswer, responses={503: {"model": Error}})
async def report_readiness(resources: ResourcesDep) -> Response:
    """200 when requests can be served; 503 with the reason when they cannot."""
    reason = await resources.health.find_unready_reason()
    return error_answer(503, reason, {"Retry-After": "5"}) if reason else await describe_service()
