import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.ai.protocols import Segment, Word
from app.ai.sentences import interpolate_word_times, join_subwords, join_words, make_caption_segments, split_sentences
from tests.ai.local.talks import speak_words


def split(text: str) -> list[str]:
    return [join_words(sentence) for sentence in split_sentences(speak_words(text, 0), 60)]


def test_sentences_end_where_the_punctuation_says() -> None:
    assert split('One. Two? Three! "Four." Five…') == ["One.", "Two?", "Three!", '"Four."', "Five…"]


@pytest.mark.parametrize("text", ["Mr. Smith met Dr. Jones.", "The U.S. has 3.5 of them.", "J. Smith came."])
def test_an_abbreviation_ends_no_sentence(text: str) -> None:
    assert split(text) == [text]


def test_a_long_pause_ends_a_sentence() -> None:
    words = [*speak_words("no full stop here", 0), *speak_words("and none here", 10)]
    assert [join_words(sentence) for sentence in split_sentences(words, 60)] == ["no full stop here", "and none here"]


def test_a_long_sentence_is_broken_at_a_comma_or_before_a_clause() -> None:
    words = speak_words("We walked for hours through the rain, because the last bus had left without us.", 0)
    assert [join_words(part) for part in split_sentences(words, 60, 60)] == [
        "We walked for hours through the rain,",
        "because the last bus had left without us.",
    ]


def test_scripts_without_spaces_are_joined_without_them() -> None:
    assert join_words(speak_words("你 好 世 界 hello there", 0)) == "你好世界 hello there"


def test_subwords_without_a_space_before_them_are_one_word() -> None:
    pieces = [
        Word(text, at, at + 1) for at, text in enumerate([" sold", " 6", ",000", " ", " bug", "-free", "你", "好"])
    ]
    joined = join_subwords(pieces)
    assert [word.word for word in joined] == ["sold", "6,000", "bug-free", "你", "好"]
    assert (joined[1].start, joined[1].end) == (1, 3)


def test_segments_without_word_times_are_spread_over_theirs() -> None:
    words = list(
        interpolate_word_times(
            [Segment("Hello little world", 2.0, 4.0), Segment("", 4.0, 5.0), Segment("Bye", 5.0, 5.0)]
        )
    )
    assert [word.word for word in words] == ["Hello", "little", "world", "Bye"]
    assert words[0].start == 2.0
    assert words[2].end == pytest.approx(4.0)
    assert words[3] == Word("Bye", 5.0, 5.0)


@given(
    st.lists(
        st.tuples(st.text("abcde.,", min_size=1, max_size=12), st.floats(0, 3, width=16), st.floats(0, 2, width=16)),
        max_size=60,
    )
)
def test_captions_say_every_word_once_and_are_short(spoken: list[tuple[str, float, float]]) -> None:
    words, at = [], 0.0
    for text, pause, length in spoken:
        words.append(Word(text, at + pause, at + pause + length))
        at += pause + length
    captions = make_caption_segments(words)
    assert " ".join(caption.text for caption in captions) == join_words(words)
    for caption in captions:
        alone = " " not in caption.text
        assert alone or caption.end - caption.start <= 7.0
        assert alone or len(caption.text) <= 84


def test_a_long_transcript_without_punctuation_is_divided_at_once() -> None:
    words = speak_words("word " * 20_000, 0)
    assert max(len(part) for part in split_sentences(words, 20)) < 70
