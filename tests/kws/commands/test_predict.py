"""`deltarnn predict` of recordings longer than a clip."""

import numpy as np
import pytest
import torch

from deltarnn.kws.commands.predict import Predictor
from deltarnn.kws.network.decision import DecisionRule

RATE = 16000
LABELS = ["silence", "unknown", "yes", "no"]


class Pipeline:
    """Features that nobody looks at."""

    def of_clip(self, samples: np.ndarray, num_samples: int) -> np.ndarray:
        return np.zeros((5, 16), np.float32)

    def normalise(self, features: np.ndarray) -> np.ndarray:
        return features


def predictor(posteriors: list[list[float]]) -> Predictor:
    """One whose network gives each piece these posteriors, at every frame."""
    made = object.__new__(Predictor)
    scores = torch.tensor(posteriors).log().expand(5, -1, -1)
    made._pipeline, made._model = Pipeline(), lambda features: (scores, None)
    made._rule = DecisionRule(smooth=True, smoothing_window=3, confidence_window=3)
    made.labels, made.sample_rate, made._samples = LABELS, RATE, RATE
    return made


@pytest.mark.parametrize(
    ("posteriors", "label", "start"),
    [
        ([[0.97, 0.01, 0.01, 0.01], [0.2, 0.2, 0.35, 0.25], [0.02, 0.96, 0.01, 0.01]], "yes", 0.5),
        ([[0.1, 0.1, 0.6, 0.2], [0.99, 0.0025, 0.0025, 0.005], [0.1, 0.1, 0.1, 0.7]], "no", 1.0),
        ([[0.5, 0.3, 0.1, 0.1], [0.8, 0.1, 0.05, 0.05], [0.6, 0.2, 0.1, 0.1]], "silence", 0.5),
    ],
)
def test_the_surest_keyword_counts_before_any_surer_piece_without(posteriors, label, start):
    found = predictor(posteriors)(np.zeros(2 * RATE, np.int16))
    assert (found.label, found.start) == (label, start)
    assert found.confidence == pytest.approx(max(posteriors[int(2 * start)]), rel=1e-5)
