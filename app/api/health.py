"""`/`, `/health`, `/health/live`, `/health/ready`"""

from fastapi import APIRouter
from starlette.responses import Response

from app import __version__
from app.api.answers import Error, json_answer
from app.api.dependencies import ResourcesDep
from app.api.errors import error_answer
from app.api.schemas.health import HealthAnswer, ServiceAnswer

router = APIRouter(tags=["health"])


@router.get("/", response_model=ServiceAnswer)
async def describe_service() -> Response:
    """Name and version."""
    return json_answer({"message": "Video Moments API", "version": __version__})


@router.get("/health", response_model=HealthAnswer)
async def report_health(resources: ResourcesDep) -> Response:
    """Always 200, within 2 seconds; tells which of the servers behind this one answer."""
    redis, database = await resources.health.check()
    return json_answer({"status": "healthy", "redis": _word(redis), "database": _word(database)})


@router.get("/health/live", response_model=ServiceAnswer)
async def report_liveness() -> Response:
    """200 as long as the process answers at all."""
    return await describe_service()


@router.get("/health/ready", response_model=ServiceAnswer, responses={503: {"model": Error}})
async def report_readiness(resources: ResourcesDep) -> Response:
    """200 when requests can be served; 503 with the reason when they cannot."""
    readiness = await resources.health.check_readiness()
    return await describe_service() if readiness.is_ready else error_answer(503, readiness.reason, {"Retry-After": "5"})


def _word(answers: bool) -> str:
    return "connected" if answers else "disconnected"
