"""A talk is uploaded, the rocket button is pressed, and what there is half a minute later."""

import io
import re
from itertools import pairwise

import av

from app.models.stages import Stage
from tests.end_to_end.frontend import Answer, Finished
from tests.media.talks import FRAME_RATE, Talk
from tests.speech import word_error_rate

FRAME = 1 / FRAME_RATE
_COLOUR_TOLERANCE = 14


def topic_words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3}


def shown_at(talk: Talk, seconds: float) -> tuple[int, int, int]:
    return talk.topics[sum(seconds >= boundary for boundary in talk.boundaries)].colour


def middle_of(picture: av.VideoFrame) -> tuple[int, ...]:
    pixels = picture.to_ndarray(format="rgb24")
    return tuple(int(value) for value in pixels[pixels.shape[0] // 2, pixels.shape[1] // 2])


def is_colour(seen: tuple[int, ...], expected: tuple[int, int, int]) -> bool:
    return all(abs(one - other) <= _COLOUR_TOLERANCE for one, other in zip(seen, expected, strict=True))


def nodes_of(lineage: Answer) -> list[Answer]:
    """The moments of a lineage: originals, with what was refined from them below."""
    return [moment for prompt in lineage["prompts"] for config in prompt["configs"] for moment in config["moments"]]


def test_it_goes_through_its_stages_in_order_and_each_poll_can_be_shown(finished: Finished) -> None:
    assert finished.started["status"] == "queued"
    assert finished.last["status"] == "completed"
    places = [list(Stage).index(Stage(poll["current_stage"])) for poll in finished.polls if poll["current_stage"]]
    assert places == sorted(places)
    for poll in finished.polls:
        assert poll["status"] in ("pending", "processing", "completed")
        assert poll["request_id"] == finished.started["request_id"]
        assert poll["model"]
        assert poll["error_message"] is None
        assert list(poll["stages"]) == list(Stage)


def test_every_stage_has_been_done(finished: Finished) -> None:
    stages = finished.last["stages"]
    assert stages["download"]["skip_reason"] == "Video already exists locally"
    others = {"download", "audio_upload"}
    if not finished.refined:  # this engine's own moments begin and end with sentences
        assert stages["refinement"]["skip_reason"] == "Times were exact already"
        others.add("refinement")
    assert {stage for stage in stages if stages[stage]["status"] != "completed"} <= others
    assert finished.last["total_duration_seconds"] > 0
    assert stages["clips"]["progress"] == {"total": 4, "processed": 4, "failed": 0}
    assert stages["refinement"]["progress"] == {"total": 4, "processed": 4, "successful": 4, "failed": 0}


def test_at_most_one_word_in_ten_is_heard_wrongly(finished: Finished) -> None:
    transcript = finished.get("transcript")
    assert word_error_rate(finished.talk.text, transcript["transcription"]) < 0.1
    said = " ".join(segment["text"] for segment in transcript["segment_timestamps"])
    assert word_error_rate(finished.talk.text, said) < 0.1


def test_words_are_reported_where_they_are_said(finished: Finished) -> None:
    words = finished.get("transcript")["word_timestamps"]
    assert all(word["start"] <= word["end"] for word in words)
    assert all(one["start"] <= other["start"] for one, other in pairwise(words))
    assert words[-1]["end"] <= finished.talk.duration
    for sentence in finished.talk.sentences:
        assert any(abs(word["start"] - sentence.start) < 1 for word in words), sentence


def test_moments_begin_and_end_where_topics_do(finished: Finished) -> None:
    assert len(finished.originals) == len(finished.talk.topics)
    for moment, topic in zip(finished.originals, finished.talk.topics, strict=True):
        assert abs(moment["start_time"] - topic.start) <= 3
        assert abs(moment["end_time"] - topic.end) <= 3


def test_titles_say_what_is_spoken_about(finished: Finished) -> None:
    for moment, topic in zip(finished.originals, finished.talk.topics, strict=True):
        spoken = " ".join(sentence.text for sentence in topic.sentences)
        assert topic_words(moment["title"]) & topic_words(spoken), moment["title"]


def test_each_moment_has_a_refined_moment_under_it_unless_its_times_were_exact(finished: Finished) -> None:
    originals = {moment["id"]: moment for moment in finished.originals}
    parents = [moment["parent_id"] for moment in finished.refined]
    assert len(parents) == len(set(parents))
    for moment in finished.refined:
        original = originals[moment["parent_id"]]
        assert moment["title"] == original["title"]
        assert (moment["start_time"], moment["end_time"]) != (original["start_time"], original["end_time"])
        assert abs(moment["start_time"] - original["start_time"]) <= 30
        assert moment["start_time"] < original["end_time"]
        assert moment["end_time"] > original["start_time"]
        assert moment["generation_config"]["operation_type"] == "refinement"


def test_each_clip_plays_for_exactly_its_length_and_shows_what_was_to_be_seen(finished: Finished) -> None:
    for moment in nodes_of(finished.get("lineage")):
        clip = moment["clip"]
        video_file = finished.frontend.load(f"/api/videos/{finished.video}/moments/{moment['id']}/clip")
        with av.open(io.BytesIO(video_file.content), "r") as container:
            frames = [(frame.time, middle_of(frame)) for frame in container.decode(video=0)]
            stream = container.streams.audio[0]
            assert stream.duration is not None
            assert stream.time_base is not None
            heard = float(stream.duration * stream.time_base)
        length = clip["end_time"] - clip["start_time"]
        assert clip["start_time"] <= moment["start_time"]
        assert clip["end_time"] >= moment["end_time"]
        assert abs(frames[-1][0] - frames[0][0] + FRAME - length) <= FRAME * 1.01
        assert abs(heard - length) <= FRAME
        _check_colours(finished.talk, clip["start_time"], frames)


def _check_colours(talk: Talk, start: float, frames: list[tuple[float, tuple[int, ...]]]) -> None:
    """Where the colour changes, either of the two may be seen for a frame."""
    for seconds, seen in frames:
        near = {shown_at(talk, start + seconds + shift) for shift in (-FRAME, 0, FRAME)}
        assert any(is_colour(seen, colour) for colour in near), (start, seconds, seen)


def test_there_are_still_pictures_of_the_video_and_of_each_clip(finished: Finished) -> None:
    (listed,) = (video for video in finished.frontend.get("/api/videos") if video["id"] == finished.video)
    assert (listed["has_audio"], listed["has_transcript"]) == (True, True)
    addresses = [f"/api/videos/{finished.video}/moments/{each['id']}/clip/thumbnail" for each in finished.originals]
    for address in [f"/api/videos/{finished.video}/thumbnail", *addresses]:
        with av.open(io.BytesIO(finished.frontend.load(address).content), "r") as container:
            (picture,) = container.decode(video=0)
        assert any(is_colour(middle_of(picture), topic.colour) for topic in finished.talk.topics)


def test_everything_is_in_its_lineage(finished: Finished) -> None:
    lineage = finished.get("lineage")
    originals = nodes_of(lineage)
    assert lineage["transcript"]["number_of_words"] > 250
    assert lineage["by_hand"] == []
    assert [moment["id"] for moment in originals] == [moment["id"] for moment in finished.originals]
    assert sum(len(moment["refinements"]) for moment in originals) == len(finished.refined)
    assert all(prompt["user_prompt"] for prompt in lineage["prompts"])
    (run,) = lineage["runs"]
    assert run["status"] == "completed"
    assert (run["total_moments_generated"], run["total_clips_created"]) == (4, 4)


def test_it_is_in_the_history_with_its_stages(finished: Finished) -> None:
    history = finished.frontend.get(f"/api/pipeline/{finished.video}/history")
    assert history["count"] == 1
    (run,) = history["runs"]
    assert run == finished.last


def test_every_job_of_the_video_counts_as_completed(finished: Finished) -> None:
    for job in ("audio-extraction", "transcription", "generation", "clip-extraction"):
        assert finished.get(f"{job}-status")["status"] == "completed"
    for moment in finished.refined:
        assert finished.get(f"refinement-status/{moment['parent_id']}")["status"] == "completed"


def test_every_model_is_reported_truthfully(finished: Finished) -> None:
    lineage = finished.get("lineage")
    assert lineage["transcript"]["transcription_service"] == "whisper-tiny.en"
    answered_by = finished.last["answered_by"]
    assert answered_by["transcript"] == "whisper-tiny.en"
    assert "minimax" not in answered_by["generation"].lower()
    assert {moment["model_name"] for moment in finished.originals} == {answered_by["generation"]}
    assert {moment["model_name"] for moment in finished.refined} <= {answered_by["refinement"]}
    assert finished.last["model"] == answered_by["generation"]
    for moment in finished.originals + finished.refined:
        assert moment["generation_config"]["model"] == moment["model_name"]
        assert "temperature" not in moment["generation_config"]
