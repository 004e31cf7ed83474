"""Talks about several topics, as words with the times at which they might be spoken."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from app.ai.protocols import Segment, Word

SECONDS_PER_LETTER = 0.065

TOPICS = {
    "bread": """Bread begins with flour, water, salt and yeast. Mix the flour with warm water until the dough comes
        together. Knead the dough on a wooden table for ten minutes. Let it rest in a warm kitchen until it has doubled
        in size. A hot oven gives the loaf a golden crust. Steam in the first minutes keeps the crust thin and crisp.
        Wait until the loaf is cool before you cut it. Fresh bread with butter is a simple pleasure.""",
    "mars": """The planet Mars is smaller than the Earth and much colder. Its thin air is made of carbon dioxide. Two
        small moons travel around the red planet. Scientists have sent robots to look for signs of water. Some engineers
        hope that people will walk on Mars one day. The journey through space would take about seven months. The crew
        would have to grow its own food up there. Radiation from the sun is the greatest danger of all.""",
    "football": """A good football team needs eleven players who trust each other. The coach decides which players start
        the match. The goalkeeper stops the ball with his hands. Strikers try to score goals in every game. After ninety
        minutes the referee blows the whistle. The fans sing songs in the stadium until the end. A draw away from home
        is often worth more than it looks. Training on Monday begins with the mistakes of Sunday.""",
    "salary": """The secret to negotiating a raise is preparation. Write down what you have achieved for the company
        this year. Find out what other people earn in the same position. Ask for a meeting with your manager when things
        are calm. Name a number first and then stay silent. If the answer is no, ask what would have to change. Never
        threaten to quit unless you mean it. Most employees never ask, and so they never get more money.""",
    "sleep": """Sleep is when the brain cleans itself. Adults need between seven and nine hours every night. The blue
        light of screens keeps you awake for longer. A cool dark bedroom helps you to fall asleep. Coffee in the
        afternoon is still in your blood at midnight. People who sleep badly forget more of what they have learned.
        A regular bedtime matters more than a soft pillow. Short naps are fine as long as they end before three.""",
    "bees": """A bee visits thousands of flowers in a single day. The hive is ruled by one queen who lays all the eggs.
        Worker bees dance to tell the others where nectar is. Honey keeps for years because it contains so little water.
        Pesticides have killed many colonies in the last twenty years. Without pollination there would be no apples and
        no almonds. A gardener can help by planting wild flowers. Beekeepers wear white because dark colours make the
        insects angry.""",
    "guitar": """To learn the guitar you need patience and a cheap instrument. Start with three chords and play them
        slowly. Your fingertips will hurt during the first weeks. A metronome teaches you to keep the rhythm. Most pop
        songs use only four chords anyway. Tune the strings before every practice. Play with other musicians as soon as
        you can. The best melody is the one that you can hum in the shower.""",
    "money": """Saving money starts with a budget. Put a tenth of your income away on the first day of the month. Pay
        back the loans with the highest interest first. An index fund spreads your risk over thousands of shares. Time
        in the market beats timing the market. Compound interest turns small amounts into a fortune. Keep enough cash
        for six months without work. Never buy a stock only because your neighbour did.""",
    "volcano": """Deep under a volcano the rock is so hot that it melts. Magma rises because it is lighter than the
        stone around it. When the pressure grows too high the mountain erupts. Lava flows slowly, but clouds of ash can
        bury a town in minutes. The eruption of Vesuvius destroyed Pompeii. Geologists measure earthquakes to warn the
        villages nearby. The soil around craters is rich and good for vineyards. Iceland heats its houses with the
        warmth from below.""",
    "parenting": """Children learn more from what parents do than from what they say. A toddler who screams is not
        giving you a hard time, he is having one. Read a story to your kids every evening. Let them make small mistakes
        while the price is low. Praise the effort and not the talent. Teenagers need to argue with somebody who will
        still love them. Family dinners without phones work wonders. One day they will leave home, and you will miss
        the noise.""",
    "software": """Every program has bugs, and tests find some of them. Write the test before you write the code. Small
        functions are easier to understand than large ones. A code review catches mistakes that a compiler cannot see.
        Version control lets a team of developers work at the same time. Delete the code that nobody calls any more.
        Computers are fast, so make it right before you make it quick. The hardest thing in programming is to name a
        variable.""",
    "coffee": """Good coffee starts with fresh beans from Ethiopia or Brazil. Grind them just before you brew. The water
        should be a little below boiling. Too fine a grind makes the espresso bitter. A barista weighs every dose to the
        tenth of a gram. Milk becomes sweet when you steam it gently. Light roasts keep the fruity taste of the cherry.
        Clean the machine at the end of each day, or the oil turns rancid.""",
    "rome": """The Roman empire began as a village on seven hills. Its soldiers conquered every coast of the
        Mediterranean. Caesar crossed the river and ended the republic. Augustus called himself the first citizen and
        ruled like a king. Roads and aqueducts held the provinces together. Slaves did most of the work in the fields.
        Barbarians plundered the capital in the fifth century. Latin lived on in the church and in the law.""",
    "running": """Your first marathon begins with a walk around the block. Increase the distance by a tenth each week. A
        good pair of shoes protects your knees. Drink water before you feel thirsty. Runners who go out too fast pay
        for it after thirty kilometres. Stretch your calves when the muscles are warm. A rest day makes you stronger
        than another workout. Crossing the finish line feels like flying.""",
}


@dataclass(frozen=True, slots=True)
class Talk:
    """A talk about several topics; `borders` are the seconds at which the topic changes."""

    words: Sequence[Word]
    segments: Sequence[Segment]
    borders: Sequence[float]
    duration: float


def make_talk(topics: Sequence[str], pause: float = 0.4, start: float = 0.5) -> Talk:
    """Return a talk that says what `TOPICS` has about each topic, with a pause after each sentence."""
    at, words, segments, borders = start, [], [], []
    for topic in topics:
        borders.append(at)
        for sentence in split_text(TOPICS[topic]):
            said = speak_words(sentence, at)
            words.extend(said)
            segments.append(Segment(sentence, said[0].start, said[-1].end))
            at = round(said[-1].end + pause, 3)
    return Talk(words, segments, borders[1:], at)


def draw_topics(seed: int, count: int) -> list[str]:
    return random.Random(seed).sample(sorted(TOPICS), count)  # noqa: S311  # nothing secret


def split_text(text: str) -> list[str]:
    return [sentence.strip(" .") + "." for sentence in " ".join(text.split()).split(". ")]


def speak_words(sentence: str, at: float) -> list[Word]:
    words = []
    for text in sentence.split():
        end = round(at + SECONDS_PER_LETTER * (len(text) + 1), 3)
        words.append(Word(text, at, end))
        at = end
    return words
