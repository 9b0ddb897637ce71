"""Long recordings made of clips: where in a clip the word is, and the word over a background at an SNR of its own."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.data.audio import Audio

Wave = NDArray[np.float32]

_BLOCK = 160
"""Samples over which energy is measured, to find where a word is."""

_FADE = 160
"""Samples over which a clip's ends are faded, so that its own noise does not begin with a click."""


@dataclass(frozen=True)
class Spoken:
    """A word in a recording: its class (1 for every word that is no keyword), its first sample and the one after its
    last."""

    label: int
    start: int
    end: int


def active_span(clip: NDArray[np.floating] | Audio) -> tuple[int, int]:
    """First sample of the spoken part of a clip (N,), and the one after its last.

    Blocks of 10 ms belong to it whose level, a mean over 50 ms, is more than 40 % of the way, in dB, from the clip's
    quietest tenth to its loudest block; parts less than 250 ms from each other are joined, and those with the loudest
    block are the word.
    """
    blocks = max(1, len(clip) // _BLOCK)
    energy = np.square(np.resize(clip, blocks * _BLOCK).astype(np.float64)).reshape(blocks, _BLOCK).mean(1)
    smooth = np.convolve(np.pad(energy, 2, mode="edge"), np.full(5, 1 / 5), "valid")
    level = 10 * np.log10(smooth + 1.0)
    top = level.max()
    floor = np.quantile(level[energy > 0], 0.1) if energy.any() else top  # zeros are padding
    loud = np.flatnonzero(level >= floor + 0.4 * (top - floor))
    peak = int(np.searchsorted(loud, level.argmax()))
    gaps = np.flatnonzero(np.diff(loud) > 25)
    first = loud[gaps[gaps < peak][-1] + 1] if (gaps < peak).any() else loud[0]
    last = loud[gaps[gaps >= peak][0]] if (gaps >= peak).any() else loud[-1]
    return int(first) * _BLOCK, min(len(clip), (int(last) + 1) * _BLOCK)


def level_of(signal: NDArray[np.floating] | Audio) -> float:
    """Root mean square of a signal (N,)."""
    return float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) if len(signal) else 0.0


def faded(clip: Wave) -> Wave:
    """A clip (N,) whose ends rise from and fall to zero within 10 ms, in place."""
    ramp = np.linspace(0, 1, min(_FADE, len(clip) // 2), dtype=np.float32)
    clip[: len(ramp)] *= ramp
    clip[len(clip) - len(ramp) :] *= ramp[::-1]
    return clip


def lay(recording: Wave, clip: NDArray[np.floating] | Audio, span: tuple[int, int], onset: int, level: float) -> None:
    """Add a clip to a recording (N,), in place, so that its spoken part begins at `onset` with root mean square
    `level`; what would lie outside is cut."""
    spoken = level_of(clip[span[0] : span[1]])
    scaled = faded(clip.astype(np.float32) * np.float32(level / max(spoken, 1.0)))
    start = onset - span[0]
    first, last = max(0, start), min(len(recording), start + len(scaled))
    if first < last:
        recording[first:last] += scaled[first - start : last - start]
