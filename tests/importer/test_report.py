"""A report holds everything, also what JSON cannot, and is written as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.importer.report import EntryKind, ImportReport, ReportEntry


@pytest.fixture
def report(tmp_path: Path) -> Iterator[ImportReport]:
    with ImportReport(tmp_path, dry_run=False) as report:
        yield report


def test_entries_are_ordered_by_video_whichever_was_done_first(report: ImportReport) -> None:
    for video in ("b", "a", None):
        report.add_entries(
            [
                ReportEntry(EntryKind.DROPPED, "first", video=video),
                ReportEntry(EntryKind.DROPPED, "second", video=video),
            ]
        )
    assert [(entry.get("video"), entry["reason"]) for entry in report.read_entries()] == [
        (video, reason) for video in (None, "a", "b") for reason in ("first", "second")
    ]


def test_what_json_cannot_hold_is_in_the_report_all_the_same(report: ImportReport, tmp_path: Path) -> None:
    report.add_entries(
        [
            ReportEntry(
                EntryKind.REFUSED,
                "bad",
                content={"end": float("nan"), "title": "a\ud800b\0\x9b31m\u202e", "deep": [float("-inf")]},
            )
        ]
    )
    report.write(tmp_path / "report.json")
    written = (tmp_path / "report.json").read_text()
    assert written.replace("\n", "").isprintable()  # on a terminal, too
    (entry,) = json.loads(written)["entries"]
    assert entry["content"] == {"end": "nan", "title": "a\ud800b\0\x9b31m\u202e", "deep": ["-inf"]}


def test_what_is_nested_too_deeply_to_be_written_is_said_to_be(report: ImportReport) -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    report.add_entries([ReportEntry(EntryKind.REFUSED, "bad", row=3, content=deep)])
    assert list(report.read_entries()) == [
        {"kind": "refused", "reason": "bad", "row": 3, "content": "it is nested too deeply to be shown"}
    ]


def test_the_written_report_is_the_report(report: ImportReport, tmp_path: Path) -> None:
    report.add_entries(
        [
            ReportEntry(EntryKind.KEPT, "ein Grund", row=3),
            ReportEntry(EntryKind.REFUSED, "no", file="a.json", content=None),
        ]
    )
    report.row_counts.update({("moments", "new"): 2, ("moments", "changed"): 1})
    report.write(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written == report.summarize_without_entries() | {"entries": list(report.read_entries())}
    assert (written["rows"], written["counts"], written["complete"]) == (3, {"refused": 1, "kept": 1}, False)


def test_a_report_that_cannot_be_written_leaves_the_old_one(report: ImportReport, tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        report.write(tmp_path / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize("kind", EntryKind)
def test_only_losses_make_an_import_incomplete(report: ImportReport, kind: EntryKind) -> None:
    report.add_entries([ReportEntry(kind, "a reason")])
    assert report.is_complete is (kind not in (EntryKind.FAILED, EntryKind.REFUSED))
