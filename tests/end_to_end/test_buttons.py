"""Each button of the frontend by itself, in the order in which somebody would press them."""

import time
from collections.abc import Callable

import pytest

from tests.end_to_end.frontend import Answer, Frontend, rocket_body
from tests.media.talks import Talk
from tests.sites import Site, ranging
from tests.speech import word_error_rate

GENERATE = (
    '{"user_prompt":"Find what is said about one thing.","min_moment_length":10,"max_moment_length":25,'
    '"min_moments":1,"max_moments":10,"model":"qwen3_vl_fp8","temperature":0.7}'
)
REFINE = '{"user_prompt":"Find the exact words.","model":"qwen3_vl_fp8","temperature":0.7,"include_video":false}'
EXTRACT = '{"override_existing":true}'


@pytest.fixture(scope="module")
def video(frontend: Frontend, short_talk: Talk) -> str:
    return frontend.upload(short_talk.path, "by button.mp4")


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def moments_of(frontend: Frontend, video: str) -> list[Answer]:
    moments: list[Answer] = frontend.get(f"/api/videos/{video}/moments")
    return moments


def test_each_button_does_its_part_and_refuses_what_is_there_already(
    frontend: Frontend, video: str, short_talk: Talk
) -> None:
    of = f"/api/videos/{video}"
    refused = frontend.post(f"{of}/process-transcript")
    assert (refused.status_code, refused.json()) == (
        400,
        {"detail": "Audio file not found. Please process audio first."},
    )

    answer = frontend.press(f"{of}/process-audio")
    assert answer == {"message": "Audio processing started", "video_id": video}
    assert frontend.finish_job(f"{of}/audio-extraction-status")["error"] == ""
    eventually(lambda: frontend.get(of)["has_audio"] is True)  # a listing is good for a second
    assert frontend.post(f"{of}/process-audio").json() == {"detail": "Audio file already exists for this video"}

    answer = frontend.press(f"{of}/process-transcript")
    assert answer == {"message": "Transcript generation started", "video_id": video}
    frontend.finish_job(f"{of}/transcription-status")
    assert word_error_rate(short_talk.text, frontend.get(f"{of}/transcript")["transcription"]) < 0.1

    answer = frontend.press(f"{of}/generate-moments", GENERATE)
    assert answer == {"message": "Moment generation started", "video_id": video}
    frontend.finish_job(f"{of}/generation-status")
    moments = moments_of(frontend, video)
    assert [round(moment["start_time"] / 17) for moment in moments] == [0, 1]
    assert {moment["generation_config"]["user_prompt"] for moment in moments} == {"Find what is said about one thing."}

    answer = frontend.press(f"{of}/extract-clips", EXTRACT)
    assert answer == {"message": "Clip extraction started", "video_id": video}
    last = frontend.finish_job(f"{of}/clip-extraction-status")
    assert (last["total_moments"], last["processed_moments"], last["failed_moments"]) == (2, 2, 0)

    first = moments[0]["id"]
    availability = frontend.get(f"{of}/moments/{first}/video-availability")
    assert (availability["available"], availability["warning"]) == (True, None)
    answer = frontend.press(f"{of}/moments/{first}/refine", REFINE)
    assert answer["message"] == "Moment refinement started"
    frontend.finish_job(f"{of}/refinement-status/{first}")
    for refined in (moment for moment in moments_of(frontend, video) if moment["is_refined"]):
        assert refined["parent_id"] == first
        assert refined["generation_config"]["user_prompt"] == "Find the exact words."
        assert refined["start_time"] != moments[0]["start_time"] or refined["end_time"] != moments[0]["end_time"]


def test_a_run_again_replaces_what_it_made_and_keeps_what_was_added_by_hand(
    frontend: Frontend, short_talk: Talk
) -> None:
    video = frontend.upload(short_talk.path, "again.mp4")
    by_hand = frontend.post(f"/api/videos/{video}/moments", '{"start_time":5,"end_time":10,"title":"Mine"}')
    assert by_hand.status_code == 201, by_hand.text
    made = []
    for _ in range(2):
        frontend.press(f"/api/pipeline/{video}/start", rocket_body(10, 30, min_moments=1, override=True))
        last = frontend.poll_run(video)[-1]
        assert last["status"] == "completed", last
        mine, other = (each for each in moments_of(frontend, video) if not each["is_refined"])
        assert (mine["id"], mine["title"]) == (by_hand.json()["id"], "Mine")
        assert other["start_time"] > 15
        made.append(other["id"])
    assert made[0] != made[1]
    parents = [each["parent_id"] for each in moments_of(frontend, video) if each["is_refined"]]
    assert len(parents) == len(set(parents))
    assert frontend.get(f"/api/pipeline/{video}/history")["count"] == 2


def test_a_video_comes_from_a_url(frontend: Frontend, short_talk: Talk, site: Site) -> None:
    site.answers["/a/My%20Video_File.MP4"] = ranging(short_talk.path.read_bytes())
    url = f"{site.url}/a/My%20Video_File.MP4?x=1"
    body = (
        f'{{"video_url":"{url}","force_download":false,"model":"qwen3_vl_fp8","temperature":0.7,'
        '"min_moment_length":10,"max_moment_length":30,"min_moments":1,"max_moments":10,'
        '"refinement_parallel_workers":2,"include_video_refinement":true}'
    )
    started = frontend.press("/api/generate_moments", body)
    video = started["video_id"]
    assert video == "my-20video-file"
    assert (started["status"], started["download_required"], started["is_cached"]) == ("queued", True, False)
    assert started["source_url"] == url
    last = frontend.poll_run(video)[-1]
    assert last["status"] == "completed", last
    assert last["stages"]["download"]["progress"]["percentage"] == 100
    assert len([each for each in moments_of(frontend, video) if not each["is_refined"]]) == 2
    assert frontend.load(f"/api/videos/{video}/stream").content == short_talk.path.read_bytes()

    again = frontend.press("/api/generate_moments", body)
    assert (again["video_id"], again["download_required"], again["is_cached"]) == (video, False, True)
    frontend.press(f"/api/pipeline/{video}/cancel")
    assert frontend.poll_run(video)[-1]["status"] == "cancelled"


def test_a_run_is_cancelled_while_it_transcribes(frontend: Frontend, talk: Talk) -> None:
    video = frontend.upload(talk.path, "cancelled.mp4")
    frontend.press(f"/api/pipeline/{video}/start", rocket_body(15, 35))
    status = wait_for_stage(frontend, video, "transcript")
    assert status["stages"]["audio"]["status"] == "completed"
    answer = frontend.press(f"/api/pipeline/{video}/cancel")
    assert answer == {"message": "Cancellation requested", "video_id": video}
    last = frontend.poll_run(video)[-1]
    assert (last["status"], last["current_stage"], last["error_message"]) == ("cancelled", "transcript", None)
    assert frontend.get(f"/api/videos/{video}")["has_transcript"] is False
    refused = frontend.post(f"/api/pipeline/{video}/cancel")
    assert (refused.status_code, refused.json()) == (400, {"detail": f"No pipeline running for video '{video}'"})


def wait_for_stage(frontend: Frontend, video: str, stage: str) -> Answer:
    deadline = time.monotonic() + 120
    while True:
        status: Answer = frontend.get(f"/api/pipeline/{video}/status")
        if status["stages"].get(stage, {}).get("status") == "processing":
            return status
        assert status["status"] in ("pending", "processing"), status
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
