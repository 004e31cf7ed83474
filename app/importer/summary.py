"""A report for people: rows per table, and the first lines of each kind of entry."""

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from app.core.masking import mask_secrets
from app.importer.report import Kind, Report

_LINES_PER_KIND = 10
_LONGEST_CONTENT = 120

_MEANINGS = {
    Kind.FAILED: "videos failed: nothing of them was written",
    Kind.REFUSED: "refused: cannot enter the tables",
    Kind.RENAMED: "renamed: stored under another id",
    Kind.MERGED: "merged: say the same as another row",
    Kind.CHANGED: "changed: stored with another value",
    Kind.DROPPED: "dropped: values without a column",
    Kind.MISSING: "videos without a file",
    Kind.ORPHAN: "files that belong to nothing",
    Kind.KEPT: "kept: rows that the files do not account for",
}


def print_summary(report: Report, console: Console) -> None:
    """Print what was imported and what was not. The whole of it is in the report's JSON."""
    _print_tables(report, console)
    for line in _describe_files(report):
        console.print(line, markup=False)
    lines = _first_lines(report)
    for kind in Kind:
        if count := report.counts[kind]:
            console.print()
            console.print(f"{count:,} {_MEANINGS[kind]}", markup=False)
            for line in lines[kind]:
                console.print(f"  {mask_secrets(line)}", markup=False)
            if count > len(lines[kind]):
                console.print(f"  … and {count - len(lines[kind]):,} more: --report FILE writes them all", markup=False)


def _print_tables(report: Report, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("table")
    for title in ("new", "changed", "unchanged"):
        table.add_column(title, justify="right")
    for name, count in report.tables.items():
        table.add_row(name, f"{count.new:,}", f"{count.changed:,}", f"{count.unchanged:,}")
    console.print(table)
    speed = f"{report.rows:,} rows of {report.videos:,} videos in {report.seconds:.1f} s"
    mode = "Dry run, nothing was written: " if report.dry_run else ""
    console.print()
    console.print(f"{mode}{speed}, {report.rows_per_second:,.0f} rows/s", markup=False)


def _describe_files(report: Report) -> Iterator[str]:
    if report.copy:
        copied, verb = report.copied, "to be copied" if report.dry_run else "copied"
        new, old = _files(copied.new_files, copied.new_bytes), _files(copied.old_files, copied.old_bytes)
        yield f"{new} {verb}, {old} already there"
        if report.elsewhere:
            yield f"{report.elsewhere:,} rows name files in buckets or on other hosts, which are not copied"
    if report.in_place:
        yield f"{report.in_place:,} files are served from where they lie; {_explain_folders(report)}"


def _files(count: int, size: int) -> str:
    return f"{count:,} files ({decimal(size)})"


def _explain_folders(report: Report) -> str:
    setting = f"LIBRARY_DIRS={','.join(map(str, report.folders))}"
    if report.note_problem:
        return f"the server needs {setting}, because this failed: {report.note_problem}"
    return f"a server with another DATA_DIR needs {setting}"


def _first_lines(report: Report) -> dict[Kind, list[str]]:
    lines: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for entry in report.entries():
        if len(lines[Kind(entry["kind"])]) < _LINES_PER_KIND:
            lines[Kind(entry["kind"])].append(_line(entry))
    return lines


def _line(entry: dict[str, Any]) -> str:
    place = entry.get("file") or entry.get("video") or ""
    row = f" row {entry['row']}" if "row" in entry else ""
    content = json.dumps(entry["content"], ensure_ascii=False) if "content" in entry else ""
    if len(content) > _LONGEST_CONTENT:
        content = content[:_LONGEST_CONTENT] + "…"
    # A file's name may hold half a surrogate pair, which no terminal can print.
    return f"{place}{row}: {entry['reason']} {content}".rstrip().encode(errors="backslashreplace").decode()
