"""Endless training material: scenes of words, sentences and noises, with what is said when."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.data.acoustics import NOISE_KINDS, background, in_room
from deltarnn.kws.data.audio import Audio, to_int16
from deltarnn.kws.data.compose import Spoken, Wave, active_span, lay, level_of
from deltarnn.kws.data.splice import splice

LEVEL = -25.0
"""Level of speech, dB below full scale, about which --aug_gain varies it."""


@dataclass(frozen=True)
class Material:
    """What scenes are made of.

    clips: (N, S) int16 with classes labels (N,). noise: (M,) int16. readings: recordings (·,) int16 without a keyword.
    """

    clips: Audio
    labels: NDArray[np.int64]
    noise: Audio
    readings: Sequence[Audio] = ()


@dataclass(frozen=True)
class SceneOptions:
    """How a scene is drawn. SNR in dB over the spoken part of a word, levels in dB below full scale, times in s."""

    snr: tuple[float, float] = (0.0, 30.0)
    level: tuple[float, float] = (-40.0, -10.0)
    speed: float = 0.13
    gap: float = 0.25
    keywords: float = 0.6
    """Share of keywords among single words."""
    quiet: float = 0.25
    """Share of scenes without background noise."""
    rooms: float = 0.3
    reading: float = 0.12
    """Share of scenes in which somebody reads and no keyword is said."""
    noise_only: float = 0.08
    splices: float = 0.25
    """Share of words spliced from two others, among words that are no keywords."""
    sample_rate: int = 16000

    @classmethod
    def of(cls, augmentation: AugmentationConfig, sample_rate: int) -> "SceneOptions":
        """As the options of augmentation say."""
        return cls(
            snr=(augmentation.aug_snr_low, augmentation.aug_snr_high),
            level=(LEVEL - augmentation.aug_gain, LEVEL + augmentation.aug_gain),
            speed=augmentation.aug_speed,
            quiet=1 - augmentation.aug_noise,
            sample_rate=sample_rate,
        )


@dataclass
class _Deck:
    """Numbers in random order, again and again: each comes as often as every other."""

    numbers: NDArray[np.int64]
    rng: np.random.Generator
    left: list[int] = field(default_factory=list)

    def draw(self) -> int:
        if not self.left:
            self.left = self.rng.permutation(self.numbers).tolist()
        return self.left.pop()


class SceneMaker:
    """Draws recordings from `material` with a generator of its own."""

    def __init__(self, material: Material, options: SceneOptions, rng: np.random.Generator) -> None:
        self.material, self.options, self.rng = material, options, rng
        self.spoken = np.flatnonzero(material.labels != 0)
        self.keywords = _Deck(np.flatnonzero(material.labels > 1), rng)
        self.others = _Deck(np.flatnonzero(material.labels == 1), rng)

    def recording(self, samples: int) -> tuple[Audio, list[Spoken]]:
        """(samples,) int16 of one scene after another, and the words in it in order."""
        recording, words, position = np.zeros(samples, np.float32), [], 0
        while position < samples:
            length = int(self.rng.uniform(6.0, 20.0) * self.options.sample_rate)
            piece, said = self._scene(min(length, samples - position))
            recording[position : position + len(piece)] = piece
            words += [Spoken(word.label, word.start + position, word.end + position) for word in said]
            position += len(piece)
        return to_int16(recording), words

    def _scene(self, samples: int) -> tuple[Wave, list[Spoken]]:
        rng, o = self.rng, self.options
        speech, words = np.zeros(samples, np.float32), []
        level = 32768 * 10 ** (rng.uniform(*o.level) / 20)
        kind = rng.random()
        if kind < o.reading and self.material.readings:
            words = self._read(speech, level)
        elif kind < 1 - o.noise_only:
            words = self._say(speech, level)
        if words and rng.random() < o.rooms:
            speech = in_room(speech.astype(np.float64), rng, o.sample_rate).astype(np.float32)
        silence = 32768 * 10 ** (rng.uniform(-96, -60) / 20) * rng.standard_normal(samples)
        if rng.random() < o.quiet:
            return speech + (silence if rng.random() < 0.7 else 0.0), words
        noise = self._noise(samples)
        return speech + noise * (level * 10 ** (-rng.uniform(*o.snr) / 20) / max(level_of(noise), 1e-3)), words

    def _say(self, speech: Wave, level: float) -> list[Spoken]:
        """Single words with pauses between them, over the whole scene."""
        rng, o, words = self.rng, self.options, []
        position = int(rng.exponential(o.gap) * o.sample_rate)
        while position < len(speech):
            clip, label = self._word()
            first, last = span = active_span(clip)
            end = position + last - first
            if end > len(speech):
                break
            lay(speech, clip, span, position, level * 10 ** (rng.normal(0, 3) / 20))
            words.append(Spoken(label, position, end))
            position = end + int((0.08 + rng.exponential(o.gap)) * o.sample_rate)
        return words

    def _read(self, speech: Wave, level: float) -> list[Spoken]:
        """A piece of somebody's reading."""
        readings = self.material.readings
        text = readings[int(self.rng.integers(len(readings)))]
        length = min(len(text), len(speech))
        start = int(self.rng.integers(len(text) - length + 1))
        piece = text[start : start + length].astype(np.float32)
        speech[:length] += piece * np.float32(level / max(level_of(piece), 1.0))
        return [Spoken(1, 0, length)]

    def _word(self) -> tuple[Audio, int]:
        rng, m = self.rng, self.material
        keyword = rng.random() < self.options.keywords
        others = self.others.numbers.size > 0  # recordings of one's own may be keywords all of them
        if not keyword and (rng.random() < self.options.splices or not others):
            few = rng.choice(self.spoken, min(6, len(self.spoken)), replace=False)
            if len(np.unique(m.labels[few])) > 1:
                return self._faster(splice(m.clips[few], m.labels[few], 1, rng)[0]), 1
        index = (self.keywords if keyword or not others else self.others).draw()
        return self._faster(m.clips[index]), int(m.labels[index])

    def _faster(self, clip: Audio) -> Audio:
        sounding = np.flatnonzero(clip)
        clip = clip[sounding[0] : sounding[-1] + 1] if len(sounding) else clip
        speed = 1 + self.options.speed * self.rng.uniform(-1, 1)
        positions = np.arange(0, len(clip) - 1, speed)
        return to_int16(np.interp(positions, np.arange(len(clip)), clip))

    def _noise(self, samples: int) -> NDArray[np.floating]:
        rng, noise = self.rng, self.material.noise
        if rng.random() < 0.3 or len(noise) < samples:
            kind = NOISE_KINDS[int(rng.integers(len(NOISE_KINDS)))]
            return background(kind, next_fast_len(samples), rng)[:samples]
        start = int(rng.integers(len(noise) - samples + 1))
        return noise[start : start + samples].astype(np.float32)
