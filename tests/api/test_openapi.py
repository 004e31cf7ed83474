"""The documentation: every route with its errors, bodies with examples, and the two ways to send a key."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from httpx import AsyncClient

from app.core.api_keys import make_api_key
from app.core.config import Settings
from app.main import create_app
from tests.api.test_access import OPEN, walk

ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
# The frontend asks for these before there is anything to find.
ALWAYS_FOUND = {f"/api/pipeline/{{video_id}}/{name}" for name in ("status", "history", "events")}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


async def test_it_is_served_as_it_is_made(client: AsyncClient, document: dict[str, Any]) -> None:
    assert (await client.get("/openapi.json")).json() == document
    for path in ("/docs", "/redoc"):
        assert (await client.get(path)).status_code == 200


def test_no_route_is_left_out(app: FastAPI, document: dict[str, Any]) -> None:
    served = {
        f"{method} {route.path.replace(':path', '')}"
        for route in walk(app.routes)
        if isinstance(route, APIRoute)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert served == {name for name, _ in operations(document) if not name.startswith("HEAD ")}


def test_every_route_says_what_it_does_and_belongs_to_a_subject(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        assert len(operation["tags"]) == 1, name


def test_a_generated_client_gets_a_good_name_for_each_method(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for name in ids:
        assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", name), name
        assert "_api_" not in name
    assert {"list_videos", "upload_video", "edit_video", "delete_video", "add_moment", "start_pipeline"} <= set(ids)


def test_every_subject_is_described(document: dict[str, Any]) -> None:
    described = {tag["name"]: tag["description"] for tag in document["tags"]}
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}
    assert used == described.keys()
    assert all(re.fullmatch("[a-z_]+", name) for name in used)
    assert all(len(text) > 10 for text in described.values())


def test_every_error_is_one_short_text(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)
            if int(status) >= 400:
                assert answer["content"] == ERROR, (name, status)
    assert document["components"]["schemas"]["Error"]["properties"]["detail"]["type"] == "string"
    assert not {"HTTPValidationError", "ValidationError"} & document["components"]["schemas"].keys()


def test_the_errors_that_any_route_can_answer_with_are_documented(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        method, path = name.split(" ")
        expected = set() if path in OPEN else {"401", "503"}
        if method not in ("GET", "HEAD"):
            expected.add("403")
        if "requestBody" in operation:
            expected |= {"400", "413", "422"}
        if "{" in path and method != "POST" and path not in ALWAYS_FOUND:
            expected.add("404")
        assert expected <= operation["responses"].keys(), name


def test_every_success_says_what_it_holds(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status in ("200", "201", "206"):
                assert answer["content"], (name, status)
                for kind, content in answer["content"].items():
                    assert "json" not in kind or content["schema"], (name, status)


def test_every_json_body_has_an_example_and_every_parameter_a_meaning(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is not None:
            assert any("examples" in schema for schema in _named_schemas(document, content["schema"])), name


def test_keys_can_be_sent_in_two_ways_to_every_route_that_wants_one() -> None:
    document = create_app(Settings(api_keys=(make_api_key()[1],))).openapi()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert schemes["api_key"]["name"] == "X-API-Key"
    for name, operation in operations(document):
        either: list[dict[str, list[str]]] | None = (
            None if name.split(" ")[1] in OPEN else [{"bearer": []}, {"api_key": []}]
        )
        assert operation.get("security") == either, name


def test_where_no_key_is_needed_the_documentation_says_so(document: dict[str, Any]) -> None:
    assert {} in document["paths"]["/api/videos"]["get"]["security"]


def _named_schemas(document: dict[str, Any], schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in [schema, *schema.get("anyOf", [])]:
        name = part.get("$ref", "").removeprefix("#/components/schemas/")
        if name:
            yield document["components"]["schemas"][name]
