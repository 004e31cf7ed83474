"""Sentence embeddings, held against the published model's."""

from functools import cache

import numpy as np
import pytest

from app.ai.local.embeddings import EMBEDDING_SIZE, LocalEmbedder, SentenceEmbedder, load_embedder


@cache
def vectors() -> SentenceEmbedder:
    return load_embedder()


def test_sentences_are_as_near_as_the_model_card_says() -> None:
    sentences = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    first, *others = vectors().encode(sentences)
    assert [float(first @ other) for other in others] == pytest.approx([0.6945773, 0.9429150, 0.2568760], abs=1e-4)


def test_a_vector_does_not_depend_on_the_others_that_are_made_with_it() -> None:
    sentences = [
        "One.",
        "A much longer sentence that says a lot about nothing in particular.",
        "Two words.",
        "x " * 400,
    ]
    together = vectors().encode(sentences)
    alone = np.concatenate([vectors().encode([sentence]) for sentence in sentences])
    assert np.allclose(together, alone, atol=1e-5)


def test_every_text_has_a_vector_of_length_one() -> None:
    made = vectors().encode(["", "\U0001f600 \x00 \u202e", "你好世界", "a" * 10_000])
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)


def test_no_texts_have_no_vectors() -> None:
    assert vectors().encode([]).shape == (0, EMBEDDING_SIZE)


def test_progress_is_reported() -> None:
    reports: list[float] = []
    vectors().encode(["This sentence is one of very many."] * 150, reports.append)
    assert reports == sorted(reports)
    assert len(reports) > 1
    assert 0 <= reports[0] < reports[-1] < 1


async def test_vectors_for_searches_are_nearly_those_of_the_published_model() -> None:
    texts = ["How to bake bread with a sourdough starter.", "Is there life on Mars?", "x", "今日はいい天気です。"] * 3
    embedder = LocalEmbedder()
    made = np.array(await embedder.embed(texts, at_once=4))
    embedder.close()
    assert made.shape == (12, EMBEDDING_SIZE)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    assert (made * vectors().encode(texts)).sum(axis=1).min() > 0.98
