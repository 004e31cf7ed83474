"""Videos in which somebody speaks about one subject after the other, with another colour on the screen for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.speech import Sound, speak_all

WIDTH, HEIGHT, FRAME_RATE = 320, 180, 10
SENTENCE_PAUSE, TOPIC_PAUSE, EDGE = 0.4, 1.2, 0.6  # seconds of silence; EDGE at the beginning and at the end
COLOURS = ((200, 30, 30), (30, 160, 30), (40, 40, 200), (200, 180, 20), (150, 30, 150), (20, 160, 160))

BREAD = (
    "Making good bread is simple and it takes a little time.",
    "Mix the flour with warm water, salt and yeast in a large bowl.",
    "Let the dough rest in a warm kitchen until it has doubled in size.",
    "Fold the dough again and shape it into a round loaf.",
    "Leave the bread in a very hot oven until the crust is golden.",
    "Wait until the loaf is cool before you cut it.",
    "Fresh bread and butter makes a lovely breakfast.",
)
MARS = (
    "The planet Mars is much smaller and colder than the Earth.",
    "Scientists have sent robots to Mars to look for signs of water.",
    "Some engineers hope that people will walk on the red planet one day.",
    "The journey through space in a rocket takes about seven months.",
    "Astronauts would need air, water and food for the whole mission.",
    "A telescope shows the red planet in the night sky.",
)
FOOTBALL = (
    "A good football team needs players who trust each other.",
    "The coach decides which players start the match.",
    "Every player wants to score a goal in the game.",
    "The goalkeeper stops the ball in front of the goal.",
    "The football players train hard every week before the match.",
    "The fans sing songs in the stadium until the end of the game.",
    "After the match the winning team lifts the cup.",
)
HEART = (
    "The human heart moves blood through the whole body.",
    "Doctors listen to the heart to learn about your health.",
    "Walking every day keeps the heart strong and young.",
    "Eating a lot of salt and sugar raises your blood pressure.",
    "Good sleep helps the body to fight disease.",
    "Visit your doctor once a year for a medical check.",
    "Old people need less medicine when they stay healthy.",
)
TOPICS = (BREAD, MARS, FOOTBALL, HEART)


@dataclass(frozen=True)
class Sentence:
    """What is said from `start` to `end`, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Topic:
    """Sentences about one subject, and the colour (red, green, blue) that is seen meanwhile."""

    sentences: tuple[Sentence, ...]
    colour: tuple[int, int, int]

    @property
    def start(self) -> float:
        return self.sentences[0].start

    @property
    def end(self) -> float:
        return self.sentences[-1].end


@dataclass(frozen=True)
class Talk:
    """A video and all that is said in it."""

    path: Path
    topics: tuple[Topic, ...]
    duration: float

    @property
    def sentences(self) -> tuple[Sentence, ...]:
        return tuple(sentence for topic in self.topics for sentence in topic.sentences)

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)

    @property
    def boundaries(self) -> tuple[float, ...]:
        """Where one subject, and its colour, gives way to the next: the middle of the silence between them."""
        return tuple(
            (one.end + next_one.start) / 2 for one, next_one in zip(self.topics, self.topics[1:], strict=False)
        )


def make_talk(path: Path, topics: Sequence[Sequence[str]] = TOPICS) -> Talk:
    """Write an MP4 (H.264, AAC) to `path` in which all sentences of all topics are spoken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    speech = _Speech([text for sentences in topics for text in sentences])
    speech.wait(EDGE)
    said = []
    for number, (sentences, colour) in enumerate(zip(topics, COLOURS, strict=False)):
        speech.wait(TOPIC_PAUSE if number else 0.0)
        said.append(Topic(tuple(speech.say_all(sentences)), colour))
    speech.wait(EDGE)
    talk = Talk(path, tuple(said), speech.seconds)
    _write(talk, speech)
    return talk


class _Speech:
    def __init__(self, texts: Sequence[str]) -> None:
        recordings, self.rate = speak_all(texts)
        self._recordings = iter(recordings)
        self._pieces: list[Sound] = []
        self._samples = 0

    @property
    def seconds(self) -> float:
        return self._samples / self.rate

    @property
    def samples(self) -> Sound:
        return np.concatenate(self._pieces)

    def wait(self, seconds: float) -> None:
        self._add(np.zeros(round(seconds * self.rate), np.int16))

    def say_all(self, sentences: Sequence[str]) -> Iterator[Sentence]:
        for number, text in enumerate(sentences):
            self.wait(SENTENCE_PAUSE if number else 0.0)
            start = self.seconds
            self._add(next(self._recordings))
            yield Sentence(text, start, self.seconds)

    def _add(self, samples: Sound) -> None:
        self._pieces.append(samples)
        self._samples += len(samples)


def _write(talk: Talk, speech: _Speech) -> None:
    with av.open(str(talk.path), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"preset": "veryfast", "g": "50"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("aac", rate=speech.rate, layout="mono")
        frames = [_picture(topic.colour) for topic in talk.topics]
        for number in range(round(talk.duration * FRAME_RATE)):
            frame = frames[sum(number / FRAME_RATE >= boundary for boundary in talk.boundaries)]
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        audio_frame = av.AudioFrame.from_ndarray(speech.samples[np.newaxis], format="s16", layout="mono")
        audio_frame.pts, audio_frame.sample_rate, audio_frame.time_base = 0, speech.rate, Fraction(1, speech.rate)
        container.mux(audio.encode(audio_frame))
        container.mux(audio.encode(None))


def _picture(colour: tuple[int, int, int]) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), colour, np.uint8)).reformat(format="yuv420p")
