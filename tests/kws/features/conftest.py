"""The tiny corpus as somebody shares it who keeps the recordings: features, names, words and noises, and test clips."""

import json
from pathlib import Path

import numpy as np
import pytest

from deltarnn.kws import LogMelFilterBank
from deltarnn.kws.data.audio import fit, read_audio


def image(samples: np.ndarray) -> np.ndarray:
    """An 8-bit image (98, 40) of a clip."""
    return np.rint(LogMelFilterBank()(fit(samples, 16000, "tail"))).astype(np.uint8)


@pytest.fixture
def elsewhere(tiny_corpus) -> Path:
    """A folder for `deltarnn feature --from`."""
    root = tiny_corpus / "speech_commands_v0.02"
    listed = set((root / "validation_list.txt").read_text().split())
    groups: dict[str, list[Path]] = {"train": [], "validation": []}
    for path in sorted(root.glob("[a-z]*/*.wav")):
        groups["validation" if f"{path.parent.name}/{path.name}" in listed else "train"].append(path)
    for group, paths in groups.items():
        np.savez_compressed(
            tiny_corpus / f"{group}.npz",
            x=np.stack([image(read_audio(path)) for path in paths]),
            word=np.array([path.parent.name for path in paths]),
            name=np.array([path.stem for path in paths]),
        )
    noises = [read_audio(path) for path in sorted((root / "_background_noise_").glob("*.wav"))]
    pieces = np.concatenate([noise[: len(noise) // 16000 * 16000].reshape(-1, 16000) for noise in noises])
    x = np.stack([image(piece) for piece in [*pieces, pieces[0]]])
    names = np.array([f"{number}" for number in range(len(x))])
    np.savez_compressed(tiny_corpus / "noise.npz", x=x, word=np.full(len(x), "_background_noise_"), name=names)
    front_end = {"feat_type": "logmel", "n_filt": 40, "freq_low": 0, "freq_high": 4000, "frame_size": 0.03,
                 "frame_stride": 0.01, "nfft": 512}  # fmt: skip
    (tiny_corpus / "features.json").write_text(json.dumps(front_end))
    return tiny_corpus
