"""Files of DATA_DIR are private."""

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from app.core.config import Settings
from app.core.private_files import open_private_file, prepare_data_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")


def make_open(path: Path) -> Path:
    """Create a file, or a folder where the name has no dot, that everybody may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if not path.suffix else path.touch()
    path.chmod(0o644 if path.suffix else 0o755)
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_new_folder_is_its_users_alone(tmp_path: Path) -> None:
    prepare_data_folder(Settings(data_dir=tmp_path / "a" / "data"))
    assert mode_of(tmp_path / "a" / "data") == 0o700


def test_a_folder_of_an_earlier_version_is_closed(tmp_path: Path) -> None:
    data = make_open(tmp_path / "data")
    names = ("postgres.log", "postgres.address", "valkey.lock", "valkey/one.aof", "media/videos/talk/talk.mp4")
    files = [make_open(data / name) for name in names]
    folders = [data / "media", data / "media/videos", data / "media/videos/talk", data / "valkey"]
    for folder in folders:
        folder.chmod(0o755)
    prepare_data_folder(Settings(data_dir=data))
    assert {mode_of(path) for path in files} == {0o600}
    assert {mode_of(path) for path in (data, *folders)} == {0o700}


def test_what_the_operator_put_there_is_left_alone(tmp_path: Path) -> None:
    note = make_open(tmp_path / "data" / "note.txt")
    elsewhere = make_open(tmp_path / "elsewhere.txt")
    (tmp_path / "data" / "postgres.log").symlink_to(elsewhere)
    os.link(elsewhere, tmp_path / "data" / "valkey.log")
    prepare_data_folder(Settings(data_dir=tmp_path / "data"))
    assert (mode_of(note), mode_of(elsewhere)) == (0o644, 0o644)


@pytest.mark.parametrize("kind", ["sticky", "working folder", "STORAGE_URL", "LIBRARY_DIRS"])
def test_a_folder_that_others_need_stays_open(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_open(tmp_path / "data")
    inner = make_open(data / "media")
    named: dict[str, Any] = {}
    if kind == "sticky":
        data.chmod(0o1777)
    elif kind == "working folder":
        monkeypatch.chdir(inner)
    elif kind == "STORAGE_URL":
        named = {"storage_url": inner.as_uri()}
    else:
        named = {"library_dirs": [inner]}
    before = mode_of(data)
    prepare_data_folder(Settings(data_dir=data, **named))
    assert (mode_of(data), mode_of(inner)) == (before, 0o755)


def test_a_file_is_opened_for_its_user_alone_and_not_by_a_link(tmp_path: Path) -> None:
    old = make_open(tmp_path / "old.log")
    for path in (old, tmp_path / "new.log"):
        with open(path, "wb", opener=open_private_file):
            pass
        assert mode_of(path) == 0o600
    (tmp_path / "link").symlink_to(old)
    with pytest.raises(OSError, match="link"), open(tmp_path / "link", "wb", opener=open_private_file):
        pass
