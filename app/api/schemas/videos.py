"""Videos."""

from pydantic import BaseModel, Field

_FILENAME = "Name of the file: what the id and the title are made from where they are not given"
_ID = "Name of the video in addresses: without / ? # % and control characters"
_TITLE = "What the video is called"
_SOURCE_URL = "Where it comes from: http://, https:// or gs://"


class UploadQuery(BaseModel):
    """What is said of a video that is sent as the body itself."""

    filename: str = Field("", max_length=1024, description=_FILENAME, examples=["Demo Talk.mp4"])
    id: str = Field("", max_length=255, description=_ID, examples=["demo-talk"])
    title: str = Field("", max_length=500, description=_TITLE, examples=["Demo Talk"])
    source_url: str = Field("", max_length=4096, description=_SOURCE_URL, examples=["https://cdn.example/talk.mp4"])


class UploadForm(BaseModel):
    """A video as a form, the parts in any order."""

    file: bytes = Field(description="The video; its name is used as `filename` of the query is")
    id: str = Field("", max_length=255, description=_ID, examples=["demo-talk"])
    title: str = Field("", max_length=500, description=_TITLE, examples=["Demo Talk"])
    source_url: str = Field("", max_length=4096, description=_SOURCE_URL, examples=["https://cdn.example/talk.mp4"])
