"""Thresholds to a loss budget, and fine-tuning towards the dense network's outputs."""

from typing import TYPE_CHECKING

from deltarnn.lazy import lazy_names

if TYPE_CHECKING:
    from deltarnn.adapt.distillation import distill
    from deltarnn.adapt.network import Network
    from deltarnn.adapt.tuned import Tuned
    from deltarnn.adapt.tuning import tune

__all__ = ["Network", "Tuned", "distill", "tune"]

__getattr__, __dir__ = lazy_names(
    __name__, {"Network": "network", "Tuned": "tuned", "distill": "distillation", "tune": "tuning"}
)
