"""Modules that have no form frame by frame: each is refused with the line of its code, and why."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltarnn import DeltaGRU
from deltarnn.engine import Engine, UnsupportedModelError


class Around(nn.Module):
    """A delta layer, and code before and after it: (T, B, I)."""

    def __init__(self, before: Any = None, after: Any = None, **options: Any) -> None:
        super().__init__()
        self.enter = nn.Linear(5, 6)
        self.rnn = DeltaGRU(6, 6, **options)
        self.before, self.after = before or (lambda x: x), after or (lambda y: y)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.rnn(self.before(self.enter(x)))[0])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = DeltaGRU(6, 6)
        self.attention = nn.MultiheadAttention(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rnn(x)[0]
        return self.attention(y, y, y, need_weights=False)[0]  # every frame sees all others


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter = DeltaGRU(6, 6)
        self.rnn = nn.GRU(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.enter(x)[0])[0]


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = DeltaGRU(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.out(frame) for frame in self.rnn(x)[0]])


class State(nn.Module):
    """An initial state that the signal decides."""

    def __init__(self, start: Any = lambda x: x[-1:]) -> None:
        super().__init__()
        self.rnn, self.start = DeltaGRU(6, 6), start

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x, self.start(x))[0] + x


class Within(nn.Module):
    """An initial state of a layer along the bands of each frame, (T, 1, F·I)."""

    def __init__(self) -> None:
        super().__init__()
        self.along, self.rnn = DeltaGRU(10, 12), DeltaGRU(4, 6, batch_first=True)
        self.start = nn.Parameter(torch.ones(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        bands = self.along(x)[0].reshape(-1, 3, 4)
        return self.rnn(bands, self.start.expand(-1, x.shape[0], -1))[0]


class Two(nn.Module):
    """Two sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = DeltaGRU(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.rnn(x)[0]
        return y, self.out(y)


class Carried(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = DeltaGRU(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.rnn(x, h)
        return self.out(y), h


def conv(y: Tensor, pad: tuple[int, int], **options: Any) -> Tensor:
    return F.conv1d(F.pad(y.permute(1, 2, 0), pad), torch.ones(6, 6, 3), **options).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Attention, r"_refusals.py, line \d+, `return self.attention\(y, y, y.*`: .*(meet|product)"),
        (Cells, "rnn is a dense GRU: convert it first"),
        (Loop, "Loop fixes the number of frames"),
        (
            State,
            r"`return self.rnn\(x, self.start\(x\)\)\[0\] \+ x`: a delta layer is given an initial state that comes",
        ),
        (Within, r"`return self.rnn\(bands, self.start.expand.*`: makes values as long as the signal"),
        (
            Two,
            r"_refusals.py, line \d+, `return y, self.out\(y\)`: the module returns this sequence beside its first",
        ),
        (
            Carried,
            r"_refusals.py, line \d+: Carried.forward takes x, h: an engine has one input, and keeps states",
        ),
        (lambda: Around(bidirectional=True, after=lambda y: y[..., :5]), "bidirectional delta layer along the frames"),
        (lambda: Around(after=lambda y: conv(y, (1, 1))), "looks 1 frames ahead: pad its input by .* = 2 frames"),
        (lambda: Around(after=lambda y: conv(y, (2, 0), stride=2)), "stride 2 over the frames"),
        (lambda: Around(after=lambda y: conv(y, (0, 0))), "looks 2 frames ahead"),
        (lambda: Around(after=lambda y: conv(y, (3, 0))), "1 frames more padding in front"),
        (lambda: Around(after=lambda y: conv(y, (2, 2))), "returns 2 frames more than it is given"),
        (lambda: Around(after=lambda y: y[:-1]), "returns 1 frames less than it is given"),
        (lambda: Around(after=lambda y: y - y.mean(0)), r"`lambda y: y - y.mean\(0\)|looks at all frames at once"),
        (lambda: Around(after=lambda y: y.flip(0)), "moves values from frame to frame"),
        (lambda: Around(after=lambda y: y[::2]), "picks some of the frames"),
        (lambda: Around(after=lambda y: y[0]), "picks a frame that is not the last"),
        (lambda: Around(after=lambda y: y.cumsum(0)), "the engine does not know cumsum; beside delta layers it takes"),
        (lambda: Around(after=lambda y: y / y.shape[0]), "computes with the number of frames"),
        (lambda: Around(after=lambda y: y + torch.arange(y.shape[0])[:, None, None]), "as long as the signal"),
        (lambda: Around(after=lambda y: y[y > 0]), "depends on the signal itself|does not know gt"),
        (lambda: Around(after=lambda y: y if y.sum() > 0 else -y), "depends on the signal itself"),
        (lambda: Around(after=lambda y: y.reshape(-1, 3)), "moves values from frame to frame"),
        (lambda: Around(after=lambda y: y + F.pad(y, (0, 0, 0, 0, 1, 0))[:-1]), "padded frames in front"),
    ],
)
def test_what_has_no_form_frame_by_frame_is_refused_by_its_line(make: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message) as told:
        Engine.compile(make().eval())
    assert "\n" not in str(told.value)
