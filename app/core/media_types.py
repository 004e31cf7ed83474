"""Which file name extension is of which media type."""

# What a video may be called, in the order in which the previous backend looked for one.
VIDEO_EXTENSIONS = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".ogg")

_TYPES = {
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "mov": "video/quicktime",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "ogg": "video/ogg",
    "ogv": "video/ogg",
    "mpg": "video/mpeg",
    "ts": "video/mp2t",
    "flv": "video/x-flv",
    "wmv": "video/x-ms-wmv",
    "wav": "audio/wav",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
}


def media_type_of(name: str) -> str:
    """Return what a file's name, path or URL says that the file is."""
    return _TYPES.get(name.rpartition(".")[2].lower(), "application/octet-stream")
