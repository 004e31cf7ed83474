"""Measures one case on all servers in turn, so that what else the machine does reaches each of them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from tests.performance.cases import Case, Plan
from tests.performance.client import Load, Result
from tests.performance.databases import Databases
from tests.performance.servers import ORM, OURS, PEERS_PYTHON, ROOT, Server

_COUNTED = 20
_IMPORTED = "imported"


@dataclass(frozen=True)
class Figures:
    """One line of the table; times are milliseconds."""

    per_second: float
    p50: float | None = None
    p99: float | None = None
    statements: float | None = None
    client_busy: float = 0.0


@dataclass(frozen=True)
class Pace:
    """How long and how often."""

    rounds: int
    seconds: float
    warm_up_seconds: float

    def shorten(self) -> "Pace":
        return Pace(min(self.rounds, 3), self.seconds * 0.3, self.warm_up_seconds * 0.3)


def measure_case(case: Case, databases: Databases, servers: Sequence[Server], pace: Pace) -> dict[str, Figures]:
    """Return the medians of all rounds by the name of the stack."""
    pace = pace.shorten() if case.is_brief else pace
    counted = [] if case.is_brief and case.connections > 1 else servers
    statements = {server.stack.name: _count_statements(case, databases, server, pace) for server in counted}
    results: dict[str, list[Result]] = {server.stack.name: [] for server in servers}
    for number in range(pace.rounds):
        first = number % len(servers)
        for server in [*servers[first:], *servers[:first]]:
            plan = _prepare(case, databases, server)
            _send(server, plan, spare=True, seconds=pace.warm_up_seconds)
            result = _send(server, plan, spare=False, seconds=pace.seconds, connections=case.connections)
            results[server.stack.name].append(result)
    return {name: _summarize(of_one, statements.get(name)) for name, of_one in results.items()}


def _prepare(case: Case, databases: Databases, server: Server) -> Plan:
    if case.fresh:
        server.restart()
    return case.plan(databases, server)


def _count_statements(case: Case, databases: Databases, server: Server, pace: Pace) -> float:
    """Return the statements of one request, as PostgreSQL counts them on connections that were used before."""
    plan = _prepare(case, databases, server)
    counted = plan.spare[:_COUNTED]
    rest = plan.spare if plan.repeated else plan.spare[_COUNTED:]
    _send(server, replace(plan, spare=rest), spare=True, seconds=pace.warm_up_seconds)
    databases.begin_counting()
    result = _send(server, replace(plan, spare=counted, repeated=False), spare=True, seconds=60, connections=1)
    return databases.end_counting(case.database) / result.answers


def _send(server: Server, plan: Plan, *, spare: bool, seconds: float, connections: int = 16) -> Result:
    load = Load(
        port=server.port,
        requests=plan.spare if spare else plan.requests,
        status=plan.status,
        connections=connections,
        seconds=seconds,
        repeated=plan.repeated,
    )
    return send(server.stack.name, load)


def send(name: str, load: Load) -> Result:
    """Let the load generator send the requests to the server of that name."""
    client = subprocess.run(
        [sys.executable, "-m", "tests.performance.client"],
        input=json.dumps(asdict(load)).encode(),
        stdout=subprocess.PIPE,
        cwd=ROOT,
        check=False,
    )
    if client.returncode != 0:
        raise SystemExit(f"{name}: the measurement failed")
    return Result(**json.loads(client.stdout))


def _summarize(results: Sequence[Result], statements: float | None) -> Figures:
    return Figures(
        per_second=median(result.per_second for result in results),
        p50=median(result.p50 for result in results),
        p99=median(result.p99 for result in results),
        statements=statements,
        client_busy=max(result.client_busy for result in results),
    )


def measure_imports(folder: Path, databases: Databases, rounds: int) -> dict[str, Figures]:
    """Return the rows per second of both importers; each gets an empty database every time."""
    commands = {
        OURS.name: [sys.executable, "-m", "app", "import", folder],
        ORM.name: [PEERS_PYTHON, "-m", "tests.performance.peer_import", folder],
    }
    rates: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        written = []
        for name, command in commands.items():
            databases.create(_IMPORTED)
            if name == ORM.name:
                databases.forget_search(_IMPORTED)
            seconds = _import(command, databases.url(_IMPORTED))
            written.append(databases.count_rows(_IMPORTED))
            rates[name].append(sum(written[-1].values()) / seconds)
        if written[0] != written[1]:
            raise SystemExit(f"The importers wrote different numbers of rows: {written}")
    return {name: Figures(per_second=median(of_one)) for name, of_one in rates.items()}


def _import(command: Sequence[str | Path], url: str) -> float:
    environment = {**os.environ, "DATABASE_URL": url, "LOG_LEVEL": "warning"}
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
