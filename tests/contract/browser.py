"""The frontend's page in a browser: what it sends, what it may read, and what it makes of the answers."""

from typing import Any
from urllib.parse import quote

from httpx import AsyncClient, Response

ORIGIN = "http://localhost:3005"
_ENCODINGS = {"Accept-Encoding": "gzip, deflate, br"}
_OF_PAGE = {"Accept": "application/json, text/plain, */*", "Origin": ORIGIN, "Referer": f"{ORIGIN}/"} | _ENCODINGS
# What a browser leaves as it is in the path of an address; the frontend itself encodes nothing.
_AS_THEY_ARE = "/%?!$&'()*+,;=:@[]|~"


class Browser:
    """A page at `ORIGIN`. It fails where a browser would: at an answer it may not read, at an error it cannot show."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def get(self, path: str) -> Response:
        return _read(await self._client.get(_encode(path), headers=_OF_PAGE))

    async def get_json(self, path: str) -> Any:
        answer = await self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def send(self, method: str, path: str, body: str | None = None) -> Response:
        """Send JSON as it is written, or no body and then no content type, after the preflight where there is one."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        if body is not None or method not in ("GET", "POST"):
            await self._ask(method, path, headers)
        content = None if body is None else body.encode()
        return _read(await self._client.request(method, _encode(path), content=content, headers=_OF_PAGE | headers))

    async def load(self, path: str, **headers: str) -> Response:
        """Load what an `<img>` or a `<video>` shows: without an origin, and whatever the answer allows to read."""
        return await self._client.get(_encode(path), headers=_ENCODINGS | headers)

    async def _ask(self, method: str, path: str, headers: dict[str, str]) -> None:
        names = ",".join(sorted(name.lower() for name in headers))
        wanted = {"Access-Control-Request-Method": method} | (
            {"Access-Control-Request-Headers": names} if names else {}
        )
        answer = await self._client.options(_encode(path), headers={"Origin": ORIGIN} | wanted)
        assert answer.status_code == 200, answer.text
        assert _may_read(answer)
        assert method in answer.headers["Access-Control-Allow-Methods"].split(", ")
        assert answer.headers.get("Access-Control-Allow-Headers", "") == names


def detail_of(answer: Response) -> str:
    """Return the text that the frontend shows of an error. It renders it as it is: all but a text blanks the page."""
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert 0 < len(detail) < 300
    return detail


def group_cards(moments: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return what the frontend shows of a list of moments: the ids of its cards, with those of their refined tabs."""
    return {
        card["id"]: [moment["id"] for moment in moments if moment["parent_id"] == card["id"]]
        for card in moments
        if not card["is_refined"]
    }


def check_moment(moment: dict[str, Any]) -> None:
    """Assert what the frontend calculates with, calls methods of, and puts into addresses."""
    assert isinstance(moment["id"], str)
    assert moment["id"]
    assert isinstance(moment["title"], str)
    assert isinstance(moment["start_time"], float)
    assert isinstance(moment["end_time"], float)
    assert isinstance(moment["is_refined"], bool)
    assert moment["parent_id"] is None or isinstance(moment["parent_id"], str)
    assert moment["model_name"] is None or isinstance(moment["model_name"], str)
    for name, value in (moment["generation_config"] or {}).items():
        assert value is not None, name


def _encode(path: str) -> str:
    return quote(path, safe=_AS_THEY_ARE)


def _read(answer: Response) -> Response:
    assert _may_read(answer), "Network Error"
    if answer.status_code >= 400:
        detail_of(answer)
    return answer


def _may_read(answer: Response) -> bool:
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    return allowed == ORIGIN or (allowed == "*" and "Cookie" not in answer.request.headers)
