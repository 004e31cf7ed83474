"""Characters that steer a terminal, break a line or reverse the direction of writing, in names and titles."""

from typing import Any

import pytest
from httpx import AsyncClient

from app.ai.model_fields import ModelChanges
from app.core.text import find_control_character, find_control_except_line_breaks
from app.database import Connection
from tests.factories import make_moment, make_video

_TIMES = {"start_time": 0, "end_time": 5}
_MODEL = {"name": "a", "base_url": ""}


@pytest.mark.parametrize(
    "character",
    [
        "\0",
        "\x07",
        "\t",
        "\n",
        "\r",
        "\x1b",
        "\x7f",
        "\x85",
        "\x9b",
        "\u2028",
        "\u2029",
        "\u202a",
        "\u202e",
        "\u2066",
        "\u2069",
    ],
)
def test_a_control_is_found_in_a_line(character: str) -> None:
    assert find_control_character(f"a{character}b") == f"U+{ord(character):04X}"
    assert find_control_except_line_breaks(f"a{character}b") == (
        "" if character in "\t\n" else find_control_character(character)
    )


def test_text_of_any_script_holds_none() -> None:
    text = "שלום\u200f ن\u200cب 👩\u200d💻 café – “q” \xa0"
    assert find_control_character(text) == find_control_except_line_breaks(f"{text}\r\n\t{text}") == ""


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PATCH", "/api/videos/talk", {"title": "a\x1b[31mb"}, "title"),
        ("PATCH", "/api/videos/talk", {"source_url": "https://host/\x9b31m"}, "source_url"),
        ("POST", "/api/videos/talk/moments", {**_TIMES, "title": "a\x1b]0;b\x07"}, "title"),
        ("PATCH", "/api/videos/talk/moments/m", {"title": "a\u202eb"}, "title"),
        ("PATCH", "/api/videos/talk/moments/m", {"score": 1, "scoring_model": "a\nb"}, "scoring_model"),
        ("POST", "/api/videos/talk/generate-moments", {"user_prompt": "a\n\tb\x1b[2J"}, "user_prompt"),
        ("POST", "/api/videos/talk/generate-moments", {"model": "a\x1bb"}, "model"),
        ("POST", "/api/pipeline/talk/start", {"generation_prompt": "a\rb"}, "generation_prompt"),
        ("POST", "/api/pipeline/talk/start", {"refinement_model": "a\u2028b"}, "refinement_model"),
        ("POST", "/api/generate_moments", {"video_id": "a\x85b"}, "video_id"),
        ("POST", "/api/generate_moments", {"video_url": "https://host/a\x1b.mp4"}, "video_url"),
        ("POST", "/api/admin/models/a", {**_MODEL, "name": "a\x1b[31m"}, "name"),
        ("POST", "/api/admin/models/a", {**_MODEL, "model_id": "a\u2066b"}, "model_id"),
        ("GET", "/api/search?q=a%1B%5B31mb", None, "q"),
        ("GET", "/api/search?q=a&video=a%C2%9B", None, "video"),
    ],
)
async def test_a_control_in_a_name_is_refused(
    live_client: AsyncClient, conn: Connection, method: str, path: str, body: dict[str, Any] | None, field: str
) -> None:
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id, identifier="m")
    answer = await live_client.request(method, path, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"].startswith(f"{field} must not hold the character U+")


@pytest.mark.parametrize(("field", "name"), [("filename", "The file's name"), ("title", "title"), ("id", "id")])
@pytest.mark.parametrize("value", ["a\x1b]0;b.mp4", "a\u202eb.mp4", "a\nb.mp4"])
async def test_a_control_in_what_is_uploaded_is_refused(client: AsyncClient, field: str, name: str, value: str) -> None:
    raw = await client.post("/api/videos", content=b"video", params={"filename": "a.mp4", field: value})
    given = {"filename": "a.mp4", field: value}
    filename = given.pop("filename")
    form = await client.post("/api/videos", files={"file": (filename, b"video")}, data=given)
    for answer in (raw, form):
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(f"{name} must not hold the character U+")


async def test_a_detail_that_repeats_a_name_holds_no_raw_control(live_client: AsyncClient) -> None:
    answer = await live_client.post("/api/pipeline/a%C2%9B31m%E2%80%AE/start", json={})
    assert answer.json()["detail"] == "Video not found: a\x9b31m\u202e"
    assert answer.text.isprintable()
    unknown = await live_client.patch("/api/videos/talk", json={"a\x1b\nb": 1})
    assert unknown.json()["detail"].startswith(r"a\x1b\nb is no field")


def test_the_command_line_refuses_them_in_models_too() -> None:
    with pytest.raises(ValueError, match=r"U\+001B"):
        ModelChanges(name="a\x1b[31m")
