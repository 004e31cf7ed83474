"""Sentence embeddings: all-MiniLM-L6-v2 (BERT with six layers, arXiv:1810.04805), computed with numpy."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.ai.local.model_files import MINILM, make_model_missing_error, read_model_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FloatArray = NDArray[np.float32]

EMBEDDING_SIZE = 384

_LAYERS, _HEADS = 6, 12
_MAX_TOKENS = 256  # as trained
_BATCH_TOKENS = 1024
_EPSILON = 1e-12  # `layer_norm_eps` of its config.json
_MASKED_SCORE = np.float32(-1e9)  # attention score of padding


class SentenceEmbedder:
    """Computes unit vectors; the dot product of two is the cosine similarity of their sentences."""

    def __init__(self, tokenizer: "Tokenizer", tensors: Mapping[str, FloatArray]) -> None:
        self._tokenizer = tokenizer
        self._tensors = tensors

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

    def _embed_token_batch(self, token_ids: Sequence[Sequence[int]]) -> FloatArray:
        ids, mask = _pad_token_ids(token_ids)
        hidden = self._embed_tokens(ids)
        bias = np.where(mask, np.float32(0), _MASKED_SCORE)[:, None, None, :]
        for layer in range(_LAYERS):
            hidden = self._apply_encoder_layer(hidden, bias, f"encoder.layer.{layer}.")
        return _l2_normalise(
            (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True, dtype=np.float32)
        )

    def _embed_tokens(self, ids: NDArray[np.int64]) -> FloatArray:
        tensor = self._tensors
        words = tensor["embeddings.word_embeddings.weight"][ids]
        positions = tensor["embeddings.position_embeddings.weight"][: ids.shape[1]]
        return self._layer_norm(words + positions + tensor["embeddings.token_type_embeddings.weight"][0], "embeddings.")

    def _apply_encoder_layer(self, hidden: FloatArray, bias: FloatArray, prefix: str) -> FloatArray:
        attention = self._linear(
            self._self_attention(hidden, bias, prefix + "attention.self."),
            prefix + "attention.output.dense.",
        )
        hidden = self._layer_norm(hidden + attention, prefix + "attention.output.")
        inner = _gelu(self._linear(hidden, prefix + "intermediate.dense."))
        return self._layer_norm(hidden + self._linear(inner, prefix + "output.dense."), prefix + "output.")

    def _self_attention(self, hidden: FloatArray, bias: FloatArray, prefix: str) -> FloatArray:
        count, length, size = hidden.shape
        query, key, value = (
            self._linear(hidden, f"{prefix}{part}.").reshape(count, length, _HEADS, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) * np.float32((size / _HEADS) ** -0.5) + bias
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        attention: FloatArray = (weights @ value).transpose(0, 2, 1, 3).reshape(count, length, size)
        return attention

    def _linear(self, hidden: FloatArray, prefix: str) -> FloatArray:
        product: FloatArray = hidden @ self._tensors[prefix + "weight"].T + self._tensors[prefix + "bias"]
        return product

    def _layer_norm(self, hidden: FloatArray, prefix: str) -> FloatArray:
        centred = hidden - hidden.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        normal: FloatArray = centred / spread * self._tensors[prefix + "LayerNorm.weight"]
        return normal + self._tensors[prefix + "LayerNorm.bias"]


def load_embedder() -> SentenceEmbedder:
    """Load the model. Raises `ModelMissing`."""
    try:
        from safetensors.numpy import load
        from threadpoolctl import threadpool_limits
        from tokenizers import Tokenizer
    except ImportError:
        raise make_model_missing_error(MINILM.name) from None
    files = read_model_files(MINILM)
    tokenizer = Tokenizer.from_buffer(files.others["tokenizer.json"])
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MAX_TOKENS)
    threadpool_limits(
        1, user_api="blas"
    )  # for good: small matrices gain little from threads, and other jobs need the cores
    return SentenceEmbedder(tokenizer, load(files.weights))


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


def _pad_token_ids(token_ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    longest = max(map(len, token_ids))
    ids = np.array([[*each, *[0] * (longest - len(each))] for each in token_ids], np.int64)
    mask = np.arange(longest) < np.array([len(each) for each in token_ids])[:, None]
    return ids, mask


def _l2_normalise(vectors: FloatArray) -> FloatArray:
    normal: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(_EPSILON))
    return normal


def _gelu(x: FloatArray) -> FloatArray:
    """Compute GELU with the error function of Abramowitz and Stegun, 7.1.26 (error below 1.5e-7)."""
    z = np.abs(x) * np.float32(2**-0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.full_like(t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(factor)
    error: FloatArray = np.copysign(1 - series * t * np.exp(-z * z), x)
    return x * np.float32(0.5) * (1 + error)
