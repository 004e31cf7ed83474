"""`/api/admin/models`, over a real Redis-protocol server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from redis.asyncio import Redis

from tests.api.conftest import open_client, without_redis

PATH = "/api/admin/models"
MINE = {"name": "Mine", "base_url": "http://localhost:1"}


@pytest.fixture
async def client(app: FastAPI, redis: Redis) -> AsyncIterator[AsyncClient]:
    async with open_client(app) as client:
        yield client


async def test_seeding_fills_an_empty_registry_once(client: AsyncClient) -> None:
    first = await client.post(f"{PATH}/seed", json={"force": False})
    assert first.json() == {"seeded_count": 6, "message": "Seeded 6 model configs"}
    assert (await client.post(f"{PATH}/seed")).json()["seeded_count"] == 0
    assert (await client.post(f"{PATH}/seed", json={"force": True})).json()["seeded_count"] == 6


async def test_the_list_is_ordered_by_key_and_counted(client: AsyncClient) -> None:
    answer = (await client.get(PATH)).json()
    assert answer["count"] == 6
    keys = [model["model_key"] for model in answer["models"]]
    assert keys == ["local", "minimax", "parakeet", "qwen", "qwen3_omni", "qwen3_vl_fp8"]


async def test_a_new_model_is_read_back_with_every_field(client: AsyncClient) -> None:
    body = MINE | {"model_id": "m", "supports_video": True, "top_p": 0.5, "top_k": 7, "kind": "transcription"}
    created = await client.post(f"{PATH}/my-model_1.0", json=body)
    assert created.status_code == 200
    reports = {"has_api_key": False, "model_key": "my-model_1.0", "updated_at": created.json()["updated_at"]}
    assert created.json() == body | reports
    assert (await client.get(f"{PATH}/my-model_1.0")).json() == created.json()


async def test_posting_again_replaces_every_field(client: AsyncClient) -> None:
    await client.post(f"{PATH}/mine", json=MINE | {"top_p": 0.5, "model_id": "m"})
    answer = (await client.post(f"{PATH}/mine", json={"name": "Other", "base_url": ""})).json()
    assert (answer["name"], answer["base_url"], answer["top_p"], answer["model_id"]) == ("Other", "", None, None)


async def test_a_change_touches_only_what_is_given_and_answers_with_the_new_time(client: AsyncClient) -> None:
    before = (await client.post(f"{PATH}/mine", json=MINE | {"top_k": 7})).json()
    after = (await client.patch(f"{PATH}/mine", json={"top_p": 0.25, "name": None, "top_k": None})).json()
    assert after == before | {"top_p": 0.25, "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]
    assert (await client.get(f"{PATH}/mine")).json() == after


async def test_an_empty_model_id_reads_back_as_null(client: AsyncClient) -> None:
    await client.post(f"{PATH}/mine", json=MINE | {"model_id": "m"})
    await client.patch(f"{PATH}/mine", json={"model_id": ""})
    assert (await client.get(f"{PATH}/mine")).json()["model_id"] is None


async def test_an_api_key_is_taken_and_never_shown(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    answers = [
        await client.post(f"{PATH}/mine", json=MINE | {"api_key": "sk-secret"}),
        await client.get(f"{PATH}/mine"),
        await client.patch(f"{PATH}/mine", json={"top_k": 1}),
        await client.get(PATH),
    ]
    assert [answer.json()["has_api_key"] for answer in answers[:3]] == [True, True, True]
    assert (await client.patch(f"{PATH}/mine", json={"api_key": ""})).json()["has_api_key"] is False
    refused = await client.patch(f"{PATH}/mine", json={"api_key": "sk-secret two"})
    assert refused.json() == {"detail": "api_key must be printable ASCII without spaces"}
    assert not any("sk-secret" in answer.text for answer in answers)
    assert "sk-secret" not in caplog.text


async def test_the_kind_of_a_model_can_be_changed(client: AsyncClient) -> None:
    assert (await client.post(f"{PATH}/mine", json=MINE)).json()["kind"] == "chat"
    assert (await client.patch(f"{PATH}/mine", json={"kind": "parakeet"})).json()["kind"] == "parakeet"


@pytest.mark.parametrize("body", [{}, {"name": None}, {"ssh_host": "user@gateway"}])
async def test_a_change_of_nothing_is_refused(client: AsyncClient, body: dict[str, Any]) -> None:
    await client.post(f"{PATH}/mine", json=MINE)
    answer = await client.patch(f"{PATH}/mine", json=body)
    assert answer.status_code == 422
    assert "at least one field" in answer.json()["detail"]


async def test_a_deleted_model_is_gone(client: AsyncClient) -> None:
    await client.post(f"{PATH}/tst", json=MINE)
    answer = await client.delete(f"{PATH}/tst")
    message = "Model config 'tst' deleted successfully"
    assert answer.json() == {"success": True, "model_key": "tst", "message": message}
    assert (await client.delete(f"{PATH}/tst")).status_code == 404


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_model_is_404_and_names_those_there_are(client: AsyncClient, method: str) -> None:
    await client.post(f"{PATH}/seed")
    answer = await client.request(method, f"{PATH}/zzz", json={"name": "x"} if method == "PATCH" else None)
    assert answer.status_code == 404
    detail = "Model zzz not found; there are: local, minimax, parakeet, qwen, qwen3_omni, qwen3_vl_fp8"
    assert answer.json() == {"detail": detail}


@pytest.mark.parametrize("field", ["name", "base_url"])
async def test_a_required_field_is_named_where_it_is_missing(client: AsyncClient, field: str) -> None:
    answer = await client.post(f"{PATH}/mine", json={name: value for name, value in MINE.items() if name != field})
    assert (answer.status_code, answer.json()) == (422, {"detail": f"{field} is missing"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", value) for value in ("", "  ", None, 5, "x" * 201)),
        *(("base_url", value) for value in (None, "localhost:1", "ftp://h", "http://", "http://:80", "http:/h")),
        *(
            ("base_url", value)
            for value in ("http://h:0", "http://h:65536", "http://h/a b", "http://h\n", "http://h\0")
        ),
        *(("base_url", value) for value in ("http://[::1", " http://h", f"http://{'h' * 2000}", "http://hü")),
        *(("supports_video", value) for value in ("true", 1, None)),
        *(("top_p", value) for value in (-0.1, 1.1, "0.5", True)),
        *(("top_k", value) for value in (0, -1, 2**31, 10**400, 1.5, "3")),
        ("model_id", "x" * 201),
        *(("kind", value) for value in ("telepathy", "", None, 1)),
        *(("api_key", value) for value in (None, 5, "two words", "ключ", "line\n", "x" * 4097)),
    ],
)
async def test_a_value_that_cannot_be_is_refused_and_nothing_is_written(
    client: AsyncClient, field: str, value: Any
) -> None:
    answer = await client.post(f"{PATH}/mine", json=MINE | {field: value})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{field} ")
    assert (await client.get(f"{PATH}/mine")).status_code == 404


@pytest.mark.parametrize("user", ["user:secret", "user", ":secret", ""])
async def test_an_address_with_a_password_is_refused_and_not_repeated(client: AsyncClient, user: str) -> None:
    answer = await client.post(f"{PATH}/mine", json=MINE | {"base_url": f"http://{user}@127.0.0.1:1/v1"})
    detail = "base_url must hold no user or password: set the API key instead"
    assert (answer.status_code, answer.json()) == (422, {"detail": detail})


@pytest.mark.parametrize("body", ["NaN", '{"name": "x", "base_url": "", "top_p": NaN}', "[]", '"x"', "", "{"])
async def test_a_body_that_is_no_model_is_refused(client: AsyncClient, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await client.post(f"{PATH}/mine", content=body, headers=headers)
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("url", ["", "https://h", "http://h:8000/v1", "http://model_server:1", "http://[::1]:80/"])
async def test_every_address_that_a_client_can_call_is_taken(client: AsyncClient, url: str) -> None:
    assert (await client.post(f"{PATH}/mine", json=MINE | {"base_url": url})).json()["base_url"] == url


@pytest.mark.parametrize("key", ["_keys", "a b", "a:b", "-a", ".a", "x" * 65, "a%00", "ü", "a%0A", "defaults"])
async def test_a_key_that_cannot_be_is_refused(client: AsyncClient, redis: Redis, key: str) -> None:
    answer = await client.post(f"{PATH}/{key}", json=MINE)
    assert answer.status_code == 422
    assert await redis.keys("*") == []


async def test_the_defaults_are_shown_by_key_even_where_they_are_not_in_use(client: AsyncClient) -> None:
    answer = (await client.get(f"{PATH}/defaults/all")).json()
    assert sorted(answer) == ["local", "minimax", "parakeet", "qwen", "qwen3_omni", "qwen3_vl_fp8"]
    assert answer["qwen3_omni"]["top_k"] == 20


async def test_put_is_not_allowed(client: AsyncClient) -> None:
    assert (await client.put(f"{PATH}/qwen", json=MINE)).status_code == 405


async def test_a_redis_that_is_away_is_503(app: FastAPI) -> None:
    async with open_client(without_redis(app)) as client:
        for method, path, body in (
            ("GET", "", None),
            ("GET", "/qwen", None),
            ("POST", "/qwen", MINE),
            ("PATCH", "/qwen", {"name": "x"}),
            ("DELETE", "/qwen", None),
            ("POST", "/seed", None),
        ):
            answer = await client.request(method, f"{PATH}{path}", json=body)
            assert (answer.status_code, answer.json()) == (503, {"detail": "Redis is not available"})
            assert int(answer.headers["Retry-After"]) > 0
        assert (await client.get(f"{PATH}/defaults/all")).status_code == 200


async def test_a_key_of_another_type_in_redis_is_503(client: AsyncClient, redis: Redis) -> None:
    await redis.set("model:config:odd", "text")
    answer = await client.get(f"{PATH}/odd")
    assert answer.status_code == 503
    assert "values of another program" in answer.json()["detail"]


async def test_bytes_that_are_no_text_in_redis_are_shown_as_such(client: AsyncClient, redis: Redis) -> None:
    await redis.hset("model:config:qwen", "name", b"\xff\xfeQwen")
    assert (await client.get(f"{PATH}/qwen")).json()["name"] == "\ufffd\ufffdQwen"


async def test_an_address_elsewhere_removes_the_api_key_and_the_answer_says_so(client: AsyncClient) -> None:
    body = MINE | {"api_key": "sk-secret"}
    assert "notice" not in (await client.post(f"{PATH}/mine", json=body)).json()
    same = (await client.patch(f"{PATH}/mine", json={"base_url": "HTTP://LOCALHOST:1/v1"})).json()
    assert (same["has_api_key"], "notice" in same) == (True, False)
    for answer in (
        await client.patch(f"{PATH}/mine", json={"base_url": "http://localhost:2"}),
        (await client.post(f"{PATH}/mine", json=body), await client.post(f"{PATH}/mine", json=MINE))[1],
    ):
        reports = answer.json()
        assert (answer.status_code, reports["has_api_key"]) == (200, False)
        assert (
            reports["notice"] == "The API key was removed, because the request has none for this address: set it again"
        )
    both = (await client.patch(f"{PATH}/mine", json={"base_url": "http://localhost:3", "api_key": "sk-new"})).json()
    assert (both["has_api_key"], "notice" in both) == (True, False)


@pytest.mark.parametrize(
    "address", ["http://gpu/v1?key=x", "http://gpu/#", "http://gpu/%3f", "http://0xa9fea9fe", "http://[fe80::1]"]
)
async def test_an_address_that_is_never_called_is_refused(client: AsyncClient, address: str) -> None:
    for answer in (
        await client.post(f"{PATH}/mine", json=MINE | {"base_url": address}),
        await client.patch(f"{PATH}/qwen", json={"base_url": address}),
    ):
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("base_url must ")
