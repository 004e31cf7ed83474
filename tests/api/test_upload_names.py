"""What an upload is called: its id and its title, from whatever name its file has."""

import re
import unicodedata
from pathlib import Path
from unittest.mock import AsyncMock
from urllib.parse import quote

import pytest
from httpx import AsyncClient, Response

from app.database import Connection
from app.repositories import VideoRepository
from tests.factories import make_video
from tests.storage.stores import files_in


async def upload(client: AsyncClient, movie: bytes, filename: str, **params: str) -> dict[str, str]:
    answer = await client.post("/api/videos", content=movie, params={"filename": filename, **params})
    assert answer.status_code == 201, answer.text
    video: dict[str, str] = answer.json()
    return video


async def send_file(client: AsyncClient, movie: bytes, disposition: str) -> Response:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; {disposition}\r\n\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    return await client.post("/api/videos", content=head + movie + b"\r\n--b--\r\n", headers=headers)


@pytest.mark.parametrize(
    ("filenames", "identifiers"),
    [
        (["C++ Kurs.mp4", "C# Kurs.mp4", "c-kurs.mp4"], ["c-kurs", "c-kurs-2", "c-kurs-3"]),
        (["会議 2024.mp4", "講演 2024.mp4"], ["会議-2024", "講演-2024"]),
        (["Über uns.mp4", "Uber uns.mp4"], ["uber-uns", "uber-uns-2"]),
        (["a long name " * 5 + "one.mp4", "a long name " * 5 + "two.mp4"], None),
    ],
)
async def test_an_id_that_is_derived_refuses_no_other_video(
    client: AsyncClient, movie: bytes, filenames: list[str], identifiers: list[str] | None
) -> None:
    videos = [await upload(client, movie, filename) for filename in filenames]
    assert len({video["id"] for video in videos}) == len(filenames)
    assert len({video["title"] for video in videos}) == len(filenames) or "c-kurs.mp4" in filenames
    if identifiers:
        assert [video["id"] for video in videos] == identifiers


@pytest.mark.parametrize("name", ["Über-café", "日本語", "Привет мир", "Crème brûlée"])
async def test_an_id_does_not_depend_on_the_form_in_which_letters_are_composed(
    client: AsyncClient, movie: bytes, name: str
) -> None:
    composed, decomposed = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    first, second = await upload(client, movie, f"{composed}.mp4"), await upload(client, movie, f"{decomposed}.mp4")
    assert second["id"] == f"{first['id']}-2"
    assert first["title"] == second["title"] == unicodedata.normalize("NFC", first["title"])
    for video in (first, second):
        path = f"/api/videos/{quote(unicodedata.normalize('NFD', video['id']))}"
        assert (await client.get(path)).json()["id"] == video["id"]


async def test_an_id_that_a_client_names_is_refused_where_it_is_taken_in_any_form(
    client: AsyncClient, movie: bytes
) -> None:
    assert (await upload(client, movie, "a.mp4", id="Cafe\u0301"))["id"] == "Café"
    answer = await client.post("/api/videos", content=movie, params={"id": "Café"})
    assert answer.status_code == 409


@pytest.mark.parametrize(
    ("filename", "title"),
    [
        ("three-topics.mp4", "Three Topics"),
        ("My_Video-File.MP4", "My Video File"),
        ("What is a GPU.mp4", "What Is A GPU"),
        ("iPhone don't 3d.mp4", "iPhone Don't 3d"),
        ("日本語.mp4", "日本語"),
        ("bad\u200bgpj\u200e name.mp4", "Badgpj Name"),
        ("  spaces   between.mp4", "Spaces Between"),
    ],
)
async def test_a_title_is_the_words_of_the_name(client: AsyncClient, movie: bytes, filename: str, title: str) -> None:
    assert (await upload(client, movie, filename))["title"] == title


async def test_a_title_that_is_given_is_stored_letter_by_letter(client: AsyncClient, movie: bytes) -> None:
    assert (await upload(client, movie, "a.mp4", title="the\u200e iPhone-talk"))["title"] == "the iPhone-talk"
    assert (await client.post("/api/videos", content=movie, params={"title": "\u200b\u200e"})).status_code == 422


@pytest.mark.parametrize(
    ("disposition", "title"),
    [
        ('filename="say %22hi%22 now.mp4"', 'Say "hi" Now'),
        ('filename="say \\"hi\\" now.mp4"', 'Say "hi" Now'),
        ('filename="100%25 pure.mp4"', "100%25 Pure"),
        ("filename*=UTF-8''na%C3%AFve%20plan.mp4", "Naïve Plan"),
        ("filename=\"plain.mp4\"; filename*=utf-8'en'%E2%82%AC%20rates.mp4", "€ Rates"),
        ("filename*=iso-8859-1''caf%E9.mp4; filename=x.mp4", "Café"),
        ("filename=\"a; filename*=UTF-8''b.mp4\"", "A; Filename*=utf 8''b"),
    ],
)
async def test_the_name_of_a_file_in_a_form_is_read_as_clients_write_it(
    client: AsyncClient, movie: bytes, disposition: str, title: str
) -> None:
    answer = await send_file(client, movie, disposition)
    assert answer.status_code == 201, answer.text
    assert answer.json()["title"].casefold() == title.casefold()


@pytest.mark.parametrize("disposition", ["filename*=EBCDIC''x.mp4", "filename*=UTF-8''%FF.mp4"])
async def test_a_name_that_cannot_be_decoded_is_refused(client: AsyncClient, movie: bytes, disposition: str) -> None:
    assert (await send_file(client, movie, disposition)).status_code == 422


async def test_a_name_that_another_process_has_taken_meanwhile_gets_a_suffix(
    client: AsyncClient, conn: Connection, movie: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_video(conn, identifier="talk")
    monkeypatch.setattr(VideoRepository, "list_taken_identifiers", AsyncMock(return_value=set()))
    video = await upload(client, movie, "Talk.mp4")
    assert re.fullmatch(r"talk-[0-9a-f]{8}", video["id"])
    assert (await client.get(f"/api/videos/{video['id']}/stream")).content == movie
    (stored,) = files_in(tmp_path / "media")
    assert stored.startswith(f"videos/{video['id']}/")
