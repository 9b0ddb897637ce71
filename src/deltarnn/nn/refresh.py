"""Rebuilds a delta state after its layer's parameters changed, as they do from one training step to the next."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from deltarnn.nn.base import DeltaRNNBase
from deltarnn.nn.state import DeltaGRUState, DeltaLSTMState, DeltaState


def refreshed(layer: DeltaRNNBase, state: Sequence[DeltaState]) -> tuple[DeltaState, ...]:
    """The state of `layer` without its history's gradient, its memories m made anew of the present parameters.

    m = W_ih x̂ + W_hh ĥ + b, the GRU's candidate in two parts (MATH §2–3): what a stream that stood still since it
    began would hold. Gradients flow through m to the parameters.
    """
    made: list[DeltaState] = []
    for name, old in zip(layer.layer_names, state, strict=True):
        weights = layer._parameters_of(name)
        x_hat, h_hat = old.x_hat.detach(), old.h_hat.detach()
        of_x = F.linear(x_hat, weights.weight_ih.to(x_hat), _to(weights.bias_ih, x_hat))
        of_h = F.linear(h_hat, weights.weight_hh.to(x_hat), _to(weights.bias_hh, x_hat))
        if isinstance(old, DeltaGRUState):
            gates = 2 * layer.hidden_size
            m = torch.cat([of_x[:, :gates] + of_h[:, :gates], of_x[:, gates:], of_h[:, gates:]], dim=1)
            made.append(DeltaGRUState(x_hat, old.h.detach(), h_hat, m))
        elif isinstance(old, DeltaLSTMState):
            made.append(old._replace(x_hat=x_hat, h=old.h.detach(), h_hat=h_hat, c=old.c.detach(), m=of_x + of_h))
        else:
            raise TypeError("a GRU with reset_after=False cannot go on in training yet: start it from a fresh state")
    return tuple(made)


def _to(bias: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor | None:
    return None if bias is None else bias.to(like)
