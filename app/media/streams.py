"""The two streams of a media file that a player plays: one of video, one of audio, the same for every reader."""

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from app.media import opening
from app.media.decoders import DECODERS, can_decode

# Pictures that belong to a recording and are not the recording: covers, previews of chapters.
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
# Audio for some listeners only: descriptions of what is seen, comments of the makers.
_SPECIAL_AUDIO = Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.comment
# Codecs of single images. One of their streams beside another video stream is a cover.
_IMAGE_CODECS = frozenset({"mjpeg", "png", "apng", "bmp", "gif", "tiff", "webp", "jpegls", "jpeg2000", "ljpeg"})

_MAX_SAMPLES = "1000000"  # of one frame of audio, for each channel; no codec is known that has more than 150,000


def choose_video_stream(container: InputContainer) -> VideoStream | None:
    """Return the stream that is the video itself, ready to be decoded; None where there are none but still pictures.

    A stream that cannot be decoded, or by no decoder that may be used, is returned where there is no other.
    """
    candidates = [stream for stream in container.streams.video if not stream.disposition & _STILL]
    if not candidates:
        return None
    chosen = min(candidates, key=_video_rank)
    if chosen.codec_context is not None:
        chosen.codec_context.thread_count = 1
        chosen.codec_context.options = {"max_pixels": str(opening.MAX_PIXELS), "codec_whitelist": DECODERS}
    return chosen


def choose_audio_stream(container: InputContainer) -> AudioStream | None:
    """Return the audio that goes with the video, ready to be decoded; None where none can be decoded."""
    candidates = [stream for stream in container.streams.audio if can_decode(stream)]
    chosen = min(candidates, key=_audio_rank, default=None)
    if chosen is not None:
        chosen.codec_context.options = {"max_samples": _MAX_SAMPLES, "codec_whitelist": DECODERS}
    return chosen


def _video_rank(stream: VideoStream) -> tuple[bool, bool, bool, bool, int]:
    return (
        not can_decode(stream),
        stream.frames == 1,
        stream.codec_context is not None and stream.codec_context.codec.canonical_name in _IMAGE_CODECS,
        not stream.disposition & Disposition.default,
        stream.index,
    )


def _audio_rank(stream: AudioStream) -> tuple[bool, bool, bool, int]:
    return (
        not stream.codec_context.sample_rate,  # announced, and without a single packet
        bool(stream.disposition & _SPECIAL_AUDIO),
        not stream.disposition & Disposition.default,
        stream.index,
    )
