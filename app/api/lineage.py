"""`/api/videos/{id}/lineage`"""

from fastapi import APIRouter
from starlette.responses import Response

from app.api.dependencies import AutocommitConnection, VideoId
from app.api.schemas.common import Error
from app.api.schemas.lineage import LineageAnswer
from app.services import provenance

router = APIRouter(prefix="/api/videos/{video_id}/lineage", tags=["lineage"])


@router.get("", response_model=LineageAnswer, responses={404: {"model": Error}})
async def get_lineage(video_id: VideoId, conn: AutocommitConnection) -> Response:
    """Everything that was made of a video.

    Its transcript, the prompts and configs that were used, their moments, what was refined from those, clips,
    thumbnails and runs. Each row is there once: a refined moment stands below the moment that it refines.
    """
    return Response(await provenance.read_lineage(conn, video_id), media_type="application/json")
