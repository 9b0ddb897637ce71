"""Wrong input gives one error that says what was given and what is needed."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from deltarnn import DeltaGRU, DeltaGRUCell, DeltaLSTM

GRU = DeltaGRU(3, 4, num_layers=2)
LSTM = DeltaLSTM(3, 4)
X = torch.zeros(5, 2, 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DeltaGRU(3, 4, thx=-0.1), ValueError, "thx=-0.1: a threshold must be finite and at least 0"),
        (lambda: DeltaGRU(3, 4, thh=float("nan")), ValueError, "thh=nan: a threshold must be finite"),
        (lambda: DeltaGRU(3, 4, thx=float("inf")), ValueError, "thx=inf: a threshold must be finite"),
        (lambda: DeltaGRU(3, 4, thx="0.1"), TypeError, "must be a number"),
        (lambda: DeltaGRU(3, 4, thx=True), TypeError, "thx=True: a threshold must be a number"),
        (
            lambda: DeltaGRU(3, 4, 2, thx=(0.1, 0.2, 0.3)),
            ValueError,
            "thx has 3 values: give one number, or one for each of the 2 layers",
        ),
        (
            lambda: DeltaGRU(3, 4, backend="gpu"),
            ValueError,
            "backend='gpu': must be one of 'auto', 'eager', 'native', 'cuda'",
        ),
        (lambda: DeltaGRU(3, 0), ValueError, "hidden_size must be greater than zero"),
        (lambda: GRU([1.0]), TypeError, "input is a list: must be a Tensor or a PackedSequence"),
        (
            lambda: GRU(X[None]),
            ValueError,
            "input has shape (1, 5, 2, 3): must have 3 dimensions (time, batch, features)",
        ),
        (lambda: DeltaGRU(3, 4, batch_first=True)(X[None]), ValueError, "(batch, time, features)"),
        (lambda: GRU(torch.zeros(5, 2, 7)), ValueError, "input has 7 features: this layer takes input_size=3"),
        (lambda: GRU(X.double()), ValueError, "input is torch.float64, the weights are torch.float32"),
        (lambda: GRU(X[:0]), ValueError, "input has no time steps"),
        (lambda: GRU(X, torch.zeros(1, 2, 4)), ValueError, "h_0 has shape (1, 2, 4), torch.float32: needs (2, 2, 4)"),
        (
            lambda: GRU(X, torch.zeros(2, 2, 4).double()),
            ValueError,
            "h_0 has shape (2, 2, 4), torch.float64: needs (2, 2, 4), torch.float32",
        ),
        (lambda: GRU(X, (torch.zeros(2, 2, 4),)), TypeError, "h_0 is a tuple: must be a Tensor"),
        (lambda: LSTM(X, torch.zeros(1, 2, 4)), TypeError, "hx is a Tensor: must be (h_0, c_0)"),
        (
            lambda: LSTM(X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 5))),
            ValueError,
            "c_0 has shape (1, 2, 5), torch.float32: needs (1, 2, 4)",
        ),
        (lambda: GRU(X, GRU.initial_state(3)), ValueError, "x_hat of the state of l0 has shape (3, 3): needs (2, 3)"),
        (lambda: GRU(X, GRU.initial_state(2)[:1]), ValueError, "the state has 1 entries: this layer has 2"),
        (
            lambda: LSTM(X, GRU.initial_state(2)[:1]),
            TypeError,
            "the state of l0 is a DeltaGRUState: must be DeltaLSTMState",
        ),
        (
            lambda: DeltaGRU(7, 4)(torch.zeros(5, 2, 7), GRU.initial_state(2)[:1]),
            ValueError,
            "x_hat of the state of l0 has shape (2, 3): needs (2, 7)",
        ),
    ],
)
def test_message(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize("backend", ["auto", "eager", "native"])
@pytest.mark.parametrize("kind", ["weight_ih", "weight_hh", "bias_ih", "bias_hh"])
@pytest.mark.parametrize(
    ("module", "suffix"),
    [(lambda: DeltaLSTM(3, 4, 2, thx=0.1, thh=0.1), "_l1"), (lambda: DeltaGRUCell(3, 4, thx=0.1, thh=0.1), "")],
)
@pytest.mark.parametrize("change", [{"device": "meta"}, {"dtype": torch.float64}])
def test_every_parameter_must_be_where_and_of_what_type_the_input_is(
    module: Callable[[], nn.Module], suffix: str, kind: str, backend: str, change: dict[str, Any]
) -> None:
    """A kernel that read another device's address would give whatever lies there."""
    delta, name = module(), kind + suffix
    delta.backend = backend
    setattr(delta, name, nn.Parameter(getattr(delta, name).to(**change)))
    of_input = "input is .*, the weights are torch.float64"
    with pytest.raises(ValueError, match=f"^({name} is (on meta|torch.float64), the input|{of_input})"):
        delta(X[0] if isinstance(delta, DeltaGRUCell) else X)
