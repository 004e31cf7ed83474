"""Where media lives: files and Google Cloud Storage behind one protocol."""

from app.storage.file_system import check_free_space, path_of
from app.storage.incoming import IncomingFile
from app.storage.keys import audio_folder, clip_folder, name_of, playable_folder, thumbnail_folder, video_folder
from app.storage.protocols import Link, OpenFile, ProgressCallback, Store, StoredFile
from app.storage.storage import Storage, find_audio_file, open_storage

__all__ = [
    "IncomingFile",
    "Link",
    "OpenFile",
    "ProgressCallback",
    "Storage",
    "Store",
    "StoredFile",
    "audio_folder",
    "check_free_space",
    "clip_folder",
    "find_audio_file",
    "name_of",
    "open_storage",
    "path_of",
    "playable_folder",
    "thumbnail_folder",
    "video_folder",
]
