"""No row is lost, no id is used twice, no moment is its own ancestor; where clips are and what they show."""

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.importer.moments import (
    IdentifiedMoment,
    LegacyClipWindow,
    MomentTimes,
    assign_moment_identifiers,
    choose_clip_window,
    find_remote_clip_url,
    list_word_times,
    merge_duplicate_moments,
    moment_times,
)
from app.importer.moments_file import LegacyMoment
from app.importer.report import EntryKind, FileReporter

_ID, _OTHER = "7621a017eec7482f", "b879a096f2f643a6"


def make_moments(*rows: dict[str, Any]) -> list[LegacyMoment]:
    defaults = {"legacy_parent": None, "start_time": 1.0, "end_time": 2.0, "title": "A", "is_refined": False}
    return [LegacyMoment(**(defaults | {"row": number} | row)) for number, row in enumerate(rows, start=1)]


def place(
    moments: Sequence[LegacyMoment],
    stored: dict[str, MomentTimes] | None = None,
    ids_of_other_videos: Sequence[str] = (),
    video: str = "talk",
) -> tuple[list[IdentifiedMoment], FileReporter]:
    reporter = FileReporter("moments/talk.json", video)
    return assign_moment_identifiers(
        merge_duplicate_moments(moments, reporter), video, stored or {}, ids_of_other_videos, reporter
    ), reporter


def identifiers(placed: Sequence[IdentifiedMoment]) -> list[str]:
    return [each.identifier for each in placed]


def parents(placed: Sequence[IdentifiedMoment]) -> list[int | None]:
    return [each.parent for each in placed]


def store(placed: Sequence[IdentifiedMoment]) -> dict[str, MomentTimes]:
    return {each.identifier: moment_times(each.moment) for each in placed}


def test_a_free_legacy_id_is_kept() -> None:
    placed, reporter = place(make_moments({"legacy_id": _ID}))
    assert identifiers(placed) == [_ID]
    assert reporter.entries == []


def test_a_row_without_an_id_gets_one_and_the_report_says_so() -> None:
    placed, reporter = place(make_moments({"legacy_id": None}))
    assert len(placed[0].identifier) == 16
    assert [(entry.kind, entry.reason, entry.row) for entry in reporter.entries] == [
        (EntryKind.RENAMED, "has no id", 1)
    ]
    assert reporter.entries[0].content == {"from": None, "to": placed[0].identifier}


def test_an_id_of_another_video_is_not_used_again() -> None:
    placed, reporter = place(make_moments({"legacy_id": _ID}), ids_of_other_videos=[_ID])
    assert placed[0].identifier != _ID
    assert reporter.entries[0].reason == "a moment of another video has its id"


def test_the_same_rows_in_two_videos_get_different_ids() -> None:
    moments = make_moments({"legacy_id": None})
    assert identifiers(place(moments, video="a")[0]) != identifiers(place(moments, video="b")[0])


def test_an_id_that_does_not_fit_the_column_is_replaced() -> None:
    placed, _ = place(make_moments({"legacy_id": "x" * 21}, {"legacy_id": "a/b"}))
    assert [len(identifier) for identifier in identifiers(placed)] == [16, 16]


def test_the_original_keeps_an_id_that_a_refined_row_has_too() -> None:
    placed, reporter = place(
        make_moments({"legacy_id": _ID, "is_refined": True, "legacy_parent": _ID}, {"legacy_id": _ID})
    )
    assert identifiers(placed)[1] == _ID
    assert parents(placed) == [1, None]
    assert [entry.reason for entry in reporter.entries] == ["another row of the file has its id"]


def test_the_first_of_several_refined_rows_keeps_their_id() -> None:
    placed, _ = place(make_moments(*({"legacy_id": _ID, "is_refined": True, "title": title} for title in "abc")))
    assert identifiers(placed).index(_ID) == 0
    assert len(set(identifiers(placed))) == 3


def test_times_that_differ_by_float_noise_are_two_rows_with_their_own_times() -> None:
    placed, _ = place(
        make_moments({"legacy_id": _ID, "end_time": 119.44}, {"legacy_id": _ID, "end_time": 119.44000000000001})
    )
    assert [each.moment.end_time for each in placed] == [119.44, 119.44000000000001]


def test_a_plain_duplicate_is_one_row_and_the_report_says_so() -> None:
    row = {"legacy_id": _ID, "is_refined": True, "legacy_parent": _OTHER}
    placed, reporter = place(make_moments({"legacy_id": _OTHER}, row, row))
    assert len(placed) == 2
    (merged,) = (entry for entry in reporter.entries if entry.kind is EntryKind.MERGED)
    assert (merged.reason, merged.row) == ("says the same as row 2", 3)


def test_rows_that_differ_in_one_thing_are_no_duplicates() -> None:
    row = {"legacy_id": _ID}
    others: list[dict[str, Any]] = [
        {"title": "B"},
        {"config_key": b"x"},
        {"legacy_parent": _OTHER},
        {"is_refined": True},
    ]
    placed, _ = place(make_moments(row, *(row | other for other in others)))
    assert len(placed) == 5


def test_a_duplicate_gives_its_clip_to_the_row_that_stays() -> None:
    placed, _ = place(make_moments({"legacy_id": _ID}, {"legacy_id": _ID, "clip_path": "clips/a.mp4"}))
    assert [each.moment.clip_path for each in placed] == ["clips/a.mp4"]


def test_a_refined_row_finds_its_parent_wherever_that_stands() -> None:
    placed, _ = place(
        make_moments({"legacy_id": _ID, "is_refined": True, "legacy_parent": _OTHER}, {"legacy_id": _OTHER})
    )
    assert parents(placed) == [1, None]


def test_a_row_refined_from_a_refined_row_keeps_it_as_parent() -> None:
    placed, _ = place(
        make_moments(
            {"legacy_id": "a"},
            {"legacy_id": "b", "is_refined": True, "legacy_parent": "a"},
            {"legacy_id": "c", "is_refined": True, "legacy_parent": "b"},
        )
    )
    assert parents(placed) == [None, 0, 1]


def test_a_parent_id_of_several_rows_means_the_original() -> None:
    placed, _ = place(
        make_moments(
            {"legacy_id": "a", "is_refined": True},
            {"legacy_id": "a"},
            {"legacy_id": "b", "is_refined": True, "legacy_parent": "a"},
        )
    )
    assert parents(placed)[2] == 1


def test_a_row_that_names_itself_and_nobody_else_has_no_parent() -> None:
    placed, reporter = place(make_moments({"legacy_id": _ID, "is_refined": True, "legacy_parent": _ID}))
    assert parents(placed) == [None]
    assert [(entry.kind, entry.content) for entry in reporter.entries] == [(EntryKind.CHANGED, {"parent_id": _ID})]


def test_a_parent_that_is_not_there_is_reported() -> None:
    placed, reporter = place(make_moments({"legacy_id": _ID, "legacy_parent": "gone"}))
    assert parents(placed) == [None]
    assert reporter.entries[0].reason == "no row has its parent_id"


def test_appending_rows_changes_no_id() -> None:
    rows: list[dict[str, Any]] = [
        {"legacy_id": _ID, "is_refined": True},
        {"legacy_id": _ID, "is_refined": True, "title": "B"},
        {"legacy_id": None},
    ]
    before, _ = place(make_moments(*rows))
    after, _ = place(make_moments(*rows, {"legacy_id": _ID}, {"legacy_id": None, "title": "C"}), store(before))
    assert identifiers(after)[:3] == identifiers(before)
    assert len(set(identifiers(after))) == 5


def test_a_row_that_was_renamed_keeps_its_new_id_when_the_old_one_is_free_again() -> None:
    moments = make_moments({"legacy_id": _ID})
    before, _ = place(moments, ids_of_other_videos=[_ID])
    after, _ = place(moments, store(before))
    assert identifiers(after) == identifiers(before)


def test_the_row_that_is_left_keeps_its_id_when_the_row_it_shared_it_with_is_gone() -> None:
    moments = make_moments({"legacy_id": _ID}, {"legacy_id": _ID, "is_refined": True})
    before, _ = place(moments)
    after, _ = place(moments[1:], store(before))
    assert identifiers(after) == identifiers(before)[1:]


_TIMES = st.sampled_from([(1.0, 2.0), (1.0, 2.0000000000000004), (3.0, 4.0)])
_IDS = st.sampled_from([None, "a", "b", "x" * 30])


@st.composite
def files(draw: st.DrawFn) -> list[LegacyMoment]:
    moments = []
    for number in count(1):
        if number > 12 or not draw(st.booleans() if number > 3 else st.just(True)):
            break
        start, end = draw(_TIMES)
        moments.append(
            LegacyMoment(
                row=number,
                legacy_id=draw(_IDS),
                legacy_parent=draw(_IDS),
                start_time=start,
                end_time=end,
                title=draw(st.sampled_from("AB")),
                is_refined=draw(st.booleans()),
            )
        )
    return moments


@given(files(), st.sets(st.sampled_from("ab")))
def test_every_row_is_stored_or_merged_once(moments: list[LegacyMoment], ids_of_other_videos: set[str]) -> None:
    placed, reporter = place(moments, ids_of_other_videos=sorted(ids_of_other_videos))
    merged = [entry.row or 0 for entry in reporter.entries if entry.kind is EntryKind.MERGED]
    assert sorted([*merged, *(each.moment.row for each in placed)]) == [moment.row for moment in moments]


@given(files(), st.sets(st.sampled_from("ab")))
def test_ids_are_unique_and_nobody_elses(moments: list[LegacyMoment], ids_of_other_videos: set[str]) -> None:
    placed, _ = place(moments, ids_of_other_videos=sorted(ids_of_other_videos))
    assert len(set(identifiers(placed))) == len(placed)
    assert not ids_of_other_videos & set(identifiers(placed))
    assert all(len(identifier) <= 20 for identifier in identifiers(placed))


@given(files())
def test_nobody_is_its_own_ancestor(moments: list[LegacyMoment]) -> None:
    placed, _ = place(moments)
    for each in placed:
        steps, parent = 0, each.parent
        while parent is not None:
            assert steps < len(placed)
            steps, parent = steps + 1, placed[parent].parent


@given(files())
def test_a_parent_has_the_id_that_its_child_names(moments: list[LegacyMoment]) -> None:
    placed, _ = place(moments)
    for each in placed:
        if each.parent is not None:
            assert placed[each.parent].moment.legacy_id == each.moment.legacy_parent


@given(files(), st.sets(st.sampled_from("ab")))
def test_placing_again_changes_nothing(moments: list[LegacyMoment], ids_of_other_videos: set[str]) -> None:
    before, _ = place(moments, ids_of_other_videos=sorted(ids_of_other_videos))
    assert place(moments, store(before), sorted(ids_of_other_videos))[0] == before
    assert identifiers(place(moments, store(before))[0]) == identifiers(before)


@given(files(), files())
def test_appending_any_rows_changes_no_id(moments: list[LegacyMoment], others: list[LegacyMoment]) -> None:
    before, _ = place(moments)
    after, _ = place([*moments, *others], store(before))
    assert identifiers(after)[: len(before)] == identifiers(before)


_PATH = "clips/a talk/a talk_7621a017eec7482f_clip.mp4"


def make_moment(start: float = 100.0, end: float = 160.0, **values: Any) -> LegacyMoment:
    return LegacyMoment(1, "7621a017eec7482f", None, start, end, "A", False, **values)


@pytest.mark.parametrize(
    "url",
    [
        "https://storage.googleapis.com/films/clips/a%20talk/a%20talk_7621a017eec7482f_clip.mp4?X-Goog-Signature=x",
        "https://storage.cloud.google.com/films/clips/a%20talk/a%20talk_7621a017eec7482f_clip.mp4",
        "https://films.storage.googleapis.com/clips/a%20talk/a%20talk_7621a017eec7482f_clip.mp4?X-Goog-Signature=x",
        f"gs://films/{_PATH}",
    ],
)
@pytest.mark.parametrize("path", [_PATH, None])
def test_the_bucket_is_in_the_signed_url(url: str, path: str | None) -> None:
    assert find_remote_clip_url(make_moment(clip_path=path, clip_url=url), None) == f"gs://films/{_PATH}"


def test_a_bucket_that_is_given_comes_before_the_one_in_the_url() -> None:
    moment = make_moment(clip_path=_PATH, clip_url="https://storage.googleapis.com/films/x.mp4")
    assert find_remote_clip_url(moment, "other") == f"gs://other/{_PATH}"


def test_a_url_of_another_host_is_taken_without_its_query() -> None:
    moment = make_moment(clip_path=_PATH, clip_url="https://cdn.example/clips/a.mp4?token=x")
    assert find_remote_clip_url(moment, None) == "https://cdn.example/clips/a.mp4"


@pytest.mark.parametrize("values", [{}, {"clip_path": _PATH}, {"clip_path": "a\0b", "clip_url": "gs://films/x"}])
def test_a_clip_without_a_bucket_has_no_address(values: dict[str, Any]) -> None:
    assert find_remote_clip_url(make_moment(**values), None) is None


def test_a_url_that_is_none_is_no_harm() -> None:
    assert find_remote_clip_url(make_moment(clip_url="https://[broken"), None) == "https://[broken"


def test_the_window_of_a_refinement_is_the_clips() -> None:
    assert choose_clip_window(make_moment(), [(69.9, 190.2), (1.0, 2.0)], [], None) == LegacyClipWindow(
        69.9, 190.2, True
    )


def test_a_window_ends_with_the_video() -> None:
    assert choose_clip_window(make_moment(), [(69.9, 190.2)], [], 180.0) == LegacyClipWindow(69.9, 180.0, True)
    assert choose_clip_window(make_moment(), [], [], 180.0) == LegacyClipWindow(70.0, 180.0)


def test_without_words_there_are_thirty_seconds_on_both_sides() -> None:
    assert choose_clip_window(make_moment(), [], [], None) == LegacyClipWindow(70.0, 190.0)
    assert choose_clip_window(make_moment(10.0, 20.0), [], [], None) == LegacyClipWindow(0.0, 50.0)


def test_words_draw_the_window_to_their_borders() -> None:
    words = [(68.0, 69.0), (70.4, 71.0), (150.0, 189.5), (189.6, 191.5), (200.0, 201.0)]
    assert choose_clip_window(make_moment(), [], words, None) == LegacyClipWindow(70.4, 191.5)


def test_where_no_word_is_far_enough_the_first_and_the_last_count() -> None:
    assert choose_clip_window(make_moment(), [], [(80.0, 81.0), (170.0, 171.0)], None) == LegacyClipWindow(80.0, 171.0)
    assert choose_clip_window(make_moment(), [], [(50.0, 51.0)], None) == LegacyClipWindow(50.0, 51.0)


def test_a_window_that_would_be_inverted_is_plain() -> None:
    assert choose_clip_window(make_moment(), [], [(5.0, 6.0), (200.0, 10.0)], None) == LegacyClipWindow(70.0, 190.0)


def test_words_without_times_are_passed_over() -> None:
    assert list_word_times([{"word": "a"}, {"start": 1, "end": None}, {"start": 1, "end": 2.5}]) == [(1.0, 2.5)]


_SECONDS = st.floats(-1e6, 1e6, allow_nan=False)


@given(
    st.tuples(_SECONDS, _SECONDS).filter(lambda times: times[0] < times[1]),
    st.lists(st.tuples(_SECONDS, _SECONDS)),
    st.one_of(st.none(), st.floats(0, 1e6)),
)
def test_a_window_always_ends_after_it_starts(
    times: tuple[float, float], words: list[tuple[float, float]], duration: float | None
) -> None:
    window = choose_clip_window(make_moment(*times), [], words, duration)
    assert window.start < window.end
