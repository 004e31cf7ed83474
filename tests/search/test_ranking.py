"""How words weigh, and which passages are worth ranking."""

import pytest

from app.search.ranking import RankedWord, choose_matches, compute_weight, fuse_ranks


def test_rare_words_weigh_more() -> None:
    weights = [compute_weight(RankedWord(("w",), documents), 10_000) for documents in (0, 1, 10, 1000, 10_000, 20_000)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == weights[1] > 5
    assert 0 < weights[-1] < 0.001


@pytest.mark.parametrize(
    ("documents", "matches"),
    [
        ([5], ["'a'"]),
        ([100_000], ["'a'"]),
        ([5, 100, 1000], ["'a'", "'b'", "'c'"]),
        ([90_000, 5, 1000], ["(('b') | ('c')) & ('a')", "'b'", "'c'"]),
        ([50_000, 40_000, 5], ["(('c')) & ('a')", "(('c')) & ('b')", "'c'"]),
        (
            [500, 8000, 9000],
            ["'a'", "(('a') | (('b') & ('c'))) & ('b')", "(('a') | (('b') & ('c'))) & ('c')"],
        ),
        ([8000, 1000], ["(('b')) & ('a')", "'b'"]),
    ],
)
def test_passages_are_ranked_that_have_a_rare_word_or_several_others(documents: list[int], matches: list[str]) -> None:
    words = [(RankedWord((name,), count), 1.0) for name, count in zip("abcd", documents, strict=False)]
    assert [query for query, _ in choose_matches(words, 100_000)] == matches


def test_what_two_lists_rank_high_comes_before_what_one_of_them_does() -> None:
    assert list(fuse_ranks([[1, 2, 3], [4, 2, 5]])) == [2, 1, 4, 3, 5]
