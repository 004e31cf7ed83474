"""`DELETE /api/videos/{id}/moments/{mid}`."""

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response

from app.core.errors import StorageUnavailable
from app.database import Connection
from app.models import Moment
from app.repositories import MomentRepository
from app.storage import Storage, clip_folder_key, thumbnail_folder_key, video_folder_key
from tests.factories import make_clip, make_moment, make_thumbnail, make_video


async def test_a_moment_goes_with_its_clip_and_the_clips_thumbnail(
    client: AsyncClient, conn: Connection, app: FastAPI, tmp_path: Path
) -> None:
    moment = await _moment(conn)
    files = await _add_files(conn, app, tmp_path, moment)
    answer = await _delete(client, moment.identifier)
    assert answer.status_code == 200
    assert answer.json() == {
        "deleted": {"moment": moment.identifier, "clip": True, "thumbnail": True, "files": 2},
        "orphaned": [],
        "errors": None,
    }
    assert not any(file.exists() for file in files)
    assert (await client.get("/api/videos/talk/moments")).json() == []
    assert await _count(conn, "clips") == await _count(conn, "thumbnails") == 0


async def test_a_moment_without_a_clip_goes_alone(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    answer = await _delete(client, moment.identifier)
    assert answer.json()["deleted"] == {"moment": moment.identifier, "clip": False, "thumbnail": False, "files": 0}


async def test_what_was_refined_from_it_stays_and_is_named(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    refined = [await make_moment(conn, video_id=moment.video_id, parent_id=moment.id) for _ in range(2)]
    await make_moment(conn, video_id=moment.video_id, parent_id=refined[0].id)
    answer = await _delete(client, moment.identifier)
    assert answer.json()["orphaned"] == [child.identifier for child in refined]
    listed = (await client.get("/api/videos/talk/moments")).json()
    assert [child["parent_id"] for child in listed] == [None, None, refined[0].identifier]


async def test_a_moment_that_is_its_own_parent_leaves_no_orphan(client: AsyncClient, conn: Connection) -> None:
    moment = await _moment(conn)
    await MomentRepository(conn).update(moment.id, parent_id=moment.id)
    assert (await _delete(client, moment.identifier)).json()["orphaned"] == []


async def test_files_of_an_imported_library_are_neither_deleted_nor_counted(
    client: AsyncClient, conn: Connection, tmp_path: Path
) -> None:
    moment = await _moment(conn)
    file = tmp_path / "library" / f"talk_{moment.identifier}_clip.mp4"
    file.parent.mkdir()
    file.write_bytes(b"theirs")
    await make_clip(conn, moment, cloud_url=file.as_uri())
    answer = await _delete(client, moment.identifier)
    assert answer.json()["deleted"] == {"moment": moment.identifier, "clip": True, "thumbnail": False, "files": 0}
    assert file.read_bytes() == b"theirs"


async def test_libraries_are_looked_for_in_a_thread(
    app: FastAPI, client: AsyncClient, conn: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = app.state.resources.storage.libraries
    threads, list_libraries = set(), libraries.list_folders

    def watch() -> tuple[Path, ...]:
        threads.add(threading.current_thread())
        folders: tuple[Path, ...] = list_libraries()
        return folders

    moment = await _moment(conn)
    await make_clip(conn, moment, cloud_url=(tmp_path / "media" / "a.mp4").as_uri())
    monkeypatch.setattr(libraries, "list_folders", watch)
    await _delete(client, moment.identifier)
    assert threads
    assert threading.current_thread() not in threads


async def test_files_that_a_failure_left_behind_are_deleted_by_the_next_call(
    client: AsyncClient, conn: Connection, app: FastAPI, tmp_path: Path
) -> None:
    moment = await _moment(conn)
    files = await _add_files(conn, app, tmp_path, moment)
    await MomentRepository(conn).delete(moment.id)  # as far as a call came that was killed
    answer = await _delete(client, moment.identifier)
    assert answer.status_code == 200
    assert answer.json()["deleted"] == {"moment": moment.identifier, "clip": False, "thumbnail": False, "files": 2}
    assert not any(file.exists() for file in files)
    assert (await _delete(client, moment.identifier)).status_code == 404


@pytest.mark.parametrize("call", ["list_files", "delete"])
async def test_what_the_storage_refuses_is_reported_and_deleted_by_the_next_call(
    client: AsyncClient,
    conn: Connection,
    app: FastAPI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    async def refuse(storage: Storage, _: str) -> None:
        raise StorageUnavailable("The storage is away")

    moment = await _moment(conn)
    files = await _add_files(conn, app, tmp_path, moment)
    with monkeypatch.context() as away:
        away.setattr(Storage, call, refuse)
        answer = await _delete(client, moment.identifier)
    assert answer.status_code == 200
    assert answer.json()["errors"][0] == "The storage is away"
    assert (await client.get("/api/videos/talk/moments")).json() == []
    again = await _delete(client, moment.identifier)
    assert (again.status_code, again.json().get("errors")) == ((200 if call == "delete" else 404), None)
    assert not any(file.exists() for file in files)


async def test_without_a_row_a_storage_that_is_away_is_503(
    client: AsyncClient, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(storage: Storage, _: str) -> None:
        raise StorageUnavailable("The storage is away")

    await _moment(conn)
    monkeypatch.setattr(Storage, "list_files", refuse)
    assert (await _delete(client, "0123456789abcdef")).status_code == 503


async def test_no_other_moment_loses_a_file(
    client: AsyncClient, conn: Connection, app: FastAPI, tmp_path: Path
) -> None:
    moment = await _moment(conn)
    other = await make_moment(conn, video_id=moment.video_id)
    named_like_it = await _put(app, tmp_path, f"{clip_folder_key('talk')}/talk_{moment.identifier}_clip.mp4")
    await make_clip(conn, other, cloud_url=named_like_it.as_uri())
    kept = [
        named_like_it,
        await _put(app, tmp_path, f"{clip_folder_key('talk')}/{other.identifier}.mp4"),
        await _put(app, tmp_path, f"{clip_folder_key('talk')}/{moment.identifier}0.mp4"),
        await _put(app, tmp_path, f"{clip_folder_key('elsewhere')}/{moment.identifier}.mp4"),
        await _put(app, tmp_path, f"{video_folder_key('talk')}/{moment.identifier}.mp4"),
    ]
    assert (await _delete(client, moment.identifier)).json()["deleted"]["files"] == 0
    assert all(file.exists() for file in kept)


@pytest.mark.parametrize("name", ["mp4", "clip", "talk", "0", ".", "%2e%2e", "_", "0123456789ABCDEF", "[0-9a-f]{16}"])
async def test_a_part_of_a_name_deletes_nothing(
    client: AsyncClient, conn: Connection, app: FastAPI, tmp_path: Path, name: str
) -> None:
    await _moment(conn)
    file = await _put(app, tmp_path, f"{clip_folder_key('talk')}/talk_0123456789abcdef_clip_0.mp4")
    assert (await _delete(client, name)).status_code in (404, 405)
    assert file.exists()


async def test_what_is_not_there_is_404(client: AsyncClient, conn: Connection) -> None:
    await _moment(conn)
    elsewhere = await make_moment(conn)
    for path, detail in {
        f"nobody/moments/{elsewhere.identifier}": "Video not found",
        f"talk/moments/{elsewhere.identifier}": "Moment not found",
    }.items():
        answer = await client.delete(f"/api/videos/{path}")
        assert (answer.status_code, answer.json()) == (404, {"detail": detail})
    assert await MomentRepository(conn).get(elsewhere.id) == elsewhere


async def _moment(conn: Connection, **values: Any) -> Moment:
    video = await make_video(conn, identifier="talk")
    return await make_moment(conn, video_id=video.id, **values)


async def _add_files(conn: Connection, app: FastAPI, folder: Path, moment: Moment) -> list[Path]:
    """Give the moment a clip with a thumbnail, in files of the server's own."""
    video = await _put(app, folder, f"{clip_folder_key('talk')}/{moment.identifier}.mp4")
    picture = await _put(app, folder, f"{thumbnail_folder_key('talk')}/{moment.identifier}-2.jpg")
    clip = await make_clip(conn, moment, cloud_url=video.as_uri())
    await make_thumbnail(conn, clip_id=clip.id, cloud_url=picture.as_uri())
    return [video, picture]


async def _put(app: FastAPI, folder: Path, key: str) -> Path:
    source = folder / "source"
    source.write_bytes(b"film")
    await app.state.resources.storage.put(key, source)
    stored = folder / "media" / key
    assert stored.exists()
    return stored


async def _count(conn: Connection, table: str) -> int:
    (count,) = await anext(await conn.execute(f"SELECT count(*) FROM {table}"))
    return int(count)


async def _delete(client: AsyncClient, identifier: str) -> Response:
    return await client.delete(f"/api/videos/talk/moments/{identifier}")
