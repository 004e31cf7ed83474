"""Whatever is sent to whichever route: a refusal is one sentence of this project's own, never Pydantic's words."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.database import Connection
from tests.api.test_openapi import operations
from tests.core.test_validation import PYDANTIC_WORDS
from tests.factories import make_moment, make_video

# A value of every JSON type, and those at the edges of each.
_JSON_VALUES: tuple[Any, ...] = (
    *(None, True, "", " ", "x", "5", "x" * 5000, "\0", "a b", 0, -1, 1.5, 10**12, 10**30, [], ["x"], {}, {"a": 1}),
)
_TEXTS = ("", "x", "-1", "0", "1.5", "999999999999999999999999", "x" * 5000, "true", "nan", "a b", "💩", "é/ü", "%")
_IDENTIFIERS = {"video_id": "talk", "moment_id": "0123456789abcdef"}


def _schema_of(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for part in [schema, *schema.get("anyOf", [])]:
        if "$ref" in part:
            found: dict[str, Any] = document["components"]["schemas"][part["$ref"].rpartition("/")[2]]
            return found
    return schema


def _path(template: str, **values: str) -> str:
    for name, value in {**_IDENTIFIERS, **values}.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template.replace("{", "").replace("}", "")


def _example(document: dict[str, Any], operation: dict[str, Any]) -> tuple[dict[str, Any], list[str]] | None:
    """A JSON body that the route accepts, and the names of all its fields; None for a route without one."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    schema = _schema_of(document, content["schema"])
    return schema["examples"][0], list(schema.get("properties", {}))


def _strange_requests(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and the rest of requests that differ in one value from those that a route accepts."""
    for name, operation in operations(document):
        method, template = name.split(" ")
        for parameter in operation.get("parameters", []):
            for text in _TEXTS:
                if parameter["in"] == "path":
                    yield method, _path(template, **{parameter["name"]: text}), {}
                elif parameter["in"] == "query":
                    yield method, _path(template), {"params": {parameter["name"]: text}}
        example = _example(document, operation)
        if example is None:
            continue
        body, fields = example
        for value in _JSON_VALUES:
            yield method, _path(template), {"json": value}
            for field in [*fields, "unknown"]:
                yield method, _path(template), {"json": {**body, field: value}}
        for field in body:
            yield method, _path(template), {"json": {key: value for key, value in body.items() if key != field}}
        for text in ("", "{", "[1", "NaN", '{"a": NaN}'):
            yield method, _path(template), {"content": text, "headers": {"Content-Type": "application/json"}}
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
            yield method, _path(template), {"content": json.dumps(body), "headers": {"Content-Type": kind}}


async def test_no_refusal_is_in_the_words_of_pydantic(app: FastAPI, live_client: AsyncClient, conn: Connection) -> None:
    video = await make_video(conn, identifier="talk")
    await make_moment(conn, video_id=video.id, identifier=_IDENTIFIERS["moment_id"])
    refused = 0
    for method, path, rest in _strange_requests(app.openapi()):
        if method == "HEAD" or path.endswith("/events"):
            continue
        answer = await live_client.request(method, path, **rest)
        assert answer.status_code < 500 or answer.status_code == 503, (method, path, rest, answer.text)
        if answer.status_code == 422:
            detail = answer.json()["detail"]
            refused += 1
            assert isinstance(detail, str)
            assert not any(word in detail for word in PYDANTIC_WORDS), (method, path, rest, detail)
            assert "\n" not in detail
            assert detail != "The request holds a value that cannot be stored"
            assert len(detail) < 300
    assert refused > 500


@pytest.mark.parametrize(
    ("content", "content_type", "detail"),
    [
        ('{"start_time": 1}', "text/plain", "Send the body as application/json, not as text/plain"),
        ("a=1", "application/x-www-form-urlencoded", "Send the body as application/json, not as application/x-www"),
        ("[]", "application/json", "The body must be a JSON object, not a list"),
        ('"x"', "application/json", 'The body must be a JSON object, not "x"'),
        ("", "application/json", "The body is missing"),
        ("{", "application/json", "The body is not valid JSON"),
        ('{"start_time": "soon"}', "application/json", 'start_time must be a number, not "soon"'),
    ],
)
async def test_what_is_wrong_with_a_body_is_said(
    client: AsyncClient, content: str, content_type: str, detail: str
) -> None:
    headers = {"Content-Type": content_type}
    answer = await client.post("/api/videos/talk/moments", content=content, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(detail)
