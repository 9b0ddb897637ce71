"""Nothing of a module is lost on its way into the engine, the integer cells or a graph, whichever way it got there."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.engine.test_onnx_step import run_steps
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from deltarnn import DeltaGRU, DeltaLSTM, Quantization, record_activity
from deltarnn.engine import Engine, UnsupportedModelError, export_onnx_step
from deltarnn.fixed.float_network import run_float
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters

FRAMES = np.random.default_rng(3).normal(size=(12, 5)).astype(np.float32)


def by_engine(model: nn.Module, folder: Path) -> np.ndarray:
    return Engine.compile(model).run(FRAMES)


def by_graph(model: nn.Module, folder: Path) -> np.ndarray:
    export_onnx_step(model, folder / "step.onnx")
    return run_steps(folder / "step.onnx", FRAMES)


def by_parameters(model: nn.Module, folder: Path) -> np.ndarray:
    """What the integer cells, the exports and the estimates start from."""
    return run_float(NetworkParameters.of(model), FRAMES[:, None].astype(np.float64)).output[:, 0]


DEPLOYED = pytest.mark.parametrize("way", [by_graph, by_parameters])
"""The engine compiles modules whose code has a form frame by frame (tests/engine/test_modules.py)."""
WAYS = pytest.mark.parametrize("way", [by_engine, by_graph, by_parameters])


class Model(nn.Module):
    """A delta layer and a head; `before`, `between` and `after` are code of its forward."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        between: Callable[[Tensor], Tensor] = lambda h: h,
        after: Callable[[Tensor], Tensor] = lambda y: y,
        cell: Any = DeltaGRU,
        **options: Any,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = cell(5, 6, thx=0.25, thh=0.125, **options)
        self.head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 5))
        self.before, self.between, self.after = before, between, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.head(self.between(self.rnn(self.before(x))[0])))


@DEPLOYED
@pytest.mark.parametrize(
    ("place", "module", "name"),
    [
        ("before", nn.LayerNorm(5), r"before\.weight \(of a LayerNorm\)"),
        ("between", nn.LayerNorm(6), r"between\.weight \(of a LayerNorm\)"),
        ("before", nn.Linear(5, 5), r"before\.weight \(of a Linear\), before\.bias \(of a Linear\)"),
        ("after", nn.BatchNorm1d(12, affine=False), r"after\.running_mean .* and 0 more|after\.running_mean"),
        ("before", nn.Sequential(nn.Conv1d(1, 1, 1), nn.PReLU()), r"before\.0\.weight \(of a Conv1d\).*PReLU"),
    ],
)
def test_other_parameters_and_buffers_are_refused_by_name(way: Any, place: str, module: Any, name: str, tmp_path: Path):
    with pytest.raises(UnsupportedModelError, match=f"Model holds {name}.*which would be dropped"):
        way(Model(**{place: module}).eval(), tmp_path)


CODE: list[tuple[dict[str, Any], str | None]] = [
    ({"between": F.relu}, None),
    ({"before": lambda x: x - x.mean(-1, keepdim=True)}, None),
    ({"before": lambda x: x.clamp(-8, 8)}, None),
    ({"before": nn.LayerNorm(5, elementwise_affine=False)}, None),
    ({"between": lambda h: F.layer_norm(h, h.shape[-1:])}, None),
    ({"after": lambda y: y.mean(0)}, "looks at all frames at once"),
    ({"after": lambda y: y.flip(0)}, "moves values from frame to frame"),
    ({"after": lambda y: y.log_softmax(-1)}, None),
    ({"after": lambda y: y[..., :3]}, None),
    ({"after": lambda y: (y * 16).round() / 16}, "does not know round"),
]
"""Code of a forward, and why the engine does not take it."""


def in_torch(model: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(FRAMES)[:, None])[:, 0].numpy()


@pytest.mark.parametrize(("code", "reason"), CODE)
def test_the_engine_takes_code_of_forward_or_names_its_line(code: dict[str, Any], reason: str | None):
    model = Model(**code).eval()
    if reason is None:
        np.testing.assert_allclose(Engine.compile(model).run(FRAMES), in_torch(model), rtol=0, atol=1e-5)
    else:
        with pytest.raises(UnsupportedModelError, match=rf"^test_verification.py, line \d+, `return .*`: .*{reason}"):
            Engine.compile(model)


@DEPLOYED
@pytest.mark.parametrize("code", [code for code, _ in CODE])
def test_code_of_forward_is_refused_with_the_difference(way: Any, code: dict[str, Any], tmp_path: Path):
    with pytest.raises(UnsupportedModelError, match=r"differs from Model on a random sequence, by [\d.inf]+.* of its"):
        way(Model(**code).eval(), tmp_path)
    assert not list(tmp_path.iterdir())


class Residual(Model):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x


class OwnForward(DeltaGRU):
    def forward(self, x: Tensor, hx: Any = None) -> Any:
        output, state = super().forward(x, hx)
        return 2 * output, state


def hooked() -> Model:
    model = Model()
    model.rnn.register_forward_pre_hook(lambda module, arguments: (arguments[0] * 0.9,))
    return model


OTHERS = (Residual, lambda: Model(cell=OwnForward), hooked)


@DEPLOYED
def test_residuals_hooks_and_subclasses_are_refused(way: Any, tmp_path: Path):
    for make in (*OTHERS, lambda: OwnForward(5, 6)):
        with pytest.raises(UnsupportedModelError, match="differs from"):
            way(make().eval(), tmp_path)


def test_the_engine_takes_residuals_hooks_and_subclasses_inside():
    for make in OTHERS:
        model = make().eval()
        np.testing.assert_allclose(Engine.compile(model).run(FRAMES), in_torch(model), rtol=0, atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="differs from OwnForward"):
        Engine.compile(OwnForward(5, 6).eval())


@WAYS
def test_a_model_that_cannot_be_run_says_why(way: Any, tmp_path: Path):
    class TwoInputs(Model):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x) + y

    by_name = r"line \d+: TwoInputs.forward takes x, y: an engine has one input"
    by_run = r"TwoInputs was run .*, 1, 5\).* TypeError: .*missing 1 req"
    with pytest.raises(UnsupportedModelError, match=by_name if way is by_engine else by_run):
        way(TwoInputs(), tmp_path)


class Last(Model):
    """Only the scores after the last step, as classifiers of whole sequences return them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[-1]


class BatchFirst(Model):
    """Takes (B, T, I) and turns it itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(0, 1)).transpose(0, 1)


class WithState(Model):
    """Scores and state, as the layers themselves return."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output, state = self.rnn(x)
        return self.head(output), state


@WAYS
@pytest.mark.parametrize("make", [Model, Last, BatchFirst, WithState, lambda: Model(batch_first=True)])
def test_equal_models_are_taken_whatever_their_layout(way: Any, make: Any, tmp_path: Path):
    model = make().train()
    recorded = record_activity(model)
    with recorded as activity:
        actual = way(model, tmp_path)
        assert not activity.per_layer[0].calls
    assert model.training
    assert model.head[2].training
    assert (model.rnn.thx, model.rnn.thh, model.rnn.backend_used) == ((0.25,), (0.125,), None)
    plain = Model().eval()
    with torch.no_grad():
        np.testing.assert_allclose(actual, plain(torch.from_numpy(FRAMES)[:, None])[:, 0], rtol=0, atol=1e-5)


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


def parametrised(layer: nn.Module, name: str) -> None:
    parametrize.register_parametrization(layer, name, Doubled())


def weight_normed(layer: nn.Module, name: str) -> None:
    parametrizations.weight_norm(layer, name)
    with torch.no_grad():
        getattr(layer.parametrizations, name).original0.mul_(1.5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def weight_normed_by_hook(layer: nn.Module, name: str) -> None:
    nn.utils.weight_norm(layer, name)
    with torch.no_grad():
        getattr(layer, f"{name}_g").mul_(1.5)  # the attribute itself is made anew in the next run


def pruned(layer: nn.Module, name: str) -> None:
    prune.l1_unstructured(layer, name, 0.5)
    with torch.no_grad():
        getattr(layer, f"{name}_orig").mul_(2)


@WAYS
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_ih_l0"])
@pytest.mark.parametrize("change", [parametrised, weight_normed, weight_normed_by_hook, pruned])
@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
def test_changed_parameters_are_read_as_the_layer_uses_them(
    way: Any, name: str, change: Any, cell: Any, tmp_path: Path
):
    model = Model(cell=cell, backend="eager").eval()
    before = copy.deepcopy(model)
    change(model.rnn, name)
    actual = way(model, tmp_path)
    with torch.no_grad():
        x = torch.from_numpy(FRAMES)[:, None]
        assert (model(x) - before(x)).abs().max() > 1e-3
        np.testing.assert_allclose(actual, model(x)[:, 0], rtol=0, atol=1e-5)


@WAYS
def test_changed_parameters_of_the_head(way: Any, tmp_path: Path):
    model = Model().eval()
    weight_normed(model.head[0], "weight")
    pruned(model.head[3], "weight")
    actual = way(model, tmp_path)
    with torch.no_grad():
        np.testing.assert_allclose(actual, model(torch.from_numpy(FRAMES)[:, None])[:, 0], rtol=0, atol=1e-5)


@WAYS
def test_a_plain_head_and_a_head_that_is_no_stack(way: Any, tmp_path: Path):
    model = Model().eval()
    model.head = nn.Linear(6, 5)
    with torch.no_grad():
        expected = model(torch.from_numpy(FRAMES)[:, None])[:, 0]
    np.testing.assert_allclose(way(model, tmp_path), expected, rtol=0, atol=1e-5)
    model.head = nn.Bilinear(6, 6, 5)
    with pytest.raises(
        UnsupportedModelError, match=r"the head is a Bilinear: give a Linear, or a Seq|Bilinear.* missing"
    ):
        way(model, tmp_path)
    model.head = nn.Sequential(nn.ReLU(), nn.Linear(6, 5))
    if way is by_engine:
        np.testing.assert_allclose(way(model, tmp_path), in_torch(model), rtol=0, atol=1e-5)
    else:
        with pytest.raises(UnsupportedModelError, match="the head starts with a ReLU"):
            way(model, tmp_path)


def test_integers_of_a_plain_head_and_heads_that_integers_do_not_have():
    model = Model(quantization=Quantization(), backend="eager").eval()
    model.head = nn.Linear(6, 5)
    network = IntegerNetwork.convert(model)
    with torch.no_grad():
        expected = model(torch.from_numpy(FRAMES)[:, None])[:, 0]
    actual = network.to_float(network.run(FRAMES).output)[:, 0]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.02)  # the head's own rounding
    for modules, named in [
        ((nn.Linear(6, 5), nn.ReLU()), "Linear, ReLU"),
        ((nn.Linear(6, 5), nn.Linear(5, 5)), "Linear, Linear"),
    ]:
        model.head = nn.Sequential(*modules)
        with pytest.raises(UnsupportedModelError, match=f"the head is {named}: in integers a ReLU must follow"):
            IntegerNetwork.convert(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
@pytest.mark.parametrize("scale", [1, 3])
def test_rounding_is_no_difference(dtype: torch.dtype, cell: Any, scale: int):
    """Large networks, weights that amplify errors, coarse dtypes: all are taken for what they are."""
    for seed in range(3):
        torch.manual_seed(seed)
        layer = cell(40, 256, 2, dtype=dtype)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(scale)
        Engine.compile(layer)
