"""What is asked of the servers."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from urllib.parse import quote

import orjson

from tests.performance.client import Request
from tests.performance.databases import Databases
from tests.performance.dataset import FREE_FROM_SECONDS
from tests.performance.servers import Server

HOT = 20
SPARE = 100
_ADDED_PER_VIDEO = 40
_PAGES = 400


@dataclass(frozen=True)
class Plan:
    """The requests of a case. `spare` are for warming up and for counting statements; they are not measured."""

    requests: list[Request]
    spare: list[Request]
    status: int = 200
    repeated: bool = True


@dataclass(frozen=True)
class Case:
    """`fresh`: each measurement starts with a server that was just started. `aim`: times the ORM.

    `is_brief`: measured less often and for a shorter time, and statements are counted with one client alone: for a
    case with several loads.
    """

    key: str
    name: str
    plan: Callable[[Databases, Server], Plan]
    database: str = "library"
    fresh: bool = False
    aim: float | None = None
    connections: int = 16
    is_brief: bool = False


def _repeat(paths: list[str]) -> Plan:
    requests = [Request(path) for path in paths]
    return Plan(requests, requests)


def _plan_video(databases: Databases, server: Server) -> Plan:
    return _repeat([f"/api/videos/{identifier}" for identifier in databases.identifiers("library")])


def _plan_moments(databases: Databases, server: Server) -> Plan:
    return _repeat([f"/api/videos/{identifier}/moments" for identifier in databases.identifiers("library")])


def _plan_first_transcript(databases: Databases, server: Server) -> Plan:
    requests = [Request(path) for path in _transcripts(databases)]
    spare = min(SPARE, len(requests) // 2)
    return Plan(requests[spare:], requests[:spare], repeated=False)


def _plan_repeated_transcript(databases: Databases, server: Server) -> Plan:
    return _repeat(_transcripts(databases)[:HOT])


def _plan_unchanged_transcript(databases: Databases, server: Server) -> Plan:
    """A server without ETags sends the transcript again."""
    paths = _transcripts(databases)[:HOT]
    etags = [server.get(path).headers.get("ETag") for path in paths]
    if None in etags:
        return _repeat(paths)
    requests = [Request(path, headers={"If-None-Match": str(etag)}) for path, etag in zip(paths, etags, strict=True)]
    return Plan(requests, requests, status=304)


def _transcripts(databases: Databases) -> list[str]:
    return [f"/api/videos/{identifier}/transcript" for identifier in databases.identifiers("library")]


def _plan_lineage(databases: Databases, server: Server) -> Plan:
    return _repeat([f"/api/videos/{identifier}/lineage" for identifier in databases.identifiers("library")])


def _plan_list(databases: Databases, server: Server) -> Plan:
    return _repeat(["/api/videos"])


def _plan_page(databases: Databases, server: Server) -> Plan:
    return _repeat(list_pages(server, _PAGES))


def list_pages(server: Server, count: int) -> list[str]:
    """Return the addresses of the first `count` pages of 50 videos: each answer's Link header gives the next one."""
    path: str | None = "/api/videos?limit=50"
    paths: list[str] = []
    while path and len(paths) < count:
        paths.append(path)
        link = re.search(r'<(?:https?://[^/]+)?(/[^>]+)>; *rel="?next"?', server.get(path).headers.get("Link", ""))
        path = link[1] if link else None
    return paths


def _plan_added_moment(databases: Databases, server: Server) -> Plan:
    """Each moment is new, and none overlaps another one."""
    databases.remove_added_moments()
    identifiers = databases.identifiers("library")
    requests = [
        Request(f"/api/videos/{identifier}/moments", "POST", body=_moment(FREE_FROM_SECONDS + 2 * number))
        for number, identifier in product(range(_ADDED_PER_VIDEO), identifiers)
    ]
    spare = len(identifiers)
    return Plan(requests[spare:], requests[:spare], status=201, repeated=False)


def _moment(start: float) -> str:
    return orjson.dumps({"start_time": start, "end_time": start + 1.5, "title": "Worth watching"}).decode()


def _plan_search(databases: Databases, server: Server) -> Plan:
    return _repeat([f"/api/search?q={quote(query)}&limit=20" for query in databases.queries])


def _plan_start(databases: Databases, server: Server) -> Plan:
    """Each run is over another video, and no worker takes any."""
    databases.remove_runs()
    requests = [Request(f"/api/videos/{video}/process-audio", "POST") for video in databases.identifiers("runs")]
    return Plan(requests[SPARE:], requests[:SPARE], repeated=False)


CASES = (
    Case("video", "one video", _plan_video, aim=6),
    Case("moments", "its 20 moments", _plan_moments, aim=8),
    Case("transcript", "its transcript, first read", _plan_first_transcript, fresh=True, aim=8),
    Case("repeated", "its transcript, repeated", _plan_repeated_transcript, aim=60),
    Case("unchanged", "its transcript, unchanged (304)", _plan_unchanged_transcript),
    Case("lineage", "its lineage", _plan_lineage),
    Case("list", "list of all videos", _plan_list, aim=40),
    Case("add", "add a moment", _plan_added_moment, aim=7),
    Case("search", "search", _plan_search, aim=50),
    Case("page", "page of 50 of 20,000", _plan_page, database="bare"),
    *(
        Case("start", f"start a run, {clients}", _plan_start, "runs", connections=count, is_brief=True)
        for count, clients in ((1, "1 client"), (16, "16 clients"), (64, "64 clients"))
    ),
)
