from functools import cache

import pytest

from app.ai.local.embeddings import SentenceEmbedder, load_embedder
from app.ai.local.titles import find_title_candidates, guess_language, make_titles, title_case
from tests.ai.local.talks import TOPICS, split_text


@cache
def vectors() -> SentenceEmbedder:
    return load_embedder()


def title(*texts: str) -> list[str]:
    return make_titles([split_text(text) for text in texts], [62.0] * len(texts), vectors(), lambda: None)


def test_titles_say_what_the_moments_are_about_in_three_to_ten_words() -> None:
    titles = title(*(TOPICS[topic] for topic in ("salary", "bread", "mars", "bees", "money", "running")))
    for word, made in zip(("Raise", "Bread", "Mars", "Bee", "Money", "Marathon"), titles, strict=True):
        assert word in made
        assert 3 <= len(made.split()) <= 10


def test_titles_are_never_alike() -> None:
    titles = title(*[TOPICS["bread"]] * 4)
    assert len(set(titles)) == 4


@pytest.mark.parametrize("text", ["", "Okay.", "Yeah yeah. Okay. Um. Well.", "... ?! --"])
def test_a_moment_that_says_nothing_is_called_by_its_time(text: str) -> None:
    assert make_titles([[text]], [62.0], vectors(), lambda: None) == ["Moment at 1:02"]


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        (["Okay.", "Nobody knew. Nobody asked."], "Nobody Knew Nobody Asked"),
        (["Stop!", "Look.", "Listen."], "Stop Look Listen"),
        (
            ["And then one two three four five six seven eight nine ten eleven."],
            "One Two Three Four Five Six Seven Eight Nine Ten",
        ),
    ],
)
def test_a_moment_without_a_phrase_is_called_by_its_first_words(sentences: list[str], expected: str) -> None:
    (made,) = make_titles([sentences], [62.0], vectors(), lambda: None)
    assert made == expected


def test_the_time_of_a_late_moment_has_hours() -> None:
    assert make_titles([["Okay."]], [3723.9], vectors(), lambda: None) == ["Moment at 1:02:03"]


def test_moments_without_words_have_titles_that_differ() -> None:
    assert make_titles([[], []], [5.0, 70.0], vectors(), lambda: None) == ["Moment at 0:05", "Moment at 1:10"]


def test_a_phrase_neither_begins_nor_ends_with_a_filler() -> None:
    found = find_title_candidates(
        ["Okay, so you know the big red house is actually very,"], dict.fromkeys(("red", "house"), 1.0)
    )
    assert "the big red house" in found
    assert not any(phrase.lower().startswith(("okay", "so ", "is ")) or phrase.endswith("very") for phrase in found)


def test_titles_are_capitalised_and_keep_capitals() -> None:
    assert title_case(["how", "NASA", "put", "an", "iPhone", "on"]) == "How NASA Put an iPhone On"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("This is what we have been waiting for all the time", "en"),
        ("Das ist es, worauf wir die ganze Zeit gewartet haben und nicht mehr", "de"),
        ("C'est ce que nous avons attendu pendant tout le temps dans la maison", "fr"),
        ("Esto es lo que hemos estado esperando todo el tiempo para la casa", "es"),
    ],
)
def test_the_language_is_guessed_by_its_stop_words(text: str, language: str) -> None:
    assert guess_language(text) == language
