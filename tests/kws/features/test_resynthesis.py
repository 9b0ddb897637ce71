"""Recordings made of log-mel levels: their own levels, silence, and what is refused."""

import numpy as np
import pytest

from deltarnn.kws.features.log_mel import LogMelFilterBank
from deltarnn.kws.features.resynthesis import Resynthesis


def voiced(seed: int) -> np.ndarray:
    """A gliding tone with harmonics, its level rising and falling (16000,)."""
    rng = np.random.default_rng(seed)
    t = np.arange(16000) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 60 * np.sin(2 * np.pi * t * rng.uniform(0.5, 2))) / 16000
    tone = sum(np.sin(k * phase) / k for k in range(1, 20))
    return (6000 * tone * np.hanning(16000) + 20 * rng.standard_normal(16000)).astype(np.int16)


def test_levels_of_what_was_made_are_those_it_was_made_of():
    front_end = LogMelFilterBank()
    levels = front_end(np.stack([voiced(0), voiced(1)]))
    made = Resynthesis(front_end)(levels, np.random.default_rng(3))
    assert made.dtype == np.int16
    assert made.shape == (2, 97 * 160 + 480)
    error = (front_end(made) - levels)[levels > 100]
    assert np.sqrt(np.mean(error**2)) < 6  # of 10 ln P: 2.6 dB
    assert abs(error.mean()) < 1.5
    shuffled = levels[:, np.random.default_rng(0).permutation(98)]  # these levels, not any
    assert np.sqrt(np.mean((front_end(made) - shuffled)[levels > 100] ** 2)) > 20


def test_images_of_8_bits_do_as_well():
    front_end = LogMelFilterBank()
    levels = front_end(voiced(2))[None]
    made = Resynthesis(front_end)(np.rint(levels).astype(np.uint8), np.random.default_rng(3))
    error = (front_end(made) - levels)[levels > 100]
    assert np.sqrt(np.mean(error**2)) < 6


def test_silence_stays_silent_and_the_generator_decides():
    front_end = LogMelFilterBank()
    resynthesis = Resynthesis(front_end)
    quiet = resynthesis(front_end(np.zeros((1, 16000), np.int16)), np.random.default_rng(0))
    assert np.abs(quiet).max() <= 2
    levels = front_end(voiced(2))[None]
    one, same, other = (resynthesis(levels, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_refuses_what_tells_too_little():
    for front_end in (LogMelFilterBank(pool_bands=2), LogMelFilterBank(pool_frames=2), LogMelFilterBank(log=False)):
        with pytest.raises(ValueError, match="pooled bands or frames, or plain powers"):
            Resynthesis(front_end)
    with pytest.raises(ValueError, match=r"shape \(98, 40\): needs \(clips, frames, 40\)"):
        Resynthesis(LogMelFilterBank())(np.zeros((98, 40)), np.random.default_rng(0))
