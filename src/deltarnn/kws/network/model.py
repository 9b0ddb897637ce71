"""The keyword network: a recurrent layer over feature frames, a dense head that scores the classes at every frame."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from deltarnn.engine.model_file import (
    ModelFileError,
    load_model,
    read_quantization,
    save_model,
    write_quantization,
)
from deltarnn.fixed.qformat import Quantization
from deltarnn.kws.config.grid import grid_of
from deltarnn.kws.network.header import check_header, feature_folder
from deltarnn.nn import DeltaGRU, DeltaLSTM
from deltarnn.nn.conversion import convert
from deltarnn.nn.initialization import initialize

Cell = Literal["GRU", "LSTM"]
State = Any
"""Whatever the recurrent layer carries from chunk to chunk."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of a keyword network and its activation functions."""

    input_size: int
    classes: int
    cell: Cell = "GRU"
    hidden_size: int = 64
    num_layers: int = 1
    fc_extra_size: int = 0
    hard_activations: bool = False


class KeywordModel(nn.Module):
    """Normalised features (T, B, I) to class scores (T, B, C), a frame at a time or many.

    rnn: nn.GRU or nn.LSTM, or the delta layer that `to_delta` puts in its place; state_dict names are the same.
    head: Linear, or Linear, ReLU, Linear with fc_extra_size units in between.
    score_grid: rounds the class scores in evaluation mode; None leaves them.

    Hard activations exist in the delta layers alone, so such a network is built on a delta layer with thresholds 0.
    """

    def __init__(self, architecture: Architecture, rnn_dropout: float = 0.0, fc_dropout: float = 0.0) -> None:
        super().__init__()
        a = self.architecture = architecture
        dense: type[nn.GRU] | type[nn.LSTM] = nn.GRU if a.cell == "GRU" else nn.LSTM
        self.rnn: nn.RNNBase = dense(
            a.input_size, a.hidden_size, a.num_layers, dropout=rnn_dropout if a.num_layers > 1 else 0.0
        )
        initialize(self.rnn, "orthogonal")
        if a.hard_activations:
            self.rnn = cast(nn.RNNBase, convert(self.rnn, hard_activations=True))
        self.fc_dropout = fc_dropout
        sizes = [a.hidden_size, *([a.fc_extra_size] if a.fc_extra_size else []), a.classes]
        layers: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            layers += [nn.ReLU()] if index else []
            layers += [nn.Linear(inputs, outputs)]
        self.head = nn.Sequential(*layers)
        self.score_grid: Callable[[Tensor], Tensor] | None = None

    @property
    def delta(self) -> DeltaGRU | DeltaLSTM | None:
        """The delta layer, or None while the recurrent layer is nn.GRU or nn.LSTM."""
        return self.rnn if isinstance(self.rnn, (DeltaGRU, DeltaLSTM)) else None

    @property
    def parameter_count(self) -> int:
        """Number of weights and biases."""
        return sum(p.numel() for p in self.parameters())

    def to_delta(
        self, thx: tuple[float, ...] = (0.0,), thh: tuple[float, ...] = (0.0,), quantization: Quantization | None = None
    ) -> "KeywordModel":
        """Replace a dense recurrent layer by its delta layer, or set the delta layer's thresholds and formats."""
        if self.delta is None:
            convert(self, thx=_scalar(thx), thh=_scalar(thh), quantization=quantization)
        else:
            self.delta.quantization = None  # formats and thresholds are checked against each other
            self.set_thresholds(thx, thh)
            self.delta.quantization = quantization
        return self

    def set_thresholds(self, thx: tuple[float, ...], thh: tuple[float, ...]) -> None:
        """Thresholds of the delta layer, one or one per layer."""
        assert self.delta is not None
        self.delta.thx, self.delta.thh = _scalar(thx), _scalar(thh)

    def forward(self, features: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Class scores (T, B, C) of features (T, B, I), and the state to give with the next chunk.

        state: None or as of nn.GRU, nn.LSTM, and then so is the one returned; or the full delta state of
        `initial_state` or an earlier call, which continues that stream exactly.
        """
        output, state = self.rnn(features, state)
        if self.fc_dropout:
            output = nn.functional.dropout(output, self.fc_dropout, self.training)
        scores = cast(Tensor, self.head(output))
        return scores if self.training or self.score_grid is None else self.score_grid(scores), state

    def initial_state(self, batch_size: int) -> State:
        """The state before the first chunk of a stream."""
        return None if self.delta is None else self.delta.initial_state(batch_size)

    def save(self, path: str | Path, **application: Any) -> None:
        """Write a model file (docs/model_file.md); `application` fields (labels, features, …) go into its header."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_model(path, {k: v.detach().cpu().numpy() for k, v in self.state_dict().items()}, self._header(application))

    def _header(self, application: dict[str, Any]) -> dict[str, Any]:
        a, layer = self.architecture, self.delta
        linears = [module for module in self.head if isinstance(module, nn.Linear)]
        quantization = layer.quantization if layer is not None else None
        return {
            "format": 1,
            "architecture": {
                "cell": a.cell,
                "input_size": a.input_size,
                "hidden_size": a.hidden_size,
                "num_layers": a.num_layers,
                "bias": True,
                "bidirectional": False,
                "proj_size": 0,
                "hard_activations": a.hard_activations,
                "head": [
                    {"in": m.in_features, "out": m.out_features, "activation": "relu" if m is not linears[-1] else None}
                    for m in linears
                ],
            },
            "thx": list(layer.thx) if layer is not None else [0.0] * a.num_layers,
            "thh": list(layer.thh) if layer is not None else [0.0] * a.num_layers,
            "quantization": write_quantization(quantization),
            **application,
        }


def load_keyword_model(path: str | Path) -> tuple[KeywordModel, dict[str, Any]]:
    """The network of a model file, a delta network whatever its thresholds, and the file's header.

    Raises
    ------
    ModelFileError
        If the file is not a model file, or holds a layer that is no keyword network.
    """
    path = Path(path)
    tensors, header = load_model(path)
    a = header["architecture"]
    if not a["head"] or a["bidirectional"] or a["proj_size"] or not a["bias"] or len(a["head"]) > 2:
        raise ModelFileError(f"{path}: not a keyword network (a recurrent layer with biases and a dense head)")
    if not a.get("reset_after", True) or a.get("candidate", "tanh") != "tanh":
        raise ModelFileError(f"{path}: its GRU resets before the product, or has another candidate than tanh")
    architecture = Architecture(
        input_size=a["input_size"],
        classes=a["head"][-1]["out"],
        cell=a["cell"],
        hidden_size=a["hidden_size"],
        num_layers=a["num_layers"],
        fc_extra_size=a["head"][0]["out"] if len(a["head"]) > 1 else 0,
        hard_activations=a["hard_activations"],
    )
    check_header(path, header, architecture.classes)
    training = header.get("training", {})
    if "feature_folder" in training:
        training["feature_folder"] = feature_folder(path, training["feature_folder"])
    model = KeywordModel(architecture)
    model.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
    scores = (header.get("class_quantization") or {}).get("score")
    if scores is not None:
        model.score_grid = grid_of(scores["mode"], *scores["format"])
    return model.to_delta(tuple(header["thx"]), tuple(header["thh"]), read_quantization(header)).eval(), header


def _scalar(thresholds: tuple[float, ...]) -> float | tuple[float, ...]:
    return thresholds[0] if len(thresholds) == 1 else thresholds
