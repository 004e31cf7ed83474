"""Which file name extension is of which media type."""

# What a video may be called, in the order in which the previous backend looked for one.
VIDEO_EXTENSIONS = (".mp4", ".webm", ".mov", ".avi", ".mkv", ".ogg")
AUDIO_EXTENSIONS = (".m4a", ".mp3", ".wav", ".flac", ".opus", ".oga", ".aac", ".aiff", ".wma")
# Every name that a file of the library may have: of two that share a stem, the first kind is the video.
MEDIA_EXTENSIONS = (
    *VIDEO_EXTENSIONS,
    *(".m4v", ".ogv", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".mxf", ".gif"),
    *AUDIO_EXTENSIONS,
)

UNKNOWN_TYPE = "application/octet-stream"

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
    "mpeg": "video/mpeg",
    "ts": "video/mp2t",
    "flv": "video/x-flv",
    "wmv": "video/x-ms-wmv",
    "3gp": "video/3gpp",
    "mxf": "application/mxf",
    "gif": "image/gif",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "oga": "audio/ogg",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "wma": "audio/x-ms-wma",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
}


def guess_media_type(file_name: str) -> str:
    return _TYPES.get(file_name.rpartition(".")[2].lower(), UNKNOWN_TYPE)
