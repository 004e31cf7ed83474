"""Speech, made by eSpeak NG on any machine, and how much of it was understood."""

import ctypes
import io
import re
import subprocess
import sys
from collections.abc import Sequence

import espeakng_loader
import jiwer
import numpy as np
from numpy.typing import NDArray

Sound = NDArray[np.int16]

_WORDS_PER_MINUTE = 150
_RETRIEVAL, _RATE, _UTF8 = 1, 1, 1  # AUDIO_OUTPUT_RETRIEVAL, espeakRATE and espeakCHARS_UTF8 of speak_lib.h
_NO_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: an error is a return value
_SILENCE = 100  # of 32767: what is left around a sentence is less
_Receive = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(text: str) -> tuple[Sound, int]:
    """Return what `text` sounds like, with no silence around it, and the samples per second."""
    audios, rate = speak_all([text])
    return audios[0], rate


def speak_all(texts: Sequence[str]) -> tuple[list[Sound], int]:
    """Return what each text sounds like and the samples per second; the same for the same texts.

    A process of its own speaks: eSpeak NG says a sentence in another way each time that it is asked again.
    """
    program = [sys.executable, __file__, *texts]
    spoken = io.BytesIO(subprocess.run(program, stdout=subprocess.PIPE, check=True, timeout=120).stdout)
    rate, *audios = (np.load(spoken) for _ in range(len(texts) + 1))
    return audios, int(rate)


def word_error_rate(said: str, heard: str) -> float:
    """Return which part of the words of `said` were heard wrongly, whatever their case and the punctuation."""
    return jiwer.wer(_plain(said), _plain(heard))


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())


class _Speaker:
    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(_RETRIEVAL, 0, data, _NO_EXIT)
        assert self.rate > 0
        self._pieces: list[Sound] = []
        self._receive = _Receive(self._keep)
        self._library.espeak_SetSynthCallback(self._receive)
        assert self._library.espeak_SetVoiceByName(b"en-us") == 0
        self._library.espeak_SetParameter(_RATE, _WORDS_PER_MINUTE, 0)

    def speak(self, text: str) -> Sound:
        self._pieces.clear()
        data = text.encode()
        assert self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None) == 0
        self._library.espeak_Synchronize()
        audio = np.concatenate(self._pieces)
        heard = np.flatnonzero(np.abs(audio.astype(np.int32)) > _SILENCE)
        return audio[heard[0] : heard[-1] + 1]

    def _keep(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: int | None) -> int:
        if samples and count:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).astype(np.int16))
        return 0


if __name__ == "__main__":
    speaker = _Speaker()
    np.save(sys.stdout.buffer, np.int64(speaker.rate))
    for each in sys.argv[1:]:
        np.save(sys.stdout.buffer, speaker.speak(each))
