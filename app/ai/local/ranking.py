"""How strong a moment is: whether its opening is a hook, whether it is what was asked for, and how it is spoken."""

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.ai.local.threads import Control
from app.ai.local.topics import Part
from app.ai.local.units import Unit
from app.ai.local.vectors import Array

Floats = NDArray[np.float64]

HOOKS = (
    "Here is the secret that nobody tells you.",
    "This is the biggest mistake that most people make.",
    "Let me tell you a story that changed my life.",
    "What would you do if you could not fail?",
    "The most important thing I have ever learned is this.",
    "Nobody expected what happened next.",
    "Here is why you have been doing it wrong.",
    "This will surprise you.",
    "I was completely wrong about this.",
    "The truth is that it is possible for everyone.",
    "How can you do this in three simple steps?",
    "Imagine a world in which everything is different.",
)

_HOOK, _PROMPT, _UNITY, _SPEECH, _ENERGY, _CUTS = 0.5, 1.0, 0.3, 0.3, 0.1, 0.05  # how much each counts
_OPENING_SENTENCES, _NEAREST_HOOKS = 2, 3
_LIVELY_DECIBELS = 6.0  # above the talk's own loudness: no moment counts as livelier
_BUSY_CUTS = 0.2  # in a second: no picture counts as busier
_SILENT_DECIBELS = -100.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a talk says for its moments; `loudness` has decibels for each second, and `prompt` may be None."""

    units: Sequence[Unit]
    vectors: Array
    hooks: Array
    prompt: Array | None
    loudness: Floats
    scene_cuts: Sequence[float]


def rate_moment(part: Part, evidence: Evidence) -> float:
    """Return how strong a moment is; only the order of such numbers means something."""
    units, vectors = evidence.units[part.first : part.last], evidence.vectors[part.first : part.last]
    start, end = units[0].start, units[-1].end
    length = max(end - start, 0.01)
    hooks = np.sort(vectors[:_OPENING_SENTENCES] @ evidence.hooks.T, axis=1)[:, -_NEAREST_HOOKS:].mean(axis=1)
    asked = (vectors @ evidence.prompt).max() if evidence.prompt is not None else 0.0
    cuts = sum(start < cut < end for cut in evidence.scene_cuts)
    return float(
        _HOOK * hooks.max()
        + _PROMPT * asked
        + _UNITY * np.linalg.norm(vectors.mean(axis=0))
        + _SPEECH * sum(unit.spoken_seconds for unit in units) / length
        + _ENERGY * _liveliness(evidence.loudness, start, end)
        + _CUTS * min(cuts / length / _BUSY_CUTS, 1.0)
    )


def measure_loudness(path: Path | None, control: Control) -> Floats:
    """Return the loudness of each second of a WAV file with 16 bits in decibels; nothing where it cannot be read."""
    loudness: list[float] = []
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                return np.empty(0)
            while data := file.readframes(file.getframerate()):
                control.check()
                power = float(np.mean(np.square(np.frombuffer(data, "<i2").astype(np.float32) / 32768)))
                loudness.append(10 * np.log10(power) if power > 0 else _SILENT_DECIBELS)
    except (OSError, EOFError, wave.Error):
        return np.empty(0)
    return np.maximum(loudness, _SILENT_DECIBELS)


def _liveliness(loudness: Floats, start: float, end: float) -> float:
    """Return from -1 to 1 how much louder than the talk a moment is."""
    inside = loudness[int(start) : max(int(end), int(start) + 1)]
    if not len(inside):
        return 0.0
    return float(np.clip((np.median(inside) - np.median(loudness)) / _LIVELY_DECIBELS, -1.0, 1.0))
