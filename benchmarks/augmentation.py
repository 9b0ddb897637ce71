"""Time to augment and featurise clips of one second, by kind of change; on noise, one core.

python benchmarks/augmentation.py [NUMBER_OF_CLIPS]
"""

import sys
import time
from typing import Any

import numpy as np

from deltarnn.kws.config.options import AugmentationConfig
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.features.augment import Augmenter
from deltarnn.kws.features.pipeline import FeaturePipeline

KINDS: dict[str, dict[str, Any]] = {
    "none": {},
    "noise": {"aug_noise": 0.5},
    "gain": {"aug_gain": 6.0},
    "shift and speed": {"aug_shift": 0.1, "aug_speed": 0.1},
    "masks": {"aug_time_mask": 8, "aug_freq_mask": 3},
}


def main(count: int) -> None:
    rng = np.random.default_rng(0)
    clips = (1000 * rng.standard_normal((count, 16000))).astype(np.int16)
    noise = (500 * rng.standard_normal(16000 * 60)).astype(np.int16)
    everything = {name: value for options in KINDS.values() for name, value in options.items()}
    for name, options in {**KINDS, "all": everything}.items():
        augmenter = Augmenter(AugmentationConfig(**options), FeaturePipeline(FeatureConfig()), noise, seed=0)
        start = time.process_time()
        augmenter.features(clips, epoch=0)
        seconds = time.process_time() - start
        print(f"{name:16} {seconds:6.2f} s, {seconds / count * 1e3:.3f} ms per clip")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7000)
