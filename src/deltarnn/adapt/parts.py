"""Recurrent parts of an imported network as one torch module, to be trained apart from the graph around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deltarnn.adapt.measure import run_item
from deltarnn.adapt.network import check_network

BATCH = 8
"""Sequences of one part and length that are trained together."""


class Parts(nn.Module):
    """Independent delta layers; which one runs is an argument."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, index: int, x: Tensor, hx: Any) -> Tensor:
        """The output (T, B, H) of layer `index`."""
        output: Tensor = self.layers[index](x, hx)[0]
        return output


@dataclass(frozen=True)
class Excerpt:
    """The recurrent parts of a network, and what enters each of them: a module and sequences for it."""

    network: Any
    names: list[str]
    module: Parts
    sequences: list[tuple[int, Tensor, Any]]

    @classmethod
    def of(cls, network: Any, items: Sequence[Any], thresholds: Any = None) -> "Excerpt":
        """Record what enters each part of the dense network; leave it with `thresholds`, if any are given.

        network: has thresholds, set_thresholds, layers, compile and record_inputs, as one of `deltarnn.onnx.load`.
        """
        check_network(network)
        if thresholds is not None:
            network.set_thresholds(thresholds)
        kept = network.thresholds
        network.set_thresholds({name: [(0.0, 0.0)] * len(pairs) for name, pairs in kept.items()})
        with network.record_inputs() as recorded:
            for item in items:
                network.reset()
                run_item(network, network, item)
        network.set_thresholds(kept)
        layers = network.layers
        sequences = [
            (index, *batch)
            for index, name in enumerate(layers)
            for batch in _batches(recorded[name], layers[name].mode)
        ]
        return cls(network, list(layers), Parts(list(layers.values())), sequences)

    def take_over(self, module: nn.Module) -> None:
        """Give the network the weights of a trained copy of the module."""
        self.module.load_state_dict(module.state_dict())
        self.network.compile()


def _batches(recorded: Sequence[Any], mode: str) -> list[tuple[Tensor, Any]]:
    """(x (T, B, I), hx) of sequences of one length, up to BATCH at a time."""
    by_length: dict[int, list[Any]] = {}
    for sequence in recorded:
        by_length.setdefault(len(sequence.x), []).append(sequence)
    batches = []
    for sequences in by_length.values():
        for start in range(0, len(sequences), BATCH):
            some = sequences[start : start + BATCH]
            x = torch.cat([torch.from_numpy(s.x) for s in some], dim=1)
            width = next((s.h.shape[-1] for s in some if s.h is not None), None)
            batches.append((x, None if width is None else _states(some, mode, width)))
    return batches


def _states(sequences: Sequence[Any], mode: str, width: int) -> Any:
    def joined(name: str) -> Tensor:
        states = [getattr(s, name) for s in sequences]
        return torch.stack([torch.zeros(1, width) if s is None else torch.from_numpy(s) for s in states], dim=1)

    return (joined("h"), joined("c")) if mode == "LSTM" else joined("h")
