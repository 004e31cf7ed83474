"""A canary in every secret, services that repeat all they are sent, runs that fail: none is anywhere but at its place.

They may be read in Redis, where a model's key is kept, and in the columns that hold the URLs of a download and of a
callback, because these are used again.
"""

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from redis import Redis

from app.embedded import EmbeddedValkey
from tests.ai.model_server import ModelServer, Received, Reply
from tests.conftest import Databases
from tests.end_to_end.frontend import Frontend
from tests.media.movies import make_movie_with_audio
from tests.serving import ServerProcess, serving
from tests.sites import Site, Visit, sending

CHAT_KEY = "sk-canary-Chat/0123+456789"
EARS_KEY = "CanaryEars0123456789abcdef"
URL_USER, URL_SIGNATURE = "CanaryUrlUser1", "CanaryUrlSignature2"
HOOK_USER, HOOK_TOKEN = "CanaryHookUser3", "CanaryHookToken4"
CLIENT_KEY = "CanaryClient5"
DATABASE_PASSWORD = "CanaryDatabase/6"  # noqa: S105 (of nothing)
CALLBACK_KEY = base64.b64encode(b"CanaryCallback7 CanaryCallback8.").decode()
CANARIES = [
    *(CHAT_KEY, "CanaryEars", "CanaryUrl", "CanaryHook", CLIENT_KEY, "CanaryDatabase", CALLBACK_KEY),
    *("sk-canary", base64.b64encode(CHAT_KEY.encode()).decode()[:20], "sk%2Dcanary", "Chat%2F0123", "Chat\\/0123"),
]
OF_URLS = re.compile("CanaryUrl|CanaryHook")
# Where a URL is kept as it is, to be called again.
KEPT = {("public", "videos", "source_url"), ("pipeline", "runs", "request")}


@dataclass
class Place:
    """What ran, and what it left."""

    server: ServerProcess
    redis: Redis
    database_url: str
    data: Path
    videos: list[str] = field(default_factory=list)
    hooks: list[Visit] = field(default_factory=list)

    def answers(self) -> Iterator[tuple[str, str]]:
        """Every GET of the documentation, for each video, run and row that there is."""
        with httpx.Client(base_url=self.server.url, headers={"Authorization": f"Bearer {CLIENT_KEY}"}) as client:
            runs = [run["request_id"] for run in client.get("/api/admin/pipeline/failed").json()["runs"]]
            for path, methods in client.get("/openapi.json").json()["paths"].items():
                for filled in self._fill(path, runs) if "get" in methods else ():
                    answer = client.get(filled, params={"q": "hello"} if path == "/api/search" else None)
                    yield filled, f"{answer.headers} {answer.content.decode('utf-8', 'replace')}"

    def _fill(self, path: str, runs: list[str]) -> set[str]:
        names = {"key": ["qwen3_vl_fp8", "parakeet"], "request_id": runs, "video_id": self.videos}
        names |= {"prompt_id": ["1", "2", "3"], "config_id": ["1", "2", "3"]}
        filled = {path}
        for name in re.findall(r"\{(\w+)\}", path):
            values = names.get(name, ["x"])
            filled = {each.replace(f"{{{name}}}", value) for each in filled for value in values}
        return filled

    def columns(self) -> Iterator[tuple[tuple[str, str, str], str]]:
        with psycopg.connect(self.database_url) as conn:
            columns = conn.execute(
                "SELECT table_schema::text, table_name::text, column_name::text FROM information_schema.columns "
                "WHERE table_schema IN ('public', 'pipeline', 'search', 'library')"
            ).fetchall()
            for schema, table, column in columns:
                query = sql.SQL("SELECT string_agg({}::text, ' ') FROM {}").format(
                    sql.Identifier(column), sql.Identifier(schema, table)
                )
                row = conn.execute(query).fetchone()
                yield (schema, table, column), str(row[0] if row else "")

    def live_state(self) -> Iterator[tuple[str, str]]:
        for key in self.redis.scan_iter():
            match self.redis.type(key):
                case "hash":
                    yield key, str({name: text for name, text in self.redis.hgetall(key).items() if name != "api_key"})
                case "stream":
                    yield key, str(self.redis.xrange(key))
                case "string":
                    yield key, str(self.redis.get(key))

    def files(self) -> Iterator[tuple[str, str]]:
        for path in self.data.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes().decode("utf-8", "replace")


def echo(asked: Received) -> str:
    """All that a request has told, in several spellings."""
    key = asked.headers["authorization"].removeprefix("Bearer ")
    escaped = "".join(f"%{ord(each):02X}" for each in key)
    encoded = base64.b64encode(f"user:{key}".encode()).decode()
    return f"{json.dumps(dict(asked.headers))} {key} {escaped} Basic {encoded} {key[:13]} {key[13:]} {asked.body}"


def hear(asked: Received) -> Reply:
    key = asked.headers["authorization"]
    text = f"hello {key}"
    timed = {"start": 1.0, "end": 9.0}
    words = [{"word": "hello", "start": 1.0, "end": 2.0}, {"word": key.split()[1], "start": 2.0, "end": 9.0}]
    body = {"text": text, "language": key[:50], "model": key, "words": words, "segments": [{"text": text, **timed}]}
    return Reply(body=body | {"headers": asked.headers})


def find(asked: Received) -> Reply:
    """What finds and refines depends on the prompt, and how it fails on the video's length."""
    if "the better prompt" in asked.prompt:
        return Reply(status=401, body={"error": {"message": f"Wrong: {echo(asked)}", "headers": asked.headers}})
    if "the odd prompt" in asked.prompt:
        return Reply(body=f"<html>{echo(asked)}</html>".encode())
    if "the poor prompt" in asked.prompt:
        return Reply(text=f"no moments, but {echo(asked)}", model=asked.headers["authorization"])
    title = f"Title {asked.headers['authorization']} {asked.headers['authorization'].removeprefix('Bearer ')}"
    found: Any = {"moments": [{"start_time": 0, "end_time": 11, "title": title}], "start_time": 1, "end_time": 10}
    return Reply(text=f"```json\n{json.dumps(found)}\n```\n{echo(asked)}", model=asked.headers["authorization"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, databases: Databases, template_url: str) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("canaries")
    url = databases.create(template_url)
    movie = make_movie_with_audio(folder / "talk.mp4", 12.0, [(1.0, 9.0)]).read_bytes()
    with Site() as site, ModelServer() as services, EmbeddedValkey(folder / "valkey") as valkey:
        site.answers = {"/talk.mp4": sending(movie), "/hook": sending(b"", 500)}
        services.transcript(hear)
        services.answer(find)
        with serving(
            folder,
            database_url=f"{url}{'&' if '?' in url else '?'}sslpassword={DATABASE_PASSWORD}",
            redis_url=valkey.url,
            run_pipeline_worker=True,
            allowed_hosts=site.host,
            callback_secret=f"whsec_{CALLBACK_KEY}",
            log_level="debug",
            data_dir=folder / "data",
        ) as server:
            place = Place(server, Redis.from_url(valkey.url, decode_responses=True), url, folder / "data")
            run_all(place, site, services)
            yield place
            place.redis.close()


def run_all(place: Place, site: Site, services: ModelServer) -> None:
    signed = f"http://{URL_USER}:{URL_USER}@{site.host}/{{}}.mp4?n={{}}&X-Goog-Signature={URL_SIGNATURE}"
    hook = f"http://{HOOK_USER}:{HOOK_USER}@{site.host}/hook?token={HOOK_TOKEN}"
    lengths = {"min_moment_length": 10, "max_moment_length": 30, "min_moments": 1, "callback_url": hook}
    with Frontend(place.server.url) as frontend:
        frontend.configure("parakeet", base_url=services.url, kind="transcription", api_key=EARS_KEY)
        frontend.configure("qwen3_vl_fp8", base_url=services.url, api_key=CHAT_KEY)
        prompts = ["the good prompt", "the better prompt", "the odd prompt", "the poor prompt"]
        for number, (name, prompt) in enumerate([*(("talk", prompt) for prompt in prompts), ("gone", "none")]):
            body = {"video_url": signed.format(name, number), "generation_prompt": f"{prompt} {CHAT_KEY}", **lengths}
            started = frontend.press("/api/generate_moments", json.dumps(body))
            place.videos.append(started["video_id"])
            last = frontend.poll_run(started["video_id"])[-1]
            assert last["status"] == ("completed" if prompt == "the good prompt" else "failed"), json.dumps(last)
    deadline = time.monotonic() + 30
    while len(place.hooks) < len(place.videos) and time.monotonic() < deadline:
        time.sleep(0.1)
        place.hooks = [visit for visit in site.visits if visit.path.startswith("/hook")]
    assert {asked.headers["authorization"] for asked in services.requests} == {
        f"Bearer {CHAT_KEY}",
        f"Bearer {EARS_KEY}",
    }


def list_found(text: str) -> list[str]:
    return [canary for canary in CANARIES if canary in text]


def test_no_answer_holds_one(place: Place) -> None:
    answers = dict(place.answers())
    assert len(answers) > 60
    assert "…" in "".join(answers.values())
    assert {path: found for path, text in answers.items() if (found := list_found(text))} == {}


def test_no_table_holds_one_but_where_a_url_is_to_be_called_again(place: Place) -> None:
    found = {column: [each for each in CANARIES if each in text] for column, text in place.columns()}
    held = {column: canaries for column, canaries in found.items() if canaries}
    assert held == {column: held[column] for column in KEPT}
    assert all(OF_URLS.match(canary) for canaries in held.values() for canary in canaries)


def test_no_line_of_the_log_holds_one(place: Place) -> None:
    lines = place.server.output.splitlines()
    assert any("completed" in line for line in lines)
    assert [line for line in lines if list_found(line)] == []


def test_neither_live_state_nor_files_hold_one(place: Place) -> None:
    state = dict(place.live_state())
    assert any(key.startswith("model:config:") for key in state)
    assert {key: list_found(text) for key, text in state.items() if list_found(text)} == {}
    assert {path: list_found(text) for path, text in place.files() if list_found(text)} == {}


def test_no_callback_tells_one(place: Place) -> None:
    assert place.hooks
    assert [visit.body for visit in place.hooks if list_found(visit.body.decode())] == []
