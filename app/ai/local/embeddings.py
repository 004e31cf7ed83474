"""Sentence embeddings: all-MiniLM-L6-v2 (BERT with six layers, arXiv:1810.04805), computed by CTranslate2."""

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.ai.local.model_files import MINILM, ModelFiles, make_model_missing_error, read_model_files
from app.ai.registry import LOCAL_MODEL_KEY
from app.core.thread_pool import ThreadPool

if TYPE_CHECKING:
    import ctranslate2
    from tokenizers import Tokenizer

FloatArray = NDArray[np.float32]

EMBEDDING_SIZE = 384

_LAYERS, _HEADS = 6, 12
_MAX_TOKENS = 256  # as trained
_BATCH_TOKENS = 1024
_EPSILON = 1e-12


class SentenceEmbedder:
    """Computes unit vectors; the dot product of two is the cosine similarity of their sentences."""

    def __init__(self, tokenizer: "Tokenizer", encoder: "ctranslate2.Encoder") -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder

    def encode(self, texts: Sequence[str], report: Callable[[float], None] | None = None) -> FloatArray:
        """Return embeddings of the shape (texts, 384); long texts are truncated to 256 tokens.

        `report` gets the completed share, 0 to 1.
        """
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        vectors = np.zeros((len(texts), EMBEDDING_SIZE), np.float32)
        done = 0
        for batch in _batch_by_token_count([len(each) for each in tokens]):
            if report:
                report(done / len(texts))
            done += len(batch)
            vectors[batch] = self._embed_token_batch([tokens[index] for index in batch])
        return vectors

    def _embed_token_batch(self, token_ids: Sequence[list[int]]) -> FloatArray:
        """Return the normalised means of the last hidden states of the tokens."""
        hidden = np.array(self._encoder.forward_batch(token_ids).last_hidden_state)
        counts = np.array([len(each) for each in token_ids])[:, None]
        mask = np.arange(hidden.shape[1]) < counts
        return _l2_normalise((hidden * mask[:, :, None]).sum(axis=1) / counts.astype(np.float32))


class LocalEmbedder:
    """Computes vectors for searching by meaning on this machine, in 8-bit numbers: twice as fast, nearly the same.

    The model is loaded on first use.
    """

    name = f"{LOCAL_MODEL_KEY}/{MINILM.name}"

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._threads = ThreadPool("embeddings", self._cores)
        self._loading = Lock()
        self._embedder: SentenceEmbedder | None = None

    async def embed(self, texts: Sequence[str], *, at_once: int = 1) -> list[list[float]]:
        """Return the vector of each text, in up to `at_once` threads."""
        count = max(1, min(at_once, self._cores, len(texts)))
        slices = [texts[first::count] for first in range(count)]
        vectors: list[list[float]] = [[] for _ in texts]
        for first, made in enumerate(await asyncio.gather(*(self._threads.run(self._encode, each) for each in slices))):
            vectors[first::count] = made
        return vectors

    def close(self) -> None:
        self._threads.close()

    def _encode(self, texts: Sequence[str]) -> list[list[float]]:
        with self._loading:
            if self._embedder is None:
                self._embedder = load_embedder(compute_type="int8", threads=self._cores)
        vectors: list[list[float]] = self._embedder.encode(texts).tolist()
        return vectors


def load_embedder(compute_type: str = "default", threads: int = 1) -> SentenceEmbedder:
    """Load the model, which up to `threads` threads can use at once. Raises `ModelMissing`."""
    try:
        import ctranslate2
        from tokenizers import Tokenizer
    except ImportError:
        raise make_model_missing_error(MINILM.name) from None
    files = read_model_files(MINILM)
    tokenizer = Tokenizer.from_buffer(files.others["tokenizer.json"])
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)
    with TemporaryDirectory() as folder:
        _make_model_spec(files).save(folder)
        saved = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    # One thread for each text: other jobs need the cores.
    encoder = ctranslate2.Encoder(
        MINILM.name, files=saved, compute_type=compute_type, inter_threads=threads, intra_threads=1
    )
    return SentenceEmbedder(tokenizer, encoder)


def _make_model_spec(files: ModelFiles) -> Any:
    """Return the published weights as a model of CTranslate2."""
    import ctranslate2.specs
    from safetensors.numpy import load

    common = ctranslate2.specs.common_spec
    spec = ctranslate2.specs.TransformerEncoderModelSpec(
        ctranslate2.specs.TransformerEncoderSpec(
            _LAYERS,
            _HEADS,
            pre_norm=False,
            activation=common.Activation.GELU,
            num_source_embeddings=2,  # of words and of token types
            embeddings_merge=common.EmbeddingsMerge.ADD,
            layernorm_embedding=True,
        )
    )
    tensors = load(files.weights)
    encoder = spec.encoder
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = tensors["embeddings.word_embeddings.weight"]
    encoder.embeddings[1].weight = tensors["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = tensors["embeddings.position_embeddings.weight"]
    _set_layer_norm(encoder.layernorm_embedding, tensors, "embeddings")
    for number, layer in enumerate(encoder.layer):
        _set_encoder_layer(layer, tensors, f"encoder.layer.{number}.")
    vocabulary = json.loads(files.others["tokenizer.json"])["model"]["vocab"]
    spec.register_vocabulary(sorted(vocabulary, key=vocabulary.__getitem__))
    spec.config.unk_token = "[UNK]"  # noqa: S105  no password
    spec.validate()
    spec.optimize()
    return spec


def _set_encoder_layer(layer: Any, tensors: Mapping[str, FloatArray], prefix: str) -> None:
    attention, output = layer.self_attention, prefix + "attention.output"
    names = [f"{prefix}attention.self.{name}" for name in ("query", "key", "value")]
    attention.linear[0].weight = np.concatenate([tensors[f"{name}.weight"] for name in names])
    attention.linear[0].bias = np.concatenate([tensors[f"{name}.bias"] for name in names])
    _set_linear(attention.linear[1], tensors, f"{output}.dense")
    _set_layer_norm(attention.layer_norm, tensors, output)
    _set_linear(layer.ffn.linear_0, tensors, f"{prefix}intermediate.dense")
    _set_linear(layer.ffn.linear_1, tensors, f"{prefix}output.dense")
    _set_layer_norm(layer.ffn.layer_norm, tensors, f"{prefix}output")


def _set_linear(linear: Any, tensors: Mapping[str, FloatArray], name: str) -> None:
    linear.weight, linear.bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def _set_layer_norm(layer_norm: Any, tensors: Mapping[str, FloatArray], name: str) -> None:
    layer_norm.gamma, layer_norm.beta = tensors[f"{name}.LayerNorm.weight"], tensors[f"{name}.LayerNorm.bias"]


def _batch_by_token_count(token_counts: Sequence[int]) -> list[list[int]]:
    """Group indices of texts with similar token counts, to keep padding small."""
    batches: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(token_counts)), key=token_counts.__getitem__, reverse=True):
        if not batches or longest * (len(batches[-1]) + 1) > _BATCH_TOKENS:
            batches.append([])
            longest = token_counts[index]
        batches[-1].append(index)
    return batches


def _l2_normalise(vectors: FloatArray) -> FloatArray:
    normal: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(_EPSILON))
    return normal
