"""Speech that nobody gave: words as frequent as in a real language, and the queries that find some of it."""

import random
from collections import Counter
from itertools import accumulate

# The commonest words of speech, half of what is said. PostgreSQL's English configuration drops most of them.
_COMMON = (
    "the and to of a I in that it you is was for on they we be this with have are but not at so what he as there if "
    "do or can all about just your like my out know up one get from had his time her when people go think then who "
    "them will would some me how could these see more by because really which want very their now here where has"
)
_ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sc sh sl sp st str t th tr v w"
_VOWELS = "a ai e ea ee i ie o oa oo ou u"
_CODAS = "b ck d ft g l ld ll lm m mp n nd ng nt p r rd rk rm rn rt s sh sk st t th x"
_VOCABULARY = 20_000
_QUERY_HITS = range(20, 51)


class Speech:
    """Draws words by Zipf's law and remembers which texts hold which."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  text, not keys
        self._words = [*_COMMON.split(), *self._invent(_VOCABULARY - len(_COMMON.split()))]
        self._weights = list(accumulate(1 / rank for rank in range(1, _VOCABULARY + 1)))
        self._texts_with: Counter[str] = Counter()

    def say(self, count: int) -> list[str]:
        """Return the `count` words of a new text."""
        words = self.random.choices(self._words, cum_weights=self._weights, k=count)
        self._texts_with.update(set(words))
        return words

    def title(self) -> str:
        return " ".join(self.random.sample(self._words, k=6)).capitalize()

    def queries(self, count: int) -> list[str]:
        """Return words that 20 to 50 texts hold."""
        rare = sorted(word for word, texts in self._texts_with.items() if texts in _QUERY_HITS)
        return self.random.sample(rare, k=min(count, len(rare)))

    def _invent(self, count: int) -> list[str]:
        onsets, vowels, codas = _ONSETS.split(), _VOWELS.split(), _CODAS.split()
        words: dict[str, None] = {}
        while len(words) < count:
            syllables = self.random.choice((1, 2, 2, 3))
            word = "".join(self.random.choice(onsets) + self.random.choice(vowels) for _ in range(syllables))
            words[word + self.random.choice(codas)] = None
        return list(words)
