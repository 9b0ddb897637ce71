"""The long recording of a data set on which `deltarnn evaluate --stream` tests."""

from pathlib import Path

import numpy as np

from deltarnn.kws.config.resolve import Config
from deltarnn.kws.data.audio import Audio, read_audio
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import NOISE_TRAIN_SHARE
from deltarnn.kws.data.reading import make_readings
from deltarnn.kws.data.stream import Recording, StreamBuilder, StreamMaterial
from deltarnn.kws.features.store import load_audio

READINGS = {"sentences": 80, "digits": 40}
"""Recordings of half a minute that are read aloud."""


def stream_of(config: Config, group: str, seed: int = 0) -> Recording:
    """The recording made of the clips of `group`, "validation" or "test", and of what training has not heard: voices of
    that group, and the last fifth of the background noises, half of it for each of the two."""
    description, rate = read_description(config), config.features.sample_rate
    rows = description.group(group)
    folder, keywords = config.folder("data") / "readings", tuple(description.class_names[2:])

    def readings(digits: bool) -> list[Audio]:
        count = READINGS["digits" if digits else "sentences"]
        paths = make_readings(folder, group, keywords, count, seed, config.run.workers, digits)
        return [read_audio(path, rate) for path in paths]

    clips = load_audio(config, description, group)
    labels = np.array([row.label for row in rows], dtype=np.int64)
    names = [f"{row.keyword}/{Path(row.path).stem}" for row in rows]
    middle = (1 + NOISE_TRAIN_SHARE) / 2
    first, last = (NOISE_TRAIN_SHARE, middle) if group == "validation" else (middle, 1.0)
    noises = [samples[int(first * len(samples)) : int(last * len(samples))]
              for samples in (read_audio(path, rate) for path in description.noises)]  # fmt: skip
    material = StreamMaterial(clips, labels, names, noises, readings(False), readings(True))
    return StreamBuilder(material, seed, rate).build()
