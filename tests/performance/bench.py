"""`make bench`: this project's server beside the same one on an ORM, and beside what the driver alone can do."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType

from app.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.performance.cases import CASES, Case
from tests.performance.databases import SEED, SETTINGS, Databases
from tests.performance.dataset import record_library, write_legacy_folder
from tests.performance.equality import compare_answers
from tests.performance.first_stage import AIM_MS, IDLE, LISTEN, TASKIQ, Delays, measure_first_stages
from tests.performance.measure import Figures, Pace, measure_case, measure_imports
from tests.performance.servers import ORM, OURS, PEERS_PYTHON, RAW, STACKS, Server, free_port
from tests.performance.streaming import NGINX, PYTHON, measure_streams
from tests.performance.text import Speech

_FULL = Pace(rounds=5, seconds=2.0, warm_up_seconds=0.5)
_QUICK = Pace(rounds=1, seconds=1.0, warm_up_seconds=0.5)
_HEADER = ("case", "server", "per second", "p50 ms", "p99 ms", "statements", "x ORM", "aim", "x raw")
_WIDTHS = (32, 13, 11, 9, 9, 11, 8, 6, 7)


def main() -> None:
    options = _parse_arguments()
    if not PEERS_PYTHON.exists():
        raise SystemExit("The peers are not installed: run `make bench`, or see tests/performance/requirements.txt")
    signal.signal(signal.SIGTERM, _leave)
    with _environment(options.quick) as (databases, variables, folder):
        _print_line(_HEADER)
        _print_line(["-" * width for width in _WIDTHS])
        pace = _QUICK if options.quick else _FULL
        for database, cases in groupby(options.cases, key=lambda case: case.database):
            databases.fill(database)
            _measure_database(database, list(cases), databases, variables, pace)
        if options.imports:
            write_legacy_folder(folder / "static", record_library(Speech(SEED), databases.videos))
            figures = measure_imports(folder / "static", databases, min(pace.rounds, 2))
            _print_figures("import, rows", None, figures)
        if options.streams:
            for name, figures in measure_streams(folder, databases, variables, pace):
                _print_stream(name, figures)
        if options.first_stages:
            for name, delays in measure_first_stages(databases, variables, 30 if options.quick else 100):
                _print_delays(name, delays)


def _parse_arguments() -> argparse.Namespace:
    keys = [*dict.fromkeys(case.key for case in CASES), "import", "stream", "stage"]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data and one short round")
    parser.add_argument("--cases", default=",".join(keys), help=f"some of {','.join(keys)}")
    options = parser.parse_args()
    chosen = options.cases.split(",")
    if unknown := set(chosen) - set(keys):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    options.cases = [case for case in CASES if case.key in chosen]
    options.imports = "import" in chosen
    options.streams = "stream" in chosen
    options.first_stages = "stage" in chosen
    return options


@contextmanager
def _environment(quick: bool) -> Iterator[tuple[Databases, Mapping[str, str], Path]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="videomoments-bench-")))
        server = EmbeddedPostgres(folder / "postgres", free_port(), SETTINGS, superuser=True)
        postgres = stack.enter_context(server)
        valkey = stack.enter_context(EmbeddedValkey(folder / "valkey"))
        data = folder / "data"
        variables = {"REDIS_URL": valkey.url, "LOG_LEVEL": "warning", "DATA_DIR": str(data)}
        yield Databases(postgres, data / "media", *((100, 2000) if quick else (1000, 20_000))), variables, folder


def _measure_database(
    database: str, cases: Sequence[Case], databases: Databases, variables: Mapping[str, str], pace: Pace
) -> None:
    environment = {**variables, "DATABASE_URL": databases.url(database)}
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(each, environment)) for each in STACKS]
        compare_answers(database, databases, servers)
        for case in cases:
            _print_figures(case.name, case.aim, measure_case(case, databases, servers, pace))


def _print_figures(name: str, aim: float | None, figures: Mapping[str, Figures]) -> None:
    ours = figures[OURS.name]
    for stack, of_one in figures.items():
        is_ours = stack == OURS.name
        _print_line(
            (
                name if is_ours else "",
                stack,
                f"{of_one.per_second:,.0f}",
                _number(of_one.p50),
                _number(of_one.p99),
                _number(of_one.statements, 1),
                _ratio(ours, figures.get(ORM.name)) if is_ours else "",
                f"{aim:g}" if is_ours and aim else "",
                _ratio(ours, figures.get(RAW.name)) if is_ours else "",
            )
        )
    if any(of_one.client_busy > 0.9 for of_one in figures.values()):
        sys.stdout.write("  the load generator had no processor left: the figures above are its own\n")


def _print_stream(name: str, figures: Mapping[str, Figures]) -> None:
    """Megabytes per second; the ratios are to nginx and to Python's file server."""
    ours = figures[OURS.name]
    for stack, of_one in figures.items():
        ratios = "".join(f"  {_ratio(ours, figures.get(peer))} x {peer}" for peer in (NGINX, PYTHON) if peer in figures)
        what = f"stream, {name}: MB/s" if of_one is ours else ""
        numbers = f"{of_one.per_second:,.0f}".rjust(_WIDTHS[2]), _number(of_one.p50).rjust(_WIDTHS[3])
        sys.stdout.write(f"| {what.ljust(_WIDTHS[0])} | {stack.ljust(_WIDTHS[1])} | {' | '.join(numbers)} |")
        sys.stdout.write(f"{ratios if of_one is ours else ''}\n")
    sys.stdout.flush()


def _print_delays(name: str, delays: Mapping[str, Delays]) -> None:
    """Milliseconds; the ratios are to the medians of the peers, and less is better."""
    ours = delays[OURS.name]
    for queue, of_one in delays.items():
        numbers = f"p50 {of_one.p50:.1f} ms, p95 {of_one.p95:.1f}, p99 {of_one.p99:.1f}"
        ratios = "".join(f"  {ours.p50 / delays[peer].p50:.1f} x {peer}" for peer in (LISTEN, TASKIQ))
        aim = f"  aim: p50 < {AIM_MS:g}" if name == IDLE else ""
        notes = f"{ratios}{aim}" if of_one is ours else ""
        what = name if of_one is ours else ""
        sys.stdout.write(f"| {what.ljust(_WIDTHS[0])} | {queue.ljust(_WIDTHS[1])} | {numbers} |{notes}\n")
    sys.stdout.flush()


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _ratio(ours: Figures, peer: Figures | None) -> str:
    return "" if peer is None else f"{ours.per_second / peer.per_second:.2f}"


def _print_line(cells: Sequence[str]) -> None:
    first, second, *numbers = cells
    texts = [first.ljust(_WIDTHS[0]), second.ljust(_WIDTHS[1])]
    texts += [number.rjust(width) for number, width in zip(numbers, _WIDTHS[2:], strict=True)]
    sys.stdout.write("| " + " | ".join(texts) + " |\n")
    sys.stdout.flush()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
