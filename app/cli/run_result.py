"""What a run has found, as a table on a terminal and as lines elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.core.text import escape_controls
from app.models import Clip, Moment
from app.storage.file_system import path_from_url


class _Row(NamedTuple):
    start: str
    end: str
    title: str
    clip: str


def print_moments(moments: Sequence[Moment], clips: Sequence[Clip], console: Console) -> None:
    """Print each original in the order of time, with what was refined from it below, and where its clip lies."""
    rows = list(_rows(moments, {clip.moment_id: clip for clip in clips}))
    if not rows:
        console.print("No moments were found", markup=False)
    elif console.is_terminal:
        console.print(_table(rows))
    else:
        for row in rows:
            console.file.write("\t".join(map(escape_controls, row)) + "\n")  # printing would make spaces of tabs


def _rows(moments: Sequence[Moment], clips: Mapping[int, Clip]) -> Iterator[_Row]:
    by_time = sorted(moments, key=lambda moment: (moment.start_time, moment.id))
    originals = [moment for moment in by_time if not moment.is_refined]
    for original in originals:
        yield _row(original, original.title, clips)
        for moment in by_time:
            if moment.parent_id == original.id:
                yield _row(moment, "refined", clips)


def _row(moment: Moment, title: str, clips: Mapping[int, Clip]) -> _Row:
    clip = clips.get(moment.id)
    return _Row(
        _clock(moment.start_time), _clock(moment.end_time), title, _file_location(clip.cloud_url) if clip else ""
    )


def _table(rows: Sequence[_Row]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("start", justify="right")
    table.add_column("end", justify="right")
    table.add_column("moment")
    table.add_column("clip", overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape_controls(cell)) for cell in row))  # a title may look like markup
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes // 60:.0f}:{minutes % 60:02.0f}:{rest:04.1f}"


def _file_location(url: str) -> str:
    """Return a file's path, relative to the working folder where it lies in it, or the address of anything else."""
    if not url.startswith("file:"):
        return url
    path = path_from_url(url)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
