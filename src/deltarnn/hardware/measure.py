"""The events of a model on real frames, measured with the bit-true integer cells."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.fixed.qformat import Quantization
from deltarnn.hardware.accelerator import Events


def integer_events(
    model: NetworkParameters, sequences: Sequence[NDArray[np.float64]], formats: Quantization, head: bool = False
) -> Events:
    """Run frames (T, I) of each sequence from reset in `formats`; steps of all sequences follow one another.

    Sequences of one length run as one batch. head: the dense layers too, and which of their inputs changed.
    """
    network = IntegerNetwork.convert(model if head else replace(model, head=()), formats)
    depth = len(network.layers)
    dense_changed: list[list[NDArray[np.bool_]]] = [[] for _ in network.head]
    fired_x: list[list[NDArray[np.bool_]]] = [[] for _ in range(depth)]
    fired_h: list[list[NDArray[np.bool_]]] = [[] for _ in range(depth)]
    first = []
    saturated = values = 0.0
    for length in sorted({len(sequence) for sequence in sequences}):
        batch = np.stack([sequence for sequence in sequences if len(sequence) == length], axis=1)
        run = network.run(batch)
        saturated += run.saturated_inputs * batch.size
        values += batch.size
        first.append(np.tile(np.arange(length) == 0, batch.shape[1]))
        for index, layer in enumerate(run.layers):
            for fired, steps in ((layer.fired_x, fired_x), (layer.fired_h, fired_h)):
                steps[index].append(fired.transpose(1, 0, 2).reshape(-1, fired.shape[2]))
        signal = run.layers[-1].y
        for dense, of_dense in zip(network.head, dense_changed, strict=True):
            changed = np.diff(signal, axis=0, prepend=0) != 0
            of_dense.append(changed.transpose(1, 0, 2).reshape(-1, changed.shape[2]))
            signal = dense(signal)
    notes = (*network.notes, f"events measured in {formats.activation} activations and {formats.weight} weights")
    if saturated:
        notes += (f"{saturated / values:.2%} of the input values were outside {formats.activation} and saturated",)
    return Events(
        [np.concatenate(steps) for steps in fired_x],
        [np.concatenate(steps) for steps in fired_h],
        np.concatenate(first),
        notes,
        tuple(np.concatenate(steps) for steps in dense_changed),
    )
