"""Nobody wins by doing less: before anything is measured, the servers' answers are compared."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from tests.performance.cases import list_pages
from tests.performance.databases import Databases
from tests.performance.servers import Server

_SAMPLES = 5
_PAGES = 3
_LIMIT = 20


def compare_answers(database: str, databases: Databases, servers: Sequence[Server]) -> None:
    """Exit with the address of the first answer that differs between two servers."""
    match database:
        case "bare":
            checks = _check_pages(servers)
        case "runs":
            checks = _check_starts(databases, servers)
        case _:
            checks = _check_library(databases, servers)
    for what, answers in checks:
        for server, answer in zip(servers[1:], answers[1:], strict=True):
            if answer != answers[0]:
                raise SystemExit(f"{server.stack.name} and {servers[0].stack.name} answer {what} differently")


def _check_library(databases: Databases, servers: Sequence[Server]) -> Iterable[tuple[str, list[Any]]]:
    identifiers = databases.identifiers("library")[:_SAMPLES]
    paths = [
        f"/api/videos/{identifier}{rest}" for identifier in identifiers for rest in ("", "/moments", "/transcript")
    ]
    for path in ["/api/videos", *paths]:
        yield path, [_get(server, path) for server in servers]
    for identifier in identifiers:
        path = f"/api/videos/{identifier}/lineage"
        yield path, [_read_times(_get(server, path)) for server in servers]
    for query in databases.queries[:_SAMPLES]:
        path = f"/api/search?q={quote(query)}&limit={_LIMIT}"
        yield path, [_hits(_get(server, path)) for server in servers]


def _check_pages(servers: Sequence[Server]) -> Iterable[tuple[str, list[Any]]]:
    yield "pages", [[_get(server, path) for path in list_pages(server, _PAGES)] for server in servers]


def _check_starts(databases: Databases, servers: Sequence[Server]) -> Iterable[tuple[str, list[Any]]]:
    """The first run over a video is accepted, a second one refused, and the row is the same."""
    path = f"/api/videos/{databases.identifiers('runs')[0]}/process-audio"
    outcomes = []
    for server in servers:
        databases.remove_runs()
        answers = [server.post(path) for _ in range(2)]
        outcomes.append(([(answer.status, answer.json()) for answer in answers], databases.list_runs()))
    yield path, outcomes


def _get(server: Server, path: str) -> Any:
    answer = server.get(path)
    if answer.status != 200:
        raise SystemExit(f"{server.stack.name} answers {path} with {answer.status}: {answer.body[:200]!r}")
    return answer.json()


def _read_times(value: Any) -> Any:
    """Return a document with its times read: `…:00Z` and `…:00.000000+00:00` are the same."""
    if isinstance(value, list):
        return [_read_times(each) for each in value]
    if isinstance(value, dict):
        return {
            name: datetime.fromisoformat(each) if name.endswith("_at") and each else _read_times(each)
            for name, each in value.items()
        }
    return value


def _hits(found: dict[str, Any]) -> set[str] | int:
    """Return which videos are found, or how many where there are more: then which of them come first may differ."""
    videos = {hit["video_id"] for hit in found["hits"]}
    return videos if len(videos) < _LIMIT else len(videos)
