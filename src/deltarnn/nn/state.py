"""The states of delta layers, and the data passed between a layer and its backends."""

from typing import Literal, NamedTuple

from torch import Tensor

from deltarnn.fixed.qformat import Quantization


class DeltaGRUState(NamedTuple):
    """Full state of one DeltaGRU layer and direction (MATH §2).

    x_hat: (B, I) delta memory of the input. h: (B, H) hidden state. h_hat: (B, H) delta memory of the hidden state.
    m: (B, 4H) pre-activation memories in the order r, z, nx, nh.
    """

    x_hat: Tensor
    h: Tensor
    h_hat: Tensor
    m: Tensor


class DeltaGRUResetBeforeState(NamedTuple):
    """Full state of one layer and direction of DeltaGRU(reset_after=False): as `DeltaGRUState`, and
    rh_hat: (B, H) delta memory of r ∘ h.
    """

    x_hat: Tensor
    h: Tensor
    h_hat: Tensor
    rh_hat: Tensor
    m: Tensor


class DeltaLSTMState(NamedTuple):
    """Full state of one DeltaLSTM layer and direction (MATH §3).

    x_hat: (B, I). h, h_hat: (B, H), or (B, P) with a projection. c: (B, H) cell state. m: (B, 4H), order i, f, g, o.
    """

    x_hat: Tensor
    h: Tensor
    h_hat: Tensor
    c: Tensor
    m: Tensor


DeltaState = DeltaGRUState | DeltaGRUResetBeforeState | DeltaLSTMState

Candidate = Literal["tanh", "relu"]
"""The function of a GRU's candidate n."""


class FreshState(NamedTuple):
    """The state before a new sequence, not written out: delta memories 0, m the biases, h and the LSTM's c (B, H) as
    given, None for 0.
    """

    h: Tensor | None = None
    c: Tensor | None = None


class LayerParameters(NamedTuple):
    """Weights of one layer and direction, as PyTorch's: weight_ih (GH, I), weight_hh (GH, H or P), weight_hr (P, H).

    G is 3 for the GRU, 4 for the LSTM. The biases (GH,) enter through the memory m of a fresh state, and nowhere else.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None = None
    bias_hh: Tensor | None = None
    weight_hr: Tensor | None = None


class LayerOptions(NamedTuple):
    """Settings of one layer: thresholds, activation functions, formats of quantised inference (None: float).

    reset_after: False where a GRU's reset gate is applied before the product. candidate: the function of its n.
    """

    thx: float
    thh: float
    hard_activations: bool
    quantization: Quantization | None
    reset_after: bool = True
    candidate: Candidate = "tanh"


class SequenceActivity(NamedTuple):
    """Events of one layer over one sequence, padding excluded.

    counts: (4,) int64, how many deltas of x and of h are 0, and how many deltas of x and of h there are.
    l1_delta_h: 0-dim Σ|Δh|, differentiable. fired_x (T, B, I), fired_h (T, B, H): bool, where deltas are not 0; None
    unless asked for. Of a GRU that resets before its product: counts (6,) of x, h and r ∘ h, l1_delta_h of both, and
    fired_h (T, B, 2H).
    """

    counts: Tensor
    l1_delta_h: Tensor
    fired_x: Tensor | None
    fired_h: Tensor | None


class SequenceResult(NamedTuple):
    """output (T, B, H or P), zero in the padding; the state after each sample's last step; the activity.

    Where only the output was asked for: as the state h and c in a FreshState, and no activity.
    """

    output: Tensor
    state: DeltaState | FreshState
    activity: SequenceActivity | None
