"""Structured pruning: column-balanced targeted dropout and its storage format. Imports without torch."""

from typing import TYPE_CHECKING, Any

from deltarnn.prune.cbcsc import CBCSC
from deltarnn.prune.column_balanced import balanced_length, balanced_sparsity, column_balanced_dropout

if TYPE_CHECKING:
    from deltarnn.prune.pruner import ColumnBalancedPruner, PruningError

__all__ = [
    "CBCSC",
    "ColumnBalancedPruner",
    "PruningError",
    "balanced_length",
    "balanced_sparsity",
    "column_balanced_dropout",
]


def __getattr__(name: str) -> Any:
    # The training companion works on torch modules; the functions and CBCSC do not need torch.
    if name in ("ColumnBalancedPruner", "PruningError"):
        from deltarnn.prune import pruner

        return getattr(pruner, name)
    raise AttributeError(f"module 'deltarnn.prune' has no attribute {name!r}")
