"""Whole modules in the engine: equal to themselves in torch, however a stream is cut, saved or copied."""

import copy
import functools
import math
import operator
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.layers import guarded
from torch import Tensor, nn

from deltarnn import DeltaGRU, DeltaLSTM, Quantization, record_activity
from deltarnn.engine import Engine, ModelFileError, UnsupportedModelError
from deltarnn.engine.module_engine import ModuleEngine
from deltarnn.engine.module_file import KEY
from deltarnn.engine.tracing import delta_layers
from deltarnn.stored import load_stored, save_stored


class Encoder(nn.Module):
    """Causal convolutions, a BatchNorm, a delta GRU, a head: (B, C, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(5, 8, 3)
        self.second = nn.Conv1d(8, 8, 3, dilation=2, groups=4, padding=4)
        self.norm = nn.BatchNorm1d(8)
        self.rnn = DeltaGRU(8, 12, 2, thx=0.1, thh=0.05)
        self.head = nn.Sequential(nn.Linear(12, 7), nn.PReLU(), nn.Linear(7, 3))
        nn.init.uniform_(self.norm.running_mean, -0.5, 0.5)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.elu(self.first(F.pad(x, (2, 0))))
        y = F.gelu(self.norm(self.second(y)[..., :-4]))
        return self.head(self.rnn(y.permute(2, 0, 1))[0]).permute(1, 2, 0)


class Normed(nn.Module):
    """LayerNorm between delta layers, with residuals around them: (B, T, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 10)
        self.one = DeltaGRU(10, 10, batch_first=True, thx=0.05, thh=0.05)
        self.two = DeltaLSTM(10, 16, batch_first=True, proj_size=10, thx=0.1)
        self.norms = nn.ModuleList([nn.LayerNorm(10), nn.LayerNorm(10, elementwise_affine=False)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        for norm, layer in zip(self.norms, (self.one, self.two), strict=True):
            y = y + layer(norm(y))[0]
        return y * torch.sigmoid(y.mean(-1, keepdim=True))


class Branches(nn.Module):
    """Two groups of features with a small GRU each, and one of all; concatenated, shuffled: (T, B, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = nn.ModuleList(DeltaGRU(4, 3, thx=0.1, thh=0.1) for _ in range(2))
        self.other = DeltaLSTM(8, 6, thx=0.2)
        self.mix = nn.Conv1d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [layer(part)[0] for layer, part in zip(self.groups, x.chunk(2, -1), strict=True)]
        grouped = torch.stack(parts, -1).flatten(-2)
        y = torch.cat([grouped, torch.tanh(self.other(x)[0])], -1)
        return F.softmax(self.mix(y.permute(1, 2, 0)).permute(2, 0, 1), -1)


class Last(nn.Module):
    """Scores of the last state, as classifiers of whole sequences give them."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = DeltaGRU(6, 9, 2, batch_first=True, thx=0.1)
        self.head = nn.Linear(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        y, h = self.rnn(x - 0.5)
        return self.head(torch.cat([y[:, -1], F.relu(h[-2])], -1))


class Started(nn.Module):
    """Learned initial states, and zeros; the final state beside the output, in a mapping: (T, B, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = DeltaGRU(6, 9, 2, thx=0.1, thh=0.05), DeltaLSTM(9, 7, thx=0.1, proj_size=5)
        self.three = DeltaGRU(5, 4, thx=0.05)
        self.h, self.c = nn.Parameter(torch.empty(3, 1, 9)), nn.Parameter(torch.empty(1, 7))
        nn.init.uniform_(self.h, -1, 1)
        nn.init.uniform_(self.c, -2, 2)

    def forward(self, x: Tensor, scale: float = 0.5) -> dict[str, Any]:
        y, last = self.one(x, self.h[:2].expand(-1, x.shape[1], -1) * scale)
        y, _ = self.two(y, (self.h[2:, :, :5].tanh(), self.c[:, None]))
        return {"y": self.three(y, torch.zeros(1, x.shape[1], 4))[0], "state": (last,)}


class Bands(nn.Module):
    """Along the bands of each frame in both directions, then along time in each band: (B, C, T, F), as in DPRNN."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(2, 4, (2, 3), padding=(0, 1))
        self.within = DeltaGRU(4, 3, batch_first=True, bidirectional=True, thx=0.05)
        self.along = DeltaGRU(6, 4, batch_first=True, thx=0.1, thh=0.1)
        self.leave = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.enter(F.pad(x, (0, 0, 1, 0))))
        batch, channels, steps, bands = y.shape
        y = self.within(y.permute(0, 2, 3, 1).reshape(batch * steps, bands, channels))[0]
        y = y.reshape(batch, steps, bands, 6).transpose(1, 2).reshape(batch * bands, steps, 6)
        y = self.along(y)[0].reshape(batch, bands, steps, 4)
        return self.leave(y.permute(0, 3, 2, 1))


TREES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "encoder": (Encoder, (1, 5, 12), 2),
    "normed": (Normed, (1, 12, 6), 1),
    "branches": (Branches, (12, 1, 8), 0),
    "last": (Last, (1, 12, 6), 1),
    "started": (Started, (12, 1, 6), 0),
    "bands": (Bands, (1, 2, 12, 5), 2),
}


def make(name: str) -> tuple[nn.Module, Engine]:
    torch.manual_seed(3)
    model = TREES[name][0]().eval()
    example = torch.zeros(TREES[name][1]) if name == "bands" else None
    return model, Engine.compile(model, example=example)


@pytest.fixture(scope="module")
def compiled() -> Callable[[str], tuple[nn.Module, Engine]]:
    known: dict[str, tuple[nn.Module, Engine]] = {}

    def of(name: str) -> tuple[nn.Module, Engine]:
        if name not in known:
            known[name] = make(name)
        return known[name]

    return of


def signal(name: str, steps: int, seed: int = 0) -> np.ndarray:
    _, shape, axis = TREES[name]
    width = int(np.prod(shape)) // shape[axis]
    return (np.random.default_rng(seed).normal(size=(steps, width)) * 0.3).cumsum(0).astype(np.float32)


def shaped(name: str, frames: np.ndarray) -> Tensor:
    _, shape, axis = TREES[name]
    rest = [size for at, size in enumerate(shape) if at != axis]
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames.reshape(-1, *rest), 0, axis)))


def eager(model: nn.Module, name: str, frames: np.ndarray) -> np.ndarray:
    """What the module gives, (T, O); of `Last` from every beginning of the signal."""
    axis = TREES[name][2]
    with torch.no_grad():
        if name == "last":
            return np.concatenate([model(shaped(name, frames[: n + 1])).numpy() for n in range(len(frames))])
        y = model(shaped(name, frames))
        return np.moveaxis((y["y"] if name == "started" else y).numpy(), axis, 0).reshape(len(frames), -1)


def is_guarded(model: nn.Module, name: str, frames: np.ndarray) -> bool:
    """Whether no delta in any layer is near its threshold."""
    entering: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, given: entering.append((layer, given[0])))
        for layer in delta_layers(model)
    ]
    eager(model, name, frames)
    for hook in hooks:
        hook.remove()
    return all(
        guarded(layer, x.transpose(0, 1) if layer.batch_first else x)
        for layer, x in entering
        if not layer.bidirectional and not layer.proj_size
    )


@pytest.mark.parametrize("name", TREES)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 999), steps=st.integers(2, 24))
def test_equal_to_the_module(compiled: Any, name: str, seed: int, steps: int) -> None:
    model, engine = compiled(name)
    frames = signal(name, steps, seed)
    frames = frames[:12] if name == "last" else frames
    assume(is_guarded(model, name, frames))
    stream = engine.stream()
    assert isinstance(stream, ModuleEngine)
    np.testing.assert_allclose(stream.run(frames), eager(model, name, frames), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", TREES)
def test_any_cut_gives_the_same_bits_and_so_do_files_copies_and_pickles(
    compiled: Any, name: str, tmp_path: Path
) -> None:
    _, engine = compiled(name)
    engine.reset()
    frames = signal(name, 30)
    expected = engine.run(frames)
    assert expected.shape == (30, engine.output_size)
    with pytest.raises(TypeError, match=r"in the middle of a stream"):
        copy.copy(engine)
    activity = engine.activity
    engine.reset()
    assert engine.activity.per_layer[0].steps == 0
    np.testing.assert_array_equal(np.stack([engine.step(frame) for frame in frames[:7]]), expected[:7])
    np.testing.assert_array_equal(engine.run(frames[7:]), expected[7:])
    assert engine.activity == activity
    engine.save(tmp_path / "module.safetensors")
    for other in (
        Engine.load(tmp_path / "module.safetensors"),
        engine.stream(),
        copy.deepcopy(engine.stream()),
        pickle.loads(pickle.dumps(engine.stream())),
    ):
        assert (other.thx, other.thh, other.input_size) == (engine.thx, engine.thh, engine.input_size)
        np.testing.assert_array_equal(other.run(frames), expected)


@pytest.mark.parametrize("name", ["encoder", "branches"])
def test_activity_is_that_of_the_layers(compiled: Any, name: str) -> None:
    model, engine = compiled(name)
    frames = next(frames for seed in range(50) if is_guarded(model, name, frames := signal(name, 40, seed)))
    engine.reset()
    engine.run(frames)
    with record_activity(model) as recorded:
        eager(model, name, frames)
    assert engine.activity.sparsity == pytest.approx(recorded.sparsity, rel=1e-12)
    assert engine.activity.effective_sparsity == pytest.approx(recorded.effective_sparsity, rel=1e-12)


def test_a_compiled_module_is_the_module_inside() -> None:
    module = Normed().eval()
    frames = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)
    engine = Engine.compile(torch.compile(module))
    np.testing.assert_array_equal(engine.run(frames), Engine.compile(module).run(frames))


def test_other_precisions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Encoder().eval()
    for layer in delta_layers(model):
        layer.thx = layer.thh = 0.0
    frames = signal("encoder", 200)
    expected = eager(model, "encoder", frames)
    assert np.abs(Engine.compile(model, "bfloat16").run(frames) - expected).max() < 0.1
    engine = Engine.compile(model, "int8", calibration=[frames, frames[:50]])
    actual = engine.run(frames)
    assert np.square(actual - expected).sum() < 0.01 * np.square(expected - expected.mean(0)).sum()
    assert engine.accumulator_bits == (32, 32)
    assert len(engine.formats) == 2
    engine.save(tmp_path / "module.safetensors")
    loaded = Engine.load(tmp_path / "module.safetensors")
    assert loaded.precision == "int8"
    np.testing.assert_array_equal(loaded.run(frames), actual)
    for layer in delta_layers(model):
        layer.quantization = Quantization()
    with pytest.raises(ValueError, match="the model has fixed-point formats"):
        Engine.compile(model)
    assert Engine.compile(model, "int8").quantization == Quantization()


def test_initial_states_other_than_zeros_have_no_int8_form() -> None:
    model = Started().eval()
    with pytest.raises(UnsupportedModelError, match="has an initial state other than zeros, which int8's formats"):
        Engine.compile(model, "int8")
    with torch.no_grad():
        model.h.zero_()
        model.c.zero_()
    assert Engine.compile(model, "int8").precision == "int8"


def test_a_batchnorm_in_training_mode_is_refused() -> None:
    model = Encoder().train()
    with pytest.raises(UnsupportedModelError, match=r"norm is a BatchNorm in training mode.*call model.eval\(\) first"):
        Engine.compile(model)
    model.norm.eval()
    assert Engine.compile(model).output_size == 3
    assert model.training
    model.norm = nn.BatchNorm1d(8, track_running_stats=False)
    with pytest.raises(UnsupportedModelError, match="takes its statistics from the signal"):
        Engine.compile(model.eval())


MISSING = object()


def places_in(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values of nested objects and lists."""
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places_in(value, (*path, key))


def test_hostile_programs_load_or_are_refused(tmp_path: Path) -> None:
    """Another value in any place of a file's record, or none there: a ModelFileError, or an engine that runs."""
    path = tmp_path / "module.safetensors"
    Engine.compile(Last().eval()).save(path)
    arrays, record = load_stored(path, KEY)
    refused = 0
    for place in places_in(record):
        for value in (0, -1, 7, 1 << 20, 1 << 31, 1 << 40, 0.5, math.inf, "relu", None, True, [], {}, MISSING):
            changed = copy.deepcopy(record)
            parent = functools.reduce(operator.getitem, place[:-1], changed)
            parent[place[-1]] = value
            if value is MISSING:
                del parent[place[-1]]
            save_stored(path, KEY, arrays, changed)
            try:
                engine = Engine.load(path)
            except ModelFileError:
                refused += 1
                continue
            assert engine.run(np.zeros((3, engine.input_size), np.float32)).shape == (3, engine.output_size)
    assert refused > 100


def test_a_field_of_another_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "module.safetensors"
    Engine.compile(Last().eval()).save(path)
    arrays, record = load_stored(path, KEY)
    for kind in ("instructions", "recurrent"):
        for entry in record[kind]:
            for name, value in entry.items():
                entry[name] = []
                save_stored(path, KEY, arrays, record)
                with pytest.raises(ModelFileError, match=f"{name}: of another type"):
                    Engine.load(path)
                entry[name] = value


def test_a_wrong_example_and_damaged_files(compiled: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give at least two frames"):
        Engine.compile(Bands().eval(), example=torch.zeros(1, 1, 1, 1))
    with pytest.raises(UnsupportedModelError, match=r"Bands was run on a random sequence of shape .* give .* example="):
        Engine.compile(Bands().eval())
    _, engine = compiled("last")
    path = tmp_path / "module.safetensors"
    engine.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + bytes(40))
    with pytest.raises(ModelFileError, match="checksum"):
        Engine.load(path)
    for call in (engine.enter, engine.hidden):
        with pytest.raises(TypeError, match="keeps several states by itself"):
            call()
