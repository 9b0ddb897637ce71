"""Initialisation of recurrent weights, gate by gate."""

from typing import Literal

from torch import nn

Initialization = Literal["uniform", "orthogonal"]


def initialize(layer: nn.RNNBase, scheme: Initialization) -> None:
    """Input weights of layer 0 Xavier-uniform per gate, all other matrices orthogonal per gate, biases 0.

    A gate's matrix is a block of H rows; each is drawn by itself, so that its gain does not depend on its neighbours'.
    """
    if scheme != "orthogonal":
        raise ValueError(f"scheme={scheme!r}: must be 'uniform' or 'orthogonal'")
    for name, parameter in layer.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(parameter)
        elif name.startswith("weight_hr"):
            nn.init.orthogonal_(parameter)
        else:
            from_input = name.startswith("weight_ih_l0")
            for gate in parameter.chunk(len(parameter) // layer.hidden_size):
                (nn.init.xavier_uniform_ if from_input else nn.init.orthogonal_)(gate)
