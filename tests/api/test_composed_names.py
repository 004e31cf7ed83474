"""Names and words in NFD, as macOS writes them, and in NFC: the same to every address, search and title."""

import unicodedata
from urllib.parse import quote

import pytest
from httpx import AsyncClient

from app.database import Connection
from tests.factories import make_moment, make_transcript, make_video

NFC = "Café Über ガイド"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize("stored", [NFC, NFD])
@pytest.mark.parametrize("asked", [NFC, NFD])
async def test_a_video_is_found_in_either_form(client: AsyncClient, conn: Connection, stored: str, asked: str) -> None:
    video = await make_video(conn, identifier=stored)
    await make_transcript(conn, video_id=video.id)
    address = f"/api/videos/{quote(asked)}"
    for path in ("", "/moments", "/transcript", "/lineage", "/transcript.vtt"):
        assert (await client.get(address + path)).status_code == 200, path
    assert (await client.patch(address, json={"title": "New"})).json()["id"] == NFC
    body = {"start_time": 0, "end_time": 5, "title": "Intro"}
    assert (await client.post(f"{address}/moments", json=body)).status_code == 201
    assert (await client.get("/api/search", params={"q": "intro", "video": asked})).json()["moments"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
async def test_a_title_is_found_and_shown_in_one_form(client: AsyncClient, conn: Connection, form: str) -> None:
    video = await make_video(conn, identifier="talk")
    moment = await make_moment(conn, video_id=video.id, start_time=50.0, end_time=60.0)
    title = unicodedata.normalize(form, "Décomposé\u200e à la carte")  # type: ignore[arg-type]
    body = {"start_time": 0, "end_time": 5, "title": title}
    assert (await client.post("/api/videos/talk/moments", json=body)).json()["title"] == "Décomposé à la carte"
    edited = await client.patch(f"/api/videos/talk/moments/{moment.identifier}", json={"title": title})
    assert edited.json()["title"] == "Décomposé à la carte"
    for query in ("NFC", "NFD"):
        words = unicodedata.normalize(query, "décomposé")
        assert len((await client.get("/api/search", params={"q": words})).json()["moments"]) == 2
    renamed = await client.patch("/api/videos/talk", json={"title": title})
    assert renamed.json()["title"] == "Décomposé à la carte"


@pytest.mark.parametrize("title", ["\u200e", "\u200b \u2060"])
async def test_a_title_that_nobody_sees_is_empty(client: AsyncClient, conn: Connection, title: str) -> None:
    await make_video(conn, identifier="talk")
    assert (await client.patch("/api/videos/talk", json={"title": title})).status_code == 422
    body = {"start_time": 0, "end_time": 5, "title": title}
    assert (await client.post("/api/videos/talk/moments", json=body)).status_code == 400


async def test_an_older_title_is_shown_without_what_nobody_sees(client: AsyncClient, conn: Connection) -> None:
    await make_video(conn, identifier="a", title="evil\u202egpj")
    await make_video(conn, identifier="imported\u202ename")
    titles = [video["title"] for video in (await client.get("/api/videos")).json()]
    assert titles == ["evilgpj", "Importedname"]
