"""Where media lives: files and Google Cloud Storage behind one protocol."""

from app.storage.file_system import check_free_space, path_from_url
from app.storage.incoming import IncomingFile
from app.storage.keys import (
    audio_folder_key,
    clip_folder_key,
    playable_folder_key,
    storable_name,
    thumbnail_folder_key,
    video_folder_key,
)
from app.storage.protocols import OpenFile, ProgressCallback, SignedUrl, Store, StoredFile
from app.storage.storage import Storage, find_audio_file, open_storage

__all__ = [
    "IncomingFile",
    "OpenFile",
    "ProgressCallback",
    "SignedUrl",
    "Storage",
    "Store",
    "StoredFile",
    "audio_folder_key",
    "check_free_space",
    "clip_folder_key",
    "find_audio_file",
    "open_storage",
    "path_from_url",
    "playable_folder_key",
    "storable_name",
    "thumbnail_folder_key",
    "video_folder_key",
]
