"""Files of the local models: complete, missing, and changed ones."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from app.ai.local.model_files import (
    INSTALL_COMMAND,
    MINILM,
    WHISPER_BASE,
    WHISPER_TINY_EN,
    ModelPackage,
    read_model_files,
)
from app.core.errors import ModelMissing


def make_package(folder: Path, name: str, **files: bytes) -> None:
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('nobody may import this')")
    for file, data in files.items():
        (package / file).write_bytes(data)


def make_weights(*parts: tuple[str, str], data: bytes) -> ModelPackage:
    others = {"config": hashlib.sha256(b"{}").hexdigest()}
    return ModelPackage(
        "little", hashlib.sha256(data).hexdigest(), folder=(parts[0][0], ""), parts=parts, others=others
    )


@pytest.mark.parametrize("weights", [WHISPER_TINY_EN, WHISPER_BASE, MINILM], ids=lambda weights: weights.name)
def test_the_installed_weights_are_those_that_were_published(weights: ModelPackage) -> None:
    assert len(read_model_files(weights).weights) > 70_000_000


def test_weights_in_parts_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_package(tmp_path, "first_half", part1=b"one", config=b"{}")
    make_package(tmp_path, "second_half", part2=b"two")
    monkeypatch.syspath_prepend(tmp_path)
    read = read_model_files(make_weights(("first_half", "part1"), ("second_half", "part2"), data=b"onetwo"))
    assert read.weights == b"onetwo"
    assert read.others == {"config": b"{}"}


@pytest.mark.parametrize(
    ("package", "model", "config", "what"),
    [
        ("changed_weights", b"changed", b"{}", "file of weights"),
        ("changed_config", b"published", b'{"suppress_ids": []}', "config"),
    ],
)
def test_a_file_that_is_not_the_one_that_was_published_is_refused(
    package: str, model: bytes, config: bytes, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_package(tmp_path, package, model=model, config=config)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelMissing, match=f"The {what} of the local model little is not what was published"):
        read_model_files(make_weights((package, "model"), data=b"published"))


def test_a_model_that_is_not_installed_is_named_with_how_to_get_it() -> None:
    with pytest.raises(ModelMissing) as caught:
        read_model_files(make_weights(("no_such_package", "model"), data=b""))
    assert "little" in str(caught.value)
    assert INSTALL_COMMAND in str(caught.value)


def test_a_model_that_lacks_a_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_package(tmp_path, "half_a_model", model=b"whole")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelMissing, match="little is not installed"):
        read_model_files(make_weights(("half_a_model", "model"), data=b"whole"))


def test_a_server_without_the_models_starts() -> None:
    code = """
import sys
for name in ("faster_whisper", "ctranslate2", "tokenizers", "safetensors", "yake", "threadpoolctl", "onnxruntime"):
    sys.modules[name] = None  # importing it fails
from app.ai.local.finder import LocalMomentFinder
from app.ai.local.whisper import WhisperTranscriber
print(WhisperTranscriber("auto").service, LocalMomentFinder().model)
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "whisper-auto local (all-MiniLM-L6-v2)"
