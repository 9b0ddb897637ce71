"""A network in integers where a torch model is evaluated."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from deltarnn.fixed.cells import IntegerState
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.kws.spotter.device import FiredCounts


class IntegerScoring:
    """Class scores (T, B, C) of features (T, B, I), and the state to go on with, as of a `KeywordModel`.

    architecture: as in the model file's header.
    """

    def __init__(self, network: IntegerNetwork, architecture: Mapping[str, Any]) -> None:
        self._network, self._architecture = network, architecture
        self._fired = FiredCounts(architecture)

    def __call__(
        self, features: Tensor, state: Sequence[IntegerState] | None = None
    ) -> tuple[Tensor, Sequence[IntegerState]]:
        frames = self._network.quantization.activation.to_int(features.numpy())
        output, runs = self._network.advance(frames, state)
        self._fired.add(runs)
        return torch.from_numpy(self._network.to_float(output)), [run.state for run in runs]

    def initial_state(self, batch_size: int) -> None:
        """None: the layers begin anew."""

    def recorded(self) -> AbstractContextManager[FiredCounts]:
        """What fires inside the block."""
        self._fired = FiredCounts(self._architecture)
        return nullcontext(self._fired)
