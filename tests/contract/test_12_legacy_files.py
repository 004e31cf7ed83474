"""Libraries of the previous backend, with what is irregular in their files, as the frontend sees them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.browser import check_moment, group_cards
from tests.contract.conftest import browsing
from tests.importer.importer import Importer
from tests.importer.legacy import (
    LegacyLibrary,
    legacy_id,
    make_config,
    make_refined,
    make_refinement_config,
    make_registry_entry,
    make_row,
    make_run,
)
from tests.media.movies import make_movie

pytestmark = pytest.mark.usefixtures("redis")

SIGNED = "https://storage.googleapis.com/films/clips/talk/c.mp4?X-Goog-Signature=1"


async def look(importer: Importer, legacy: LegacyLibrary, *paths: str) -> list[Any]:
    """Import the library and return what each path answers."""
    report = await importer.run(legacy)
    assert report["complete"] is True
    async with browsing(importer.settings) as browser:
        return [await browser.get_json(path) for path in paths]


async def list_moments(importer: Importer, legacy: LegacyLibrary, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Import one video with these rows and return its moments, each of which can be shown."""
    legacy.add_moments("talk", *rows)
    moments: list[dict[str, Any]]
    (moments,) = await look(importer, legacy, "/api/videos/talk/moments")
    for moment in moments:
        check_moment(moment)
    ids = [moment["id"] for moment in moments]
    assert len(set(ids)) == len(ids)
    assert all(moment["parent_id"] in {None, *ids} - {moment["id"]} for moment in moments)
    return moments


# --------------------------------------------------------------------------------------------------- moments ----


async def test_a_row_is_shown_as_the_file_has_it(importer: Importer, legacy: LegacyLibrary) -> None:
    config = make_config(temperature=0.7, min_moment_length=30, max_moment_length=90)
    row = make_row(1.0, 35.5, title="One", generation_config=config)
    (moment,) = await list_moments(importer, legacy, row)
    assert moment == row | {
        "id": "7621a017eec7482f",
        "generation_config": {name: value for name, value in config.items() if name != "complete_prompt"},
    }


@pytest.mark.parametrize("left_out", [("id", "is_refined", "parent_id"), ("model_name", "generation_config")])
async def test_rows_that_lack_fields_get_an_id_and_are_originals(
    importer: Importer, legacy: LegacyLibrary, left_out: tuple[str, ...]
) -> None:
    lacking = dict.fromkeys(left_out, ...)
    moments = await list_moments(importer, legacy, make_row(1, 20, **lacking), make_row(30, 50, **lacking))
    assert [(moment["is_refined"], moment["parent_id"]) for moment in moments] == [(False, None)] * 2
    assert list(group_cards(moments).values()) == [[], []]


async def test_rows_of_only_times_and_a_title_are_moments_added_by_hand(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    (moment,) = await list_moments(importer, legacy, {"start_time": 1.0, "end_time": 20.0, "title": "One"})
    assert (moment["model_name"], moment["generation_config"]) == (None, None)


async def test_plain_duplicates_are_shown_once(importer: Importer, legacy: LegacyLibrary) -> None:
    original = make_row(10.0, 40.0)
    refined = make_refined(original, 12.0, 38.0)
    moments = await list_moments(importer, legacy, original, refined, refined, refined)
    assert group_cards(moments) == {original["id"]: [refined["id"]]}


async def test_rows_that_share_an_id_are_all_shown_under_their_own_parents(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    first, second = make_row(100.0, 140.0), make_row(200.0, 240.0)
    times = [(115.0, 119.44), (115.0, 119.44000000000001), (115.0, 119.44)]
    shared = legacy_id(*times[0])
    refined = [
        make_refined(parent, start, end, title=title)
        for parent, (start, end), title in zip((first, first, second), times, "abc", strict=True)
    ]
    assert {row["id"] for row in refined} == {shared}
    moments = await list_moments(importer, legacy, first, second, *refined)
    assert [(row["start_time"], row["end_time"], row["title"]) for row in moments[2:]] == [
        (*each, title) for each, title in zip(times, "abc", strict=True)
    ]
    ids = [moment["id"] for moment in moments[2:]]
    assert shared in ids
    assert group_cards(moments) == {first["id"]: ids[:2], second["id"]: ids[2:]}


async def test_a_refined_row_with_the_id_of_its_original_is_a_tab_of_it(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    original = make_row(10.0, 40.0)
    same = make_refined(original, 10.0, 40.0)
    assert same["id"] == same["parent_id"] == original["id"]
    other = make_refined(original, 12.0, 38.0)
    moments = await list_moments(importer, legacy, same, other, original)
    assert group_cards(moments) == {original["id"]: [moments[0]["id"], other["id"]]}


async def test_a_row_that_is_its_own_parent_is_there_without_one(importer: Importer, legacy: LegacyLibrary) -> None:
    lonely = make_refined(make_row(10.0, 40.0), 10.0, 40.0)
    (moment,) = await list_moments(importer, legacy, lonely)
    assert (moment["id"], moment["is_refined"], moment["parent_id"]) == (lonely["id"], True, None)


async def test_what_was_refined_twice_is_shown_under_its_original(importer: Importer, legacy: LegacyLibrary) -> None:
    original = make_row(10.0, 40.0)
    once = make_refined(original, 12.0, 38.0)
    twice = make_refined(once, 13.0, 37.0)
    moments = await list_moments(importer, legacy, original, once, twice)
    assert [moment["parent_id"] for moment in moments] == [None, original["id"], original["id"]]


async def test_seven_refinements_are_seven_tabs_in_their_order(importer: Importer, legacy: LegacyLibrary) -> None:
    original = make_row(10.0, 40.0)
    refined = [make_refined(original, 12.0 + number, 38.0) for number in (3, 1, 6, 0, 5, 2, 4)]
    moments = await list_moments(importer, legacy, original, *refined)
    assert group_cards(moments) == {original["id"]: [row["id"] for row in refined]}


async def test_moments_are_in_the_order_of_the_file(importer: Importer, legacy: LegacyLibrary) -> None:
    starts = [50.0, 400.0, 10.0, 1227.6000000000001, 20.0]
    moments = await list_moments(importer, legacy, *(make_row(start, start + 9) for start in starts))
    assert [moment["start_time"] for moment in moments] == starts


async def test_moments_that_are_too_long_or_too_short_for_a_new_one_are_shown(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    original = make_row(0.0, 599.5)
    moments = await list_moments(importer, legacy, original, make_refined(original, 5.0, 5.5))
    assert [moment["end_time"] - moment["start_time"] for moment in moments] == [599.5, 0.5]


@pytest.mark.parametrize("title", ["“Why” – an Answer", "Twenty\N{NON-BREAKING HYPHEN}four Hours", "It’s 100 % free…"])
async def test_titles_are_shown_letter_by_letter(importer: Importer, legacy: LegacyLibrary, title: str) -> None:
    (moment,) = await list_moments(importer, legacy, make_row(title=title))
    assert moment["title"] == title


async def test_equal_ids_in_two_videos_are_two_moments(importer: Importer, legacy: LegacyLibrary) -> None:
    original = make_row(10.0, 40.0)
    for video in ("copy", "talk"):
        legacy.add_moments(video, original, make_refined(original, 12.0, 38.0))
    lists = await look(importer, legacy, "/api/videos/copy/moments", "/api/videos/talk/moments")
    assert len({moment["id"] for moments in lists for moment in moments}) == 4
    for moments in lists:
        assert group_cards(moments) == {moments[0]["id"]: [moments[1]["id"]]}
        assert [moment["start_time"] for moment in moments] == [10.0, 12.0]


@pytest.mark.parametrize(
    "config",
    [
        {"user_prompt": None},
        {"temperature": None},
        {"padding": ..., "clip_start": ..., "clip_end": ..., "left_padding": 30.0, "right_padding": 30.0},
        {"timestamp_offset": ..., "video_included": ...},
        {"video_included": True, "video_clip_url": SIGNED},
    ],
    ids=range(5),
)
async def test_a_config_has_no_null_in_it(importer: Importer, legacy: LegacyLibrary, config: dict[str, Any]) -> None:
    original = make_row()
    changed = {name: value for name, value in make_refinement_config(original, **config).items() if value is not ...}
    moments = await list_moments(importer, legacy, original, make_refined(original, 12, 38, generation_config=changed))
    shown = moments[1]["generation_config"]
    assert (shown["model"], shown["operation_type"]) == ("large_fp8", "refinement")
    assert ("user_prompt" in shown) == ("user_prompt" not in config)
    assert ("temperature" in shown) == ("temperature" not in config)


@pytest.mark.parametrize(
    "older",
    [
        {"prompt": make_config()["complete_prompt"]},
        {"gcs_clip_path": "clips/talk/talk_7621a017eec7482f_clip.mp4", "clip_signed_url": SIGNED},
        {"remote_clip_path": "/srv/clips/talk_7621a017eec7482f_clip.mp4"},
    ],
    ids=lambda older: ", ".join(older),
)
async def test_fields_of_older_times_are_not_shown(
    importer: Importer, legacy: LegacyLibrary, older: dict[str, Any]
) -> None:
    (moment,) = await list_moments(importer, legacy, make_row(**older))
    assert moment.keys() == make_row().keys()


async def test_a_moment_can_be_added_beside_those_of_a_file(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_moments("talk", make_row(10.0, 40.0, title="A question"))
    await importer.run(legacy)
    path = "/api/videos/talk/moments"
    async with browsing(importer.settings) as browser:
        over = await browser.send("POST", path, '{"start_time":35,"end_time":45,"title":"x"}')
        assert over.json() == {"detail": "Moment overlaps with existing moment 'A question' (10.0s - 40.0s)"}
        beside = await browser.send("POST", path, '{"start_time":40,"end_time":45,"title":"x"}')
        assert await browser.get_json(path) == [*(await browser.get_json(path))[:1], beside.json()]


# ----------------------------------------------------------------------------------------------- transcripts ----


def cut_words(*times: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"word": f"w{number}", "start": start, "end": end} for number, (start, end) in enumerate(times)]


def cut_segments(*times: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"text": f"it goes {number}", "start": start, "end": end, "word_count": 3}
        for number, (start, end) in enumerate(times)
    ]


@pytest.mark.parametrize(
    "times",
    [
        [(588.0, 592.0), (583.6, 590.4), (592.0, 593.0)],
        [(0.0, 4.0), (3.92, 6.0)],
        [(1.2000000000000002, 1.2000000000000002), (1.28, 1.52)],
        [],
    ],
    ids=["backwards", "overlapping", "without length", "empty"],
)
async def test_a_transcript_is_shown_as_the_file_has_it_and_its_captions_run_forwards(
    importer: Importer, legacy: LegacyLibrary, times: list[tuple[float, float]]
) -> None:
    document = {"transcription": "w0 w1 and more", "processing_time": 639.35}
    lists = {"word_timestamps": cut_words(*times), "segment_timestamps": cut_segments(*times)}
    legacy.add_transcript("talk", **document, **lists)
    await importer.run(legacy)
    async with browsing(importer.settings) as browser:
        shown = await browser.get_json("/api/videos/talk/transcript")
        captions = (await browser.get("/api/videos/talk/transcript.vtt")).text
    counts = {"total_segments": len(times), "total_words": len(times), "duration": times[-1][1] if times else None}
    assert shown == document | lists | {"metadata": counts}
    cues = [line.split(" --> ") for line in captions.splitlines() if "-->" in line]
    assert len(cues) == len(times)
    assert [time for cue in cues for time in cue] == sorted(time for cue in cues for time in cue)
    assert all(start < end for start, end in cues)


async def test_a_video_of_which_there_is_only_a_transcript_has_captions(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_transcript("BillGates")
    videos, moments, transcript = await look(
        importer, legacy, *("/api/videos", "/api/videos/BillGates/moments", "/api/videos/BillGates/transcript")
    )
    assert [(card["id"], card["has_audio"], card["has_transcript"]) for card in videos] == [("BillGates", None, True)]
    assert moments == []
    assert len(transcript["segment_timestamps"]) == 2


# ------------------------------------------------------------------------------------ videos and their files ----


async def test_every_video_of_a_library_has_a_card(importer: Importer, legacy: LegacyLibrary) -> None:
    legacy.add_video("talk.mp4")
    legacy.add_video("Loud.MOV")
    legacy.add("audios/talk.wav", b"RIFF")
    legacy.add_transcript("talk")
    legacy.add_moments("Kevin Hart How_To", make_row())
    legacy.add("moments/Kevin Hart How_To.lock", b"")
    legacy.add("moments/Kevin Hart How_To.tmp", b"[")
    legacy.add_thumbnail("Kevin Hart How_To")
    legacy.add_thumbnail("The-Jump")  # a picture of nothing
    legacy.add_registry(make_registry_entry("far", "gs://films/videos/far.mp4", file_size=5_000_000_000))
    (videos,) = await look(importer, legacy, "/api/videos")
    shown = ("id", "filename", "title", "thumbnail_url", "has_audio", "has_transcript")
    assert [tuple(card[name] for name in shown) for card in videos] == [
        (
            *("Kevin Hart How_To", "Kevin Hart How_To.mp4", "Kevin Hart How To"),
            *("/static/thumbnails/Kevin%20Hart%20How_To.jpg", None, False),
        ),
        ("Loud", "Loud.MOV", "Loud", None, False, False),
        ("far", "far.mp4", "Far", None, False, False),
        ("talk", "talk.mp4", "Talk", None, True, True),
    ]


async def test_video_files_pictures_and_clips_are_served_from_where_they_lie(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    video_file = legacy.add_video("Kevin Hart.mp4")
    picture = legacy.add_thumbnail("Kevin Hart")
    row = make_row(0.1, 0.9)
    legacy.add_moments("Kevin Hart", row)
    clip = make_movie(legacy.root / "moment_clips" / f"Kevin Hart_{row['id']}_clip.mp4")
    await importer.run(legacy)
    async with browsing(importer.settings) as browser:
        (card,) = await browser.get_json("/api/videos")
        for path, file in (
            ("/api/videos/Kevin Hart/stream", video_file),
            ("/api/videos/Kevin Hart/thumbnail", picture),
            (card["thumbnail_url"], picture),
            (f"/moment_clips/Kevin Hart_{row['id']}_clip.mp4", clip),
        ):
            answer = await browser.load(path)
            assert (answer.status_code, answer.content) == (200, await asyncio.to_thread(file.read_bytes)), path
        found = await browser.get_json(f"/api/videos/Kevin Hart/moments/{row['id']}/video-availability")
    assert found["available"] is True


async def test_a_video_file_that_nobody_kept_plays_nothing_and_breaks_nothing(
    importer: Importer, legacy: LegacyLibrary
) -> None:
    legacy.add_transcript("talk")
    legacy.add_moments("talk", make_row(gcs_clip_path="clips/talk/talk_7621a017eec7482f_clip.mp4"))
    await importer.run(legacy)
    async with browsing(importer.settings) as browser:
        for path in ("stream", "thumbnail"):
            assert (await browser.get(f"/api/videos/talk/{path}")).status_code == 404
        (moment,) = await browser.get_json("/api/videos/talk/moments")
        found = await browser.get_json(f"/api/videos/talk/moments/{moment['id']}/video-availability")
    assert found["available"] is False


# ------------------------------------------------------------------------------------------------------ runs ----


def named(run: dict[str, Any]) -> Any:
    return run["request_id"]


@pytest.mark.parametrize(
    ("values", "status", "check"),
    [
        ({}, "completed", lambda run: run["total_duration_seconds"] == 60.0),
        ({"request_id": "", "video_id": "", "started_at": 0}, "completed", named),
        ({"total_duration_seconds": None}, "completed", lambda run: run["total_duration_seconds"] == 60.0),
        (
            {"status": "failed", "error_stage": "audio", "error_message": "No sound"},
            "failed",
            lambda run: (run["error_stage"], run["stages"]["audio"]["error"]) == ("audio", "No sound"),
        ),
        ({"status": "failed", "error_stage": None}, "failed", lambda run: run["stages"] == {}),
    ],
    ids=["whole", "without its head", "without a duration", "failed", "failed for no reason"],
)
async def test_a_run_of_the_previous_backend_is_shown_as_the_latest(
    importer: Importer,
    legacy: LegacyLibrary,
    values: dict[str, Any],
    status: str,
    check: Callable[[dict[str, Any]], object],
) -> None:
    legacy.add_transcript("talk")
    legacy.add("pipeline_history/talk.json", [make_run(**values)])
    run, history = await look(importer, legacy, "/api/pipeline/talk/status", "/api/pipeline/talk/history")
    assert (run["status"], run["video_id"]) == (status, "talk")
    assert check(run)
    assert run["started_at"] > 1_700_000_000
    assert history == {"video_id": "talk", "runs": [run], "count": 1}


async def test_the_browser_finds_what_a_second_import_finds(importer: Importer, legacy: LegacyLibrary) -> None:
    original = make_row(10.0, 40.0)
    legacy.add_moments(
        "talk", original, make_refined(original, 10.0, 40.0), {"start_time": 1, "end_time": 2, "title": "B"}
    )
    before = await look(importer, legacy, "/api/videos", "/api/videos/talk/moments")
    assert await look(importer, legacy, "/api/videos", "/api/videos/talk/moments") == before
