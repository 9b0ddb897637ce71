"""Small networks and slow signals to tune and to distill."""

import torch
from torch import Tensor, nn


class Tagger(nn.Module):
    """A linear layer, two recurrent layers, a linear layer: (T, B, 6) → (T, B, 3)."""

    def __init__(self, cell: type[nn.RNNBase] = nn.GRU, seed: int = 0, hidden: int = 12, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.front = nn.Linear(6, 8)
        self.rnn = cell(8, hidden, layers)
        self.head = nn.Linear(hidden, 3)
        with torch.no_grad():
            for parameter in self.rnn.parameters():
                parameter.mul_(1.5)  # livelier than untrained ones

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.front(x))[0])


def walks(count: int, steps: int = 80, batch: int = 2, features: int = 6, seed: int = 0) -> list[Tensor]:
    """Random walks (T, B, I), which change little from step to step."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(steps, batch, features, generator=generator).cumsum(0).mul(0.2) for _ in range(count)]


def output_error(model: nn.Module, dense: nn.Module, items: list[Tensor]) -> float:
    """Σ (y − y of the dense)² / Σ (y of the dense − its mean)²."""
    with torch.no_grad():
        y, expected = (torch.stack([m(x) for x in items]).double() for m in (model, dense))
    return float((y - expected).square().sum() / (expected - expected.mean()).square().sum())
