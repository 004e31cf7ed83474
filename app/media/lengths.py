"""How long a recording may be: what a file of its size can hold, and what the setting of hours allows."""

from app.core.errors import StageFailed

MAX_HOURS = 12.0  # the default of the setting
# Codecs of radio links and codecs that store digital silence need 300 bit/s and more, and so does a picture that never
# changes. What is shorter than the first is believed: a recording may have been paused.
_ALWAYS_BELIEVED_SECONDS = 600.0
_LEAST_BYTES_PER_SECOND = 32
# Work on a file of any size, and on what each of its bytes is worth: a minute for 600 kB.
_WORK_SECONDS = 600.0
_WORK_BYTES_PER_SECOND = 10_000


def longest_seconds(size: int) -> float:
    """Return the most seconds that a file of `size` bytes is believed to last; time stamps can say anything."""
    return _ALWAYS_BELIEVED_SECONDS + size / _LEAST_BYTES_PER_SECOND


def work_seconds(size: int, most: float) -> float:
    """Return the seconds that work on a file of `size` bytes may take, at most `most`."""
    return min(_WORK_SECONDS + size / _WORK_BYTES_PER_SECOND, most)


def check_hours(seconds: float, max_hours: float) -> None:
    """Raise `StageFailed` for a video that is longer than the setting allows."""
    if seconds > max_hours * 3600:
        raise StageFailed(f"The video is longer than {max_hours:g} hours, the limit that MAX_VIDEO_HOURS sets")


def check_content(seconds: float, size: int) -> None:
    """Raise `StageFailed` for more seconds than a file of `size` bytes can hold."""
    if seconds > longest_seconds(size):
        raise StageFailed("The time stamps of the video are wrong: its file is too small to be as long as they say")
