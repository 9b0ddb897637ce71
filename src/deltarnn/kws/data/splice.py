"""Unknown words made from known ones: what sounds like speech, by the same speakers, and is none of the keywords."""

import numpy as np
from numpy.typing import NDArray

from deltarnn.kws.data.audio import Audio, to_int16

_BLOCK = 256
"""Samples over which energy is summed, to find where a word is."""


def splice(clips: Audio, labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> Audio:
    """`count` clips (count, S) int16 from spoken clips (N, S) with labels (N,); label 0, silence, is left out.

    A third each, on average: the first half of one word and the second half of another, the halves of one word and
    another swapped around, and one word backwards. Where a word is cut is drawn from the middle third of its energy;
    the second part takes the level of the first.

    Raises
    ------
    ValueError
        If fewer than two different words are there.
    """
    spoken = np.flatnonzero(labels != 0)
    if len(np.unique(labels[spoken])) < 2:
        raise ValueError("--aug_splice needs training clips of at least two different words")
    result = np.zeros((count, clips.shape[1]), np.int16)
    for row in result:
        first, second = rng.choice(spoken, 2)
        while labels[first] == labels[second]:
            second = rng.choice(spoken)
        one, other = clips[first], clips[second]
        kind = rng.integers(3)
        if kind == 0:
            row[:] = one[::-1]
            continue
        cut_one, cut_other = _inside(one, rng), _inside(other, rng)
        if kind == 1:
            joined = np.concatenate([one[:cut_one], _at_level(other[cut_other:], one, other)])
        else:
            joined = np.concatenate([one[cut_one:], _at_level(other[:cut_other], one, other)])
        length = min(len(joined), len(row))
        row[:length] = joined[:length]
    return result


def _inside(clip: Audio, rng: np.random.Generator) -> int:
    """A sample before which between a third and two thirds of the clip's energy lie."""
    usable = len(clip) // _BLOCK * _BLOCK
    energy = np.cumsum(np.square(clip[:usable].astype(np.float64)).reshape(-1, _BLOCK).sum(1))
    return int(np.searchsorted(energy, rng.uniform(1 / 3, 2 / 3) * energy[-1]) + 1) * _BLOCK


def _at_level(part: Audio, one: Audio, other: Audio) -> Audio:
    """`part` of `other`, at the level of `one`."""
    levels = [np.sqrt(np.mean(np.square(clip.astype(np.float64)))) for clip in (one, other)]
    scaled = part * (levels[0] / max(levels[1], 1.0))
    return to_int16(scaled)
