"""The frames that an export carries along as stimulus, with the outputs expected of it."""

import numpy as np
from numpy.typing import NDArray

USUAL = 1000
"""Head and length where none is asked for, if there are as many frames."""


def choose_stimulus(
    frames: NDArray[np.float64], stim_head: int | None = None, stim_len: int | None = None
) -> NDArray[np.float64]:
    """Frames stim_head .. stim_head + stim_len − 1 of `frames` (T, I); the network starts from reset at the first.

    What is not asked for is 1000, or less where there are not so many frames.

    Raises
    ------
    ValueError
        If there are not as many frames as asked for.
    """
    if stim_len is None:
        stim_len = max(1, min(USUAL, len(frames) - (stim_head or 0)))
    if stim_head is None:
        stim_head = max(0, min(USUAL, len(frames) - stim_len))
    if stim_head < 0 or stim_len < 1:
        raise ValueError(
            f"--stim_head {stim_head} --stim_len {stim_len}: needs a head of at least 0, a length of at least 1"
        )
    if stim_head + stim_len > len(frames):
        raise ValueError(
            f"--stim_head {stim_head} --stim_len {stim_len} asks for frame {stim_head + stim_len - 1}, but only "
            f"{len(frames)} were given: give more frames or a smaller head or length"
        )
    return frames[stim_head : stim_head + stim_len]
