"""The same with services: one that really transcribes, and one that speaks chat completions."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ai.asr_server import ASR_MODEL_ID, asr_serving
from tests.ai.model_server import ModelServer, Received, Reply
from tests.end_to_end.frontend import Finished, Frontend, fly_rocket
from tests.media.talks import Talk
from tests.speech import word_error_rate

FOUND = [
    {"start_time": 0.6, "end_time": 16.5, "title": "How Bread Is Made"},
    {"start_time": "17.6", "end_time": 33.9, "title": "A Journey to the Red Planet"},
]
REFINED = {"start_time": 2.0, "end_time": 14.0}


def answer(asked: Received) -> Reply:
    """Find and refine as a model does that thinks aloud and puts a fence around what it says."""
    is_search = "Making good bread" in asked.prompt and '"title"' in asked.prompt
    return Reply(f"<think>Hm.</think>```json\n{json.dumps(FOUND if is_search else REFINED)}\n```", model="chatty-7b")


@pytest.fixture(scope="module")
def chat() -> Iterator[ModelServer]:
    with ModelServer() as server:
        server.answer(answer)
        server.script([Reply(status=500)])
        yield server


@pytest.fixture(scope="module")
def served(
    frontend: Frontend, short_talk: Talk, chat: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Finished]:
    folder: Path = tmp_path_factory.mktemp("asr")
    with asr_serving(folder) as asr_url:
        frontend.configure("parakeet", base_url=asr_url, kind="transcription", model_id=ASR_MODEL_ID)
        frontend.configure("minimax", base_url=chat.url, model_id="chatty")
        yield fly_rocket(frontend, short_talk, min_length=10, max_length=30, min_moments=1, name="served.mp4")
    answer = frontend.post("/api/admin/models/seed", '{"force":true}')
    assert answer.status_code == 200, answer.text


def test_the_service_transcribes(served: Finished) -> None:
    assert served.last["status"] == "completed", served.last
    assert word_error_rate(served.talk.text, served.get("transcript")["transcription"]) < 0.1
    assert served.get("lineage")["transcript"]["transcription_service"] == ASR_MODEL_ID.rpartition("/")[2]


def test_the_service_finds_and_refines(served: Finished, chat: ModelServer) -> None:
    assert [moment["title"] for moment in served.originals] == [each["title"] for each in FOUND]
    assert [moment["start_time"] for moment in served.originals] == [0.6, 17.6]
    parents = {moment["id"]: moment for moment in served.originals}
    for moment in served.refined:
        assert moment["end_time"] - moment["start_time"] == pytest.approx(12)
        assert moment["title"] == parents[moment["parent_id"]]["title"]
    assert len(chat.requests) == 4  # one that failed, one that found, and two that refined
    assert {asked.body["model"] for asked in chat.requests} == {"chatty"}


def test_it_is_reported_that_the_service_answered(served: Finished) -> None:
    assert served.last["generation_model"] == "minimax"
    assert served.last["refinement_model"] == "minimax"
    assert served.last["answered_by"]["generation"] == "chatty-7b"
    assert served.last["answered_by"]["refinement"] == "chatty-7b"
    assert {moment["model_name"] for moment in served.originals + served.refined} == {"chatty-7b"}
