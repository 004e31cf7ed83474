"""Names and titles in the form in which they are stored."""

import unicodedata

import pytest

from app.core.text import clean_line, escape_and_indent_lines, escape_controls, fold_letters, has_invisible_characters

FAMILY = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
PERSIAN = "می\N{ZERO WIDTH NON-JOINER}خواهم"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("evil\u202egpj.mp4", "evilgpj.mp4"),
        ("\u2066a\u2069 \u200eb\u200f \u061cc", "a b c"),
        ("a\u200bb\u2060c\ufeffd", "abcd"),
        ("pass\u200dword", "password"),
        ("one\r\ntwo\tthree\u2028four", "one two three four"),
        ("bell\x07 \x1b[31mred\x7f", "bell [31mred"),
        ("Cre\u0300me bru\u0302le\u0301e", "Crème brûlée"),
        (FAMILY, FAMILY),
        (PERSIAN, PERSIAN),
        ("plain – “text”", "plain – “text”"),
    ],
)
def test_a_name_is_one_line_of_characters_that_are_seen(text: str, clean: str) -> None:
    assert clean_line(text) == clean
    assert clean_line(clean) == clean
    assert has_invisible_characters(text) == (unicodedata.normalize("NFC", text) != clean)


def test_what_cannot_be_stored_is_left_to_be_refused() -> None:
    assert clean_line("a\0\ud800") == "a\0\ud800"


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Über-Café", "uber cafe"),
        ("Straße Łódź Ærø", "strasse lodz aero"),
        ("İstanbul \u0131\u015f\u0131k", "istanbul isik"),
        ("会議 2024", "会議 2024"),
        ("ガイド", "ガイド"),
        ("한국어", "한국어"),
        ("Привет, й", "привет й"),
        ("हिन्दी", "हिन्दी"),
        ("\uff26\uff35ll №1", "full no1"),
        ("C++ & C#", "c c"),
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_latin_letters_are_folded_and_those_of_other_scripts_kept(text: str, folded: str, form: str) -> None:
    assert " ".join(fold_letters(unicodedata.normalize(form, text)).split()) == folded  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ERROR: a\nFAKE \x1b[2J\u202e – ü 日", r"ERROR: a\nFAKE \x1b[2J\u202e – ü 日"),
        ("\x00\x07\t\r\x7f\x9b31m\u2028\u2066\udcff", r"\x00\x07\t\r\x7f\x9b31m\u2028\u2066\udcff"),
        (FAMILY, FAMILY),
        (PERSIAN, PERSIAN),
    ],
)
def test_control_characters_are_shown_by_their_escapes(text: str, shown: str) -> None:
    assert escape_controls(text) == escape_controls(shown) == shown


def test_lines_behind_the_first_are_indented() -> None:
    assert (
        escape_and_indent_lines("Error: a\r\n12:00:00 INFO forged\x85\x1b[2J")
        == "Error: a\\r\n  12:00:00 INFO forged\\x85\\x1b[2J"
    )
