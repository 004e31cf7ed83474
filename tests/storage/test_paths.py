"""Nothing outside the roots is read, written or deleted, whatever a row or a request says."""

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from app.core.errors import FileMissing, InvalidInput, StorageUnavailable
from app.storage import Storage
from tests.storage.stores import files_in, make_file, open_files, read_all

# ROOT is the server's folder, TOP the one that it lies in; TOP/secret is what an attacker wants.
_ADDRESSES = [
    "file://TOP/secret",
    "file://ROOT/../secret",
    "file://ROOT/videos/../../secret",
    "file://ROOT/%2e%2e/secret",
    "file://ROOT/%2E%2E%2Fsecret",
    "file://ROOT/videos/%2e%2e%2f%2e%2e%2fsecret",
    "file://ROOT/%252e%252e/secret",
    "file://ROOT/..%5csecret",
    "file://ROOT\\..\\secret",
    "file://ROOT/./videos/own",
    "file://ROOT//videos/own",
    "file://ROOT/videos/own/",
    "file://ROOT/videos/own/.",
    "file://ROOT/videos/own%00.mp4",
    "file://ROOT/videos/own\0.mp4",
    "file://ROOT/videos/own?x",
    "file://ROOT/videos/own#x",
    "file://ROOT/videos/o\nwn",
    " file://ROOT/videos/own",
    "file://ROOT/videos/\ud800",
    "file://ROOT/.incoming/draft",
    "file://ROOT/%2eincoming/draft",
    "file://host/ROOT/videos/own",
    "file://[/ROOT/videos/own",
    "file:ROOT/../secret",
    "file:videos/own",
    "file:",
    "file://ROOT",
    "file://ROOT/",
    "file://ROOT/videos",
    "file://ROOT-beside/secret",
    "file:///etc/passwd",
    "file:///dev/zero",
    "file:///proc/self/environ",
    "/etc/passwd",
    "videos/own",
    "",
    "http://127.0.0.1/videos/own",
    "concat:file://ROOT/videos/own",
    "file://ROOT/links/file",
    "file://ROOT/links/folder/secret",
    "file://ROOT/links/dangling",
    "file://ROOT/links/loop",
    "file://ROOT/odd/pipe",
    "file://ROOT/odd/socket",
    "file://ROOT/odd/folder",
    "file://ROOT/odd/device",
    "file://LIBRARY/link",
    "file://LIBRARY/link/secret",
    "file://LIBRARY/up/secret",
    "file://ROOT/" + "a" * 256,
    "file://ROOT/" + "a/" * 3000 + "a",
]

_KEYS = [
    "",
    "/",
    ".",
    "..",
    "../secret",
    "videos/../../secret",
    "/etc/passwd",
    "videos//a",
    "videos/",
    "./a",
    "a/./b",
    ".incoming/a",
    "videos/.incoming",
    "a\0b",
    "a\nb",
    "a\\..\\b",
    "C:\\a",
    "\ud800",
    "a" * 256,
    "ä" * 128,
    "a/" * 600 + "a",
]


@pytest.fixture
def attacked(storage: Storage, tmp_path: Path) -> Path:
    """A folder whose `media` and `library` are full of traps."""
    make_file(tmp_path / "secret", b"secret")
    make_file(tmp_path / "media-beside" / "secret", b"secret")
    media = tmp_path / "media"
    make_file(media / "videos" / "own", b"own")
    make_file(media / ".incoming" / "draft", b"not whole")
    make_file(tmp_path / "outside" / "secret", b"secret")
    for folder in ("links", "odd/folder"):
        (media / folder).mkdir(parents=True)
    (media / "links/file").symlink_to(tmp_path / "secret")
    (media / "links/folder").symlink_to(tmp_path / "outside")
    (media / "links/dangling").symlink_to(tmp_path / "nothing")
    (media / "links/loop").symlink_to(media / "links/loop")
    (tmp_path / "library/link").symlink_to(tmp_path / "secret")
    (tmp_path / "library/up").symlink_to("..")
    os.mkfifo(media / "odd/pipe")
    _make_socket(media / "odd/socket")
    (media / "odd/device").symlink_to("/dev/zero")
    return tmp_path


def _make_socket(path: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)  # its address must be short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.fchdir(before)
        os.close(before)


def _address(text: str, top: Path) -> str:
    return text.replace("ROOT", f"{top}/media").replace("TOP", str(top)).replace("LIBRARY", f"{top}/library")


async def _open(storage: Storage, url: str) -> object:
    return storage.open_blocking(url)


@pytest.mark.parametrize("look", [Storage.stat, read_all, _open], ids=["stat", "read", "open"])
@pytest.mark.parametrize("address", _ADDRESSES)
async def test_nothing_else_is_read(
    storage: Storage, attacked: Path, address: str, look: Callable[[Storage, str], Awaitable[object]]
) -> None:
    with pytest.raises(FileMissing, match="File not found"):
        await look(storage, _address(address, attacked))


@pytest.mark.parametrize("address", _ADDRESSES)
async def test_nothing_else_is_deleted(storage: Storage, attacked: Path, address: str) -> None:
    before = files_in(attacked)
    assert not await storage.delete(_address(address, attacked))
    assert files_in(attacked) == before


@pytest.mark.parametrize("key", _KEYS)
async def test_a_key_that_leads_elsewhere_is_refused(storage: Storage, attacked: Path, key: str) -> None:
    source = make_file(attacked / "source")
    before = files_in(attacked)
    with pytest.raises(InvalidInput):
        await storage.put(key, source)
    with pytest.raises(InvalidInput):
        await storage.list_files(key)
    with pytest.raises(InvalidInput):
        await storage.list_names(key)
    with pytest.raises(InvalidInput):
        storage.url_of(key)
    assert files_in(attacked) == before


async def test_nothing_is_written_through_a_linked_folder(storage: Storage, attacked: Path) -> None:
    source = make_file(attacked / "source")
    with pytest.raises(StorageUnavailable):
        await storage.put("links/folder/new", source)
    with pytest.raises(StorageUnavailable):
        await storage.put("links/folder/deeper/new", source)
    assert files_in(attacked / "outside") == ["secret"]


async def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(storage: Storage, attacked: Path) -> None:
    stored = await storage.put("links/file", make_file(attacked / "source", b"new"))
    assert (attacked / "secret").read_bytes() == b"secret"
    assert await read_all(storage, stored.url) == b"new"


async def test_a_folder_in_the_place_of_a_file_is_reported(storage: Storage, attacked: Path) -> None:
    with pytest.raises(StorageUnavailable, match="is a directory"):
        await storage.put("odd/folder", make_file(attacked / "source"))
    assert files_in(attacked / "media/.incoming") == ["draft"]


async def test_a_linked_folder_of_arriving_files_is_refused(storage: Storage, attacked: Path) -> None:
    (attacked / "media/.incoming/draft").unlink()
    (attacked / "media/.incoming").rmdir()
    (attacked / "media/.incoming").symlink_to(attacked / "outside")
    with pytest.raises(StorageUnavailable):
        await storage.put("a/b", make_file(attacked / "source"))
    with pytest.raises(StorageUnavailable):
        async with storage.receive_file():
            pass
    assert files_in(attacked / "outside") == ["secret"]


async def test_links_are_not_listed_or_followed(storage: Storage, attacked: Path) -> None:
    assert await storage.list_files("links") == []
    assert await storage.list_files("links/folder") == []
    assert await storage.list_names("links/folder") == set()
    assert await storage.list_files("odd") == []


@pytest.mark.parametrize("source", ["odd/pipe", "odd/socket", "odd/folder", "odd/device"])
async def test_only_a_regular_file_is_stored(storage: Storage, attacked: Path, source: str) -> None:
    with pytest.raises(FileMissing):
        await storage.put("a/b", attacked / "media" / source)


async def test_a_link_within_a_library_is_followed(storage: Storage, attacked: Path) -> None:
    make_file(attacked / "library/disk/a.mp4", b"theirs")
    (attacked / "library/videos").symlink_to("disk")
    assert await read_all(storage, (attacked / "library/videos/a.mp4").as_uri()) == b"theirs"


async def test_an_own_folder_that_is_reached_through_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "media").symlink_to("disk")
    storage = open_files(tmp_path)
    stored = await storage.put("a/b", make_file(tmp_path / "source", b"here"))
    assert await read_all(storage, stored.url) == b"here"
    assert await storage.delete(stored.url)
    await storage.aclose()
