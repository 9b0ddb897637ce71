"""Column-balanced targeted dropout: structured sparsity that keeps many processing elements equally busy (MATH §7).

Of a weight matrix with R rows, processing element p of M owns rows p, p + M, p + 2M, … In each column, that
"sub-column" of s rows loses its floor(s·γ) smallest magnitudes, each with probability α. Spartus (TNNLS 2022).
"""

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Weight = TypeVar("Weight", "torch.Tensor", NDArray[Any])


def subcolumn_rows(rows: int, num_pe: int) -> NDArray[np.int64]:
    """(M,) how many of `rows` each processing element owns; they differ by one where M does not divide the rows."""
    return (rows - np.arange(num_pe) + num_pe - 1) // num_pe


def dropped_weights(rows: int, gamma: float, num_pe: int) -> NDArray[np.int64]:
    """(M,) floor(s·γ) of each processing element's sub-column: the weights per column that it may lose."""
    check_balance(gamma, num_pe)
    return np.array([math.floor(int(s) * gamma) for s in subcolumn_rows(rows, num_pe)], dtype=np.int64)


def balanced_length(rows: int, gamma: float, num_pe: int) -> int:
    """BLEN = max over the processing elements of s − floor(s·γ): the weights that each keeps of a column, at most."""
    return int((subcolumn_rows(rows, num_pe) - dropped_weights(rows, gamma, num_pe)).max())


def balanced_sparsity(rows: int, gamma: float, num_pe: int) -> float:
    """The sparsity that γ really asks of a matrix with `rows` rows, after its floors: Σ floor(s·γ) / rows."""
    return float(dropped_weights(rows, gamma, num_pe).sum() / rows)


def check_balance(gamma: float, num_pe: int) -> None:
    """Raise ValueError unless 0 ≤ gamma < 1 and num_pe is a positive whole number."""
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma={gamma!r}: the fraction of weights to drop must be at least 0 and below 1")
    if isinstance(num_pe, bool) or int(num_pe) != num_pe or num_pe < 1:
        raise ValueError(f"num_pe={num_pe!r}: the number of processing elements must be a whole number, at least 1")


def column_balanced_dropout(
    weight: Weight, gamma: float, num_pe: int, alpha: float = 1.0, generator: Any = None
) -> Weight:
    """`weight` with the smallest magnitudes of every sub-column set to zero.

    >>> column_balanced_dropout(np.array([[3.0], [1.0], [2.0], [4.0]]), gamma=0.5, num_pe=2)
    array([[3.],
           [0.],
           [0.],
           [4.]])

    Parameters
    ----------
    weight: (R, C), or (R,) taken as one column. A torch tensor (any device) or a NumPy array; left unchanged.
    gamma: fraction γ of each sub-column to drop, 0 ≤ γ < 1.
    num_pe: number M of processing elements.
    alpha: probability with which each candidate is really dropped; 1 is deterministic.
    generator: where the draws come from: a torch.Generator (on the tensor's device) or a numpy.random.Generator.

    Returns
    -------
    A new weight of the same shape, type and device. Among equal magnitudes the lowest rows go first.
    """
    check_balance(gamma, num_pe)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha!r}: a probability must lie between 0 and 1")
    if weight.ndim not in (1, 2):
        raise ValueError(f"weight has shape {tuple(weight.shape)}: must be a matrix (R, C) or a vector (R,)")
    if isinstance(weight, np.ndarray):
        return _drop_numpy(weight, gamma, num_pe, alpha, generator)
    return _drop_torch(weight, gamma, num_pe, alpha, generator)


def _drop_numpy(
    weight: NDArray[Any], gamma: float, num_pe: int, alpha: float, generator: np.random.Generator | None
) -> NDArray[Any]:
    rows = weight.shape[0]
    magnitude = np.abs(weight.reshape(rows, -1)).astype(np.float64)
    # Row r is entry r // M of element r % M. Padding rows are infinite, so they rank last and are never dropped.
    longest = -(-rows // num_pe)
    padded = np.full((longest * num_pe, magnitude.shape[1]), np.inf)
    padded[:rows] = magnitude
    order = np.argsort(padded.reshape(longest, num_pe, -1), axis=0, kind="stable")
    rank = np.argsort(order, axis=0, kind="stable")
    drop = (rank < dropped_weights(rows, gamma, num_pe)[:, None]).reshape(longest * num_pe, -1)[:rows]
    if alpha < 1:
        random = generator if generator is not None else np.random.default_rng()
        drop = drop & (random.random(drop.shape) < alpha)
    return np.where(drop.reshape(weight.shape), np.zeros((), dtype=weight.dtype), weight)


def _drop_torch(
    weight: "torch.Tensor", gamma: float, num_pe: int, alpha: float, generator: "torch.Generator | None"
) -> "torch.Tensor":
    import torch

    rows = weight.shape[0]
    magnitude = weight.detach().reshape(rows, -1).abs()
    if magnitude.dtype not in (torch.float32, torch.float64):
        magnitude = magnitude.float()  # half precision and integers cannot all be sorted beside infinity
    longest = -(-rows // num_pe)
    padded = magnitude.new_full((longest * num_pe, magnitude.shape[1]), torch.inf)
    padded[:rows] = magnitude
    order = torch.argsort(padded.view(longest, num_pe, -1), dim=0, stable=True)
    rank = torch.argsort(order, dim=0, stable=True)
    dropped = torch.from_numpy(dropped_weights(rows, gamma, num_pe)).to(weight.device)
    drop = (rank < dropped[:, None]).view(longest * num_pe, -1)[:rows]
    if alpha < 1:
        draws = torch.rand(drop.shape, generator=generator, device=weight.device)
        drop = drop & (draws < alpha)
    return weight.masked_fill(drop.view(weight.shape), 0)
