"""The frames that an export carries along as stimulus, with the outputs expected of it."""

import numpy as np
from numpy.typing import NDArray


def choose_stimulus(frames: NDArray[np.float64], stim_head: int, stim_len: int) -> NDArray[np.float64]:
    """Frames stim_head .. stim_head + stim_len − 1 of `frames` (T, I); the network starts from reset at the first.

    Raises
    ------
    ValueError
        If there are not that many frames.
    """
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
