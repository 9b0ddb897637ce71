"""A long recording to test a spotter on: keywords over noise, then hours without any (docs/streams.md).

In this order: every keyword clip of the group once, a quarter each clean and over noise at 20, 10 and 5 dB; every clip
of other words in each of these conditions; sentences and digits read aloud by synthetic voices, likewise; noise alone
at several levels; silence. What noise there is comes from the part of the background recordings that training has not
heard, SNRs are those of the spoken part of a word.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.data.acoustics import NOISE_KINDS, background
from deltarnn.kws.data.audio import Audio, to_int16
from deltarnn.kws.data.compose import Wave, active_span, lay, level_of
from deltarnn.kws.draw import rng_of

CONDITIONS = ("clean", "20 dB", "10 dB", "5 dB")
SNR = {"clean": np.inf, "20 dB": 20.0, "10 dB": 10.0, "5 dB": 5.0}
SCENE_SECONDS = 20.0
"""After which the background changes."""


class Word(NamedTuple):
    """A keyword that is spoken: which one (from 0), its first sample and the one after its last, under which condition,
    and the clip's name."""

    keyword: int
    start: int
    end: int
    condition: str
    name: str


class Section(NamedTuple):
    """A part of the recording: what is in it, its first sample and the one after its last."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Recording:
    """audio (N,) int16; the keywords in it, in order; its sections, one after another."""

    audio: Audio
    words: list[Word]
    sections: list[Section]
    sample_rate: int

    @property
    def hours(self) -> float:
        """Length."""
        return len(self.audio) / self.sample_rate / 3600


@dataclass(frozen=True)
class StreamMaterial:
    """clips: (N, S) int16 with classes labels (N,) and names. noises, sentences, digits: recordings (·,) int16."""

    clips: Audio
    labels: NDArray[np.int64]
    names: Sequence[str]
    noises: Sequence[Audio]
    sentences: Sequence[Audio]
    digits: Sequence[Audio]


class StreamBuilder:
    """Builds the recording from `material`; the same for the same seed."""

    def __init__(self, material: StreamMaterial, seed: int, sample_rate: int) -> None:
        self.material, self.seed, self.rate = material, seed, sample_rate
        self.pieces: list[Audio] = []
        self.words: list[Word] = []
        self.sections: list[Section] = []
        self.position = 0

    def build(self, noise_seconds: float = 1800.0, silence_seconds: float = 900.0) -> Recording:
        """The whole recording."""
        m = self.material
        keywords, others = (np.flatnonzero(m.labels > 1), np.flatnonzero(m.labels == 1))
        order = rng_of(self.seed, "order").permutation(keywords)
        for i, condition in enumerate(CONDITIONS):
            self._spoken("keywords", condition, order[i::4])
        for condition in CONDITIONS:
            self._spoken("other words", condition, rng_of(self.seed, condition).permutation(others))
        for kind, readings in (("reading", m.sentences), ("digits", m.digits)):
            for i, condition in enumerate(CONDITIONS):
                self._read(kind, condition, readings[i::4])
        self._noise(noise_seconds)
        rng = rng_of(self.seed, "silence")
        hush = rng.standard_normal(round(silence_seconds * self.rate)) * np.float32(0.6)
        hush[: len(hush) // 2] = 0.0
        self._append("silence", hush.astype(np.float32))
        return Recording(np.concatenate(self.pieces), self.words, self.sections, self.rate)

    def _append(self, kind: str, signal: Wave) -> None:
        self.pieces.append(to_int16(signal))
        end = self.position + len(signal)
        if self.sections and self.sections[-1].kind == kind:
            self.sections[-1] = self.sections[-1]._replace(end=end)
        else:
            self.sections.append(Section(kind, self.position, end))
        self.position = end

    def _spoken(self, kind: str, condition: str, clips: NDArray[np.int64]) -> None:
        """Single words 0.6 to 2 s apart."""
        rng = rng_of(self.seed, kind, condition)
        remaining = list(clips)
        while remaining:
            signal, level = self._scene(condition, rng)
            position = round(rng.uniform(0.6, 2.0) * self.rate)
            while remaining:
                clip = self.material.clips[remaining[-1]]
                first, last = span = active_span(clip)
                end = position + last - first
                if end + self.rate // 2 > len(signal):
                    break
                spoken = level if condition != "clean" else level_of(clip[first:last])
                lay(signal, clip, span, position, spoken)
                label, name = int(self.material.labels[remaining[-1]]), self.material.names[remaining.pop()]
                if label > 1:
                    self.words.append(Word(label - 2, self.position + position, self.position + end, condition, name))
                position = end + round(rng.uniform(0.6, 2.0) * self.rate)
            self._append(kind, signal)

    def _read(self, kind: str, condition: str, readings: Sequence[Audio]) -> None:
        rng = rng_of(self.seed, kind, condition)
        for text in readings:
            signal, level = self._scene(condition, rng, len(text))
            self._append(kind, signal + text * np.float32(level / max(level_of(text), 1.0)))

    def _scene(self, condition: str, rng: np.random.Generator, samples: int | None = None) -> tuple[Wave, float]:
        """Background of a condition, and the level that speech must have over it."""
        samples = samples or round(SCENE_SECONDS * self.rate)
        level = 32768 * 10 ** (rng.uniform(-35, -18) / 20)
        if condition == "clean":
            return (0.6 * rng.standard_normal(samples)).astype(np.float32), level
        noise = self._excerpt(samples, rng)
        return noise * np.float32(level * 10 ** (-SNR[condition] / 20) / max(level_of(noise), 1e-3)), level

    def _noise(self, seconds: float) -> None:
        rng = rng_of(self.seed, "noise")
        samples = round(SCENE_SECONDS * self.rate)
        for number in range(round(seconds / SCENE_SECONDS)):
            noise = self._excerpt(samples, rng)
            if number % 5 == 4:
                noise = background(NOISE_KINDS[number // 5 % len(NOISE_KINDS)], samples, rng).astype(np.float32)
            level = 32768 * 10 ** (rng.uniform(-55, -20) / 20)
            self._append("noise", noise * np.float32(level / max(level_of(noise), 1e-3)))

    def _excerpt(self, samples: int, rng: np.random.Generator) -> Wave:
        noise = self.material.noises[int(rng.integers(len(self.material.noises)))]
        start = int(rng.integers(len(noise)))
        return np.take(noise, np.arange(start, start + samples), mode="wrap").astype(np.float32)
