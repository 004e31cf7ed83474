"""Where media lives: files and Google Cloud Storage behind one protocol."""

from app.storage.audio import find_audio_file
from app.storage.folders import path_of
from app.storage.free_space import check_free_space
from app.storage.incoming import Receiver
from app.storage.keys import audio_folder, clip_folder, name_of, playable_folder, thumbnail_folder, video_folder
from app.storage.protocol import Home, Link, OpenFile, Progress, StoredFile
from app.storage.storage import Storage, open_storage

__all__ = [
    "Home",
    "Link",
    "OpenFile",
    "Progress",
    "Receiver",
    "Storage",
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
