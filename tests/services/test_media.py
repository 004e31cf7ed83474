"""The index of extracted audio, with a storage that answers, is slow, or fails."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import StorageUnavailable
from app.services import media
from app.services.media import ExtractedAudioIndex
from app.storage import Storage, audio_folder_key, open_storage


class WatchedStorage(Storage):
    """A storage that counts its listings, and may be made to fail or to be slow."""

    def __init__(self, storage: Storage) -> None:
        self.__dict__.update(storage.__dict__)
        self.listings = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def list_names(self, folder: str) -> set[str]:
        self.listings += 1
        await self.answers.wait()
        if self.error:
            raise self.error
        return await super().list_names(folder)


@pytest.fixture
def storage(tmp_path: Path) -> WatchedStorage:
    settings = Settings(
        storage_url=(tmp_path / "media").as_uri(), library_dirs=(tmp_path / "library",), data_dir=tmp_path / "data"
    )
    return WatchedStorage(open_storage(settings))


@pytest.fixture
def age(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make whatever is known too old from now on."""
    return lambda: monkeypatch.setattr(media, "_FRESH_SECONDS", -1.0)


def extract(folder: Path, identifier: str) -> None:
    path = folder / "media" / audio_folder_key(identifier) / "sound.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF")


@pytest.mark.parametrize("identifier", ["talk", "My Talk", "What? #1 – ü", "TALK"])
async def test_audio_in_storage_is_listed_by_its_video(storage: Storage, tmp_path: Path, identifier: str) -> None:
    extract(tmp_path, identifier)
    known = await ExtractedAudioIndex(storage).get_videos_with_audio()
    assert identifier in known
    assert "another" not in known


async def test_only_audio_files_count_in_a_library(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "library" / "audios"
    (folder / "folder.wav").mkdir(parents=True)
    for name in ("talk.wav", "half.wav.tmp", "picture.jpg"):
        (folder / name).write_bytes(b"RIFF")
    known = await ExtractedAudioIndex(storage).get_videos_with_audio()
    assert [name for name in ("talk", "folder", "half", "half.wav", "picture") if name in known] == ["talk"]


async def test_a_library_without_audio_and_a_missing_library_have_none(storage: Storage) -> None:
    assert "talk" not in await ExtractedAudioIndex(storage).get_videos_with_audio()


async def test_requests_within_a_second_share_a_listing(storage: WatchedStorage) -> None:
    index = ExtractedAudioIndex(storage)
    await asyncio.gather(*(index.get_videos_with_audio() for _ in range(40)))
    await index.get_videos_with_audio()
    assert storage.listings == 1


async def test_new_audio_is_found_when_the_listing_has_expired(
    storage: WatchedStorage, tmp_path: Path, age: Callable[[], None]
) -> None:
    age()
    index = ExtractedAudioIndex(storage)
    assert "talk" not in await index.get_videos_with_audio()
    extract(tmp_path, "talk")
    assert "talk" in await index.get_videos_with_audio()


async def test_a_failing_storage_keeps_the_last_listing(
    storage: WatchedStorage, tmp_path: Path, age: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    age()
    extract(tmp_path, "talk")
    index = ExtractedAudioIndex(storage)
    await index.get_videos_with_audio()
    storage.error = StorageUnavailable("The bucket is away")
    with caplog.at_level(logging.WARNING):
        assert "talk" in await index.get_videos_with_audio()
    assert "The bucket is away" in caplog.text


async def test_a_storage_that_fails_from_the_start_lists_no_audio_until_it_answers(
    storage: WatchedStorage, tmp_path: Path, age: Callable[[], None]
) -> None:
    age()
    extract(tmp_path, "talk")
    storage.error = StorageUnavailable("The bucket is away")
    index = ExtractedAudioIndex(storage)
    assert "talk" not in await index.get_videos_with_audio()
    storage.error = None
    assert "talk" in await index.get_videos_with_audio()


async def test_a_slow_storage_is_waited_for_once_and_used_when_it_answers(
    storage: WatchedStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(media, "_LISTING_TIMEOUT", 0.1)
    storage.answers.clear()
    extract(tmp_path, "talk")
    index = ExtractedAudioIndex(storage)
    with caplog.at_level(logging.WARNING):
        assert "talk" not in await index.get_videos_with_audio()
    assert "in time" in caplog.text
    monkeypatch.setattr(media, "_LISTING_TIMEOUT", 3600.0)
    async with asyncio.timeout(60):
        for _ in range(40):
            await index.get_videos_with_audio()
    assert storage.listings == 1
    storage.answers.set()
    async with asyncio.timeout(60):
        while "talk" not in await index.get_videos_with_audio():  # noqa: ASYNC110  no event is set
            await asyncio.sleep(0.01)


async def test_only_unknown_audio_invalidates_the_listing(
    storage: WatchedStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_FRESH_SECONDS", 3600.0)
    index = ExtractedAudioIndex(storage)
    await index.get_videos_with_audio()
    extract(tmp_path, "talk")
    for _ in range(5):
        index.mark_outdated("talk")
        assert "talk" in await index.get_videos_with_audio()
    assert storage.listings == 2


async def test_a_listing_that_started_before_an_invalidation_is_repeated(
    storage: WatchedStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "_LISTING_TIMEOUT", 60.0)
    storage.answers.clear()
    index = ExtractedAudioIndex(storage)
    asked = asyncio.ensure_future(index.get_videos_with_audio())
    while not storage.listings:  # noqa: ASYNC110 (no event is set)
        await asyncio.sleep(0.01)
    index.mark_outdated("talk")
    storage.answers.set()
    await asked
    assert storage.listings == 2
