"""Rebuilds a delta state after its layer's parameters changed, as they do from one training step to the next."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from deltarnn.nn.base import DeltaRNNBase
from deltarnn.nn.state import DeltaGRUState, DeltaLSTMState, DeltaState


def refreshed(layer: DeltaRNNBase, state: Sequence[DeltaState]) -> tuple[DeltaState, ...]:
    """The state of `layer` without its history's gradient, its memories m made anew of the present parameters.

    m = W_ih x̂ + W_hh ĥ + b, the GRU's candidate in two parts (MATH §2–3), weights and b rounded as the layer rounds
    them: what a stream that stood still since it began would hold. Gradients flow through m to the parameters.
    """
    made: list[DeltaState] = []
    for name, old in zip(layer.layer_names, state, strict=True):
        weights = layer._parameters_of(name)
        x_hat, h_hat = old.x_hat.detach(), old.h_hat.detach()
        of_x, of_h = F.linear(x_hat, weights.weight_ih.to(x_hat)), F.linear(h_hat, weights.weight_hh.to(x_hat))
        start = layer._fresh_memory(name).to(x_hat)
        if isinstance(old, DeltaGRUState):
            gates = 2 * layer.hidden_size
            moved = torch.cat([of_x[:, :gates] + of_h[:, :gates], of_x[:, gates:], of_h[:, gates:]], dim=1)
            made.append(DeltaGRUState(x_hat, old.h.detach(), h_hat, start + moved))
        elif isinstance(old, DeltaLSTMState):
            m = start + of_x + of_h
            made.append(old._replace(x_hat=x_hat, h=old.h.detach(), h_hat=h_hat, c=old.c.detach(), m=m))
        else:
            raise TypeError("a GRU with reset_after=False cannot go on in training yet: start it from a fresh state")
    return tuple(made)
