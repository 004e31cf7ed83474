"""The decoders that may be used: those of codecs that recordings have, and none of the hundreds of others.

FFmpeg has a decoder for every format that a game or a subtitle was ever stored in, and few people look for faults in
those. The names are FFmpeg's; of builds that have several decoders of a codec, all are named.
"""

from av.audio.stream import AudioStream
from av.video.stream import VideoStream

_VIDEO = (
    # what cameras, phones, browsers and broadcasters write
    "h264 hevc vvc libdav1d av1 libaom-av1 libgav1 vp8 vp9 libvpx libvpx-vp9 mpeg1video mpeg2video mpegvideo mpeg4 "
    "h261 h263 h263i h263p theora vp3 vp4 vp5 vp6 vp6a vp6f vp7 flv wmv1 wmv2 wmv3 vc1 mss1 mss2 msmpeg4v1 msmpeg4v2 "
    "msmpeg4 dvvideo mjpeg mjpegb gif png apng rv10 rv20 rv30 rv40 rv60 dirac svq1 svq3 cinepak indeo2 indeo3 indeo4 "
    "indeo5 msvideo1 msrle rpza smc 8bps qtrle fraps flashsv flashsv2 zmbv tscc2 camtasia camstudio "
    "screenpresso asv1 asv2 truemotion1 truemotion2 zlib mszh "
    # what is edited and archived
    "prores prores_raw dnxhd cfhd jpeg2000 libopenjpeg ffv1 huffyuv ffvhuff utvideo magicyuv lagarith hap dxv aic "
    "pixlet speedhq notchlc apv rawvideo v210 v210x v308 v408 v410 r210 r10k y41p yuv4 cyuv cljr avui avrp media100"
)
_AUDIO = (
    "aac aac_latm aac_fixed libfdk_aac mp3 mp3float mp3adu mp3adufloat mp3on4 mp3on4float mp2 mp2float mp1 mp1float "
    "opus libopus vorbis libvorbis flac alac ac3 ac3_fixed eac3 dca truehd mlp wavpack tta ape als dolby_e s302m "
    "wmav1 wmav2 wmapro wmalossless wmavoice speex libspeex amrnb amrwb libopencore_amrnb libopencore_amrwb gsm gsm_ms "
    "libgsm libgsm_ms ilbc libilbc g722 g723_1 g726 g726le g729 qcelp evrc qdm2 qdmc mace3 mace6 nellymoser truespeech "
    "cook sipr real_144 real_288 ralf atrac3 atrac3plus dvaudio "
    "adpcm_ms adpcm_ima_wav adpcm_ima_qt adpcm_swf adpcm_yamaha "
    "pcm_alaw pcm_mulaw pcm_bluray pcm_dvd pcm_vidc pcm_s8 pcm_u8 pcm_s8_planar "
    "pcm_s16le pcm_s16be pcm_s16le_planar pcm_s16be_planar pcm_u16le pcm_u16be pcm_s24le pcm_s24be pcm_s24le_planar "
    "pcm_u24le pcm_u24be pcm_s32le pcm_s32be pcm_s32le_planar pcm_u32le pcm_u32be pcm_s64le pcm_s64be "
    "pcm_f16le pcm_f24le pcm_f32le pcm_f32be pcm_f64le pcm_f64be"
)
_ALLOWED = frozenset(f"{_VIDEO} {_AUDIO}".split())
DECODERS = ",".join(sorted(_ALLOWED))  # as FFmpeg's option takes them


def can_decode(stream: VideoStream | AudioStream) -> bool:
    """Whether there is a decoder for a stream that may be used."""
    return stream.codec_context is not None and stream.codec_context.codec.name in _ALLOWED
