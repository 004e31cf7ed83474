"""A file is only begun where the disk has room for it, and keeps a reserve."""

from pathlib import Path

import pytest

from app.core.errors import StorageFull
from app.storage import file_system
from app.storage.file_system import check_free_space

_GB = 1000**3


def _set_disk(monkeypatch: pytest.MonkeyPatch, free: int, total: int) -> None:
    monkeypatch.setattr(file_system, "measure_disk", lambda folder: (free, total))


def test_what_fits_beside_the_reserve_may_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _set_disk(monkeypatch, 5 * _GB, 100 * _GB)
    check_free_space(tmp_path, 3 * _GB, "the video")
    with pytest.raises(StorageFull) as caught:
        check_free_space(tmp_path, 4.5 * _GB, "the video")
    expected = "There is no room for the video: 4.5 GB are needed, and 3.9 GB of the disk may be used"
    assert str(caught.value) == expected


def test_the_reserve_of_a_small_disk_is_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _set_disk(monkeypatch, 40_000_000, 50_000_000)
    check_free_space(tmp_path, 37_000_000, "the video")
    with pytest.raises(StorageFull, match="38 MB are needed, and 38 MB"):
        check_free_space(tmp_path, 38_000_000, "the video")


def test_a_full_disk_has_room_for_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _set_disk(monkeypatch, 0, 50_000_000)
    with pytest.raises(StorageFull, match="1 bytes are needed, and 0 bytes"):
        check_free_space(tmp_path, 1, "the video")


def test_the_disk_of_a_folder_that_is_still_to_come_is_measured(tmp_path: Path) -> None:
    free, total = file_system.measure_disk(tmp_path / "a" / "b")
    assert 0 < free < total


def test_a_disk_that_does_not_say_is_written_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(folder: Path) -> tuple[int, int]:
        raise OSError("unknown")

    monkeypatch.setattr(file_system, "measure_disk", fail)
    check_free_space(tmp_path, 10**18, "the video")
