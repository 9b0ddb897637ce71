"""The engine against the eager layer: golden runs and random ones, every instruction set, events and state included."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.engine.cases import ISAS, compiled, eager, layers, signal
from tests.layers import golden_files, golden_layer, guarded

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization, record_activity


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)
def test_golden_runs(path: Any, name: str) -> None:
    layer, arrays, meta = golden_layer(path)
    tolerance = 1e-5 if layer.quantization is None else 0
    counts = np.zeros(4, int)
    for sample in range(arrays["x"].shape[1]):
        engine = compiled(layer, name)
        assert engine.instruction_set == name
        y = engine.run(arrays["x"][:, sample])
        np.testing.assert_allclose(y, arrays["y"][:, sample], rtol=0, atol=tolerance)
        for activity in engine.activity.per_layer:
            counts += [activity.zeros_x, activity.zeros_h, activity.numel_x, activity.numel_h]
    expected = [meta[f"num_{part}"] for part in ("dx_zeros", "dh_zeros", "dx_numel", "dh_numel")]
    assert counts.tolist() == expected


def check_equal(layer: Any, name: str, frames: np.ndarray, tolerance: float) -> None:
    with record_activity(layer, events=True) as expected, torch.no_grad():
        output, state = layer(torch.from_numpy(frames)[:, None], layer.initial_state(1))
    engine = compiled(layer, name)
    by_step = np.stack([engine.step(frame) for frame in frames])
    np.testing.assert_allclose(by_step, output[:, 0].numpy(), rtol=0, atol=tolerance)
    # In float32 and at θ = 0, whether a delta is 0 hangs on the last bit of h.
    if tolerance == 0 or min(layer.thx + layer.thh) > 0:
        for actual, wanted in zip(engine.activity.per_layer, expected.per_layer, strict=True):
            counts = [actual.zeros_x, actual.zeros_h, actual.zeros_rh, actual.numel_x, actual.numel_h, actual.numel_rh]
            if layer.reset_after:
                counts = counts[:2] + counts[3:5]
            assert counts == sum(call.counts for call in wanted.calls).tolist()
        for part in ("sparsity_x", "sparsity_h", "sparsity", "effective_sparsity"):
            assert getattr(engine.activity, part) == pytest.approx(getattr(expected, part), rel=1e-12)
    for actual_state, wanted_state in zip(engine.state, state, strict=True):
        assert actual_state.keys() == set(wanted_state._fields)
        for part, values in actual_state.items():
            np.testing.assert_allclose(values, getattr(wanted_state, part)[0].numpy(), rtol=0, atol=10 * tolerance)
    engine.reset()
    np.testing.assert_array_equal(engine.run(frames), by_step)


@settings(max_examples=60, deadline=None)
@given(layer=layers(quantized=True), name=st.sampled_from(ISAS), seed=st.integers(0, 1000))
def test_int8_is_the_quantised_layer_bit_for_bit(layer: Any, name: str, seed: int) -> None:
    check_equal(layer, name, signal(37, layer.input_size, seed), tolerance=0)


@settings(max_examples=60, deadline=None)
@given(layer=layers(quantized=False), name=st.sampled_from(ISAS), seed=st.integers(0, 1000))
def test_float32_is_the_layer(layer: Any, name: str, seed: int) -> None:
    if layer.proj_size or layer.hard_activations or not layer.bias:
        layer.thx = layer.thh = 0.0  # the guard's reference does not know these
    frames = signal(37, layer.input_size, seed, 0.3)
    assume(max(layer.thx + layer.thh) == 0 or guarded(layer, torch.from_numpy(frames)[:, None]))
    check_equal(layer, name, frames, tolerance=1e-5)


@pytest.mark.parametrize("name", ISAS)
def test_instruction_sets_agree_over_long_streams(name: str) -> None:
    torch.manual_seed(0)
    layer = DeltaGRU(13, 37, 2, thx=(0.125, 0.0), thh=0.0, backend="eager").eval()
    frames = signal(3000, 13, 1, 0.2)
    np.testing.assert_allclose(compiled(layer, name).run(frames), eager(layer, frames), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ISAS)
def test_dense_tiles_and_events_give_the_same(name: str) -> None:
    """A wide input layer, so that `run` takes products of whole tiles where most columns fire."""
    torch.manual_seed(0)
    layer = DeltaLSTM(600, 70, thx=0.01, thh=0.0, backend="eager").eval()
    frames = np.random.default_rng(0).normal(scale=0.3, size=(43, 600)).astype(np.float32)  # nearly all fire
    frames[12:14] = frames[11]  # but not in all frames of a tile
    frames[20:30] = frames[19]
    engine = compiled(layer, name)
    by_run = engine.run(frames)
    np.testing.assert_allclose(by_run, eager(layer, frames), rtol=0, atol=1e-5)
    counts = engine.activity
    engine.reset()
    np.testing.assert_array_equal(np.stack([engine.step(frame) for frame in frames]), by_run)
    assert engine.activity == counts


@settings(max_examples=20, deadline=None)
@given(
    lstm=st.booleans(),
    inputs=st.sampled_from([3, 16, 90]),
    moving=st.sampled_from([0.1, 0.5, 0.97]),
    pieces=st.lists(st.integers(1, 300), min_size=1, max_size=8),
    name=st.sampled_from(ISAS),
    seed=st.integers(0, 1000),
)
def test_float32_streams_are_the_same_bits_in_pieces_of_any_size(
    lstm: bool, inputs: int, moving: float, pieces: list[int], name: str, seed: int
) -> None:
    """Dense tiles, sums of many columns, and memories refreshed on the way: all in the same order."""
    torch.manual_seed(seed)
    layer = (DeltaLSTM if lstm else DeltaGRU)(inputs, 40, 2, thx=0.05, thh=0.02).eval()
    rng = np.random.default_rng(seed)
    moves = np.where(rng.random((sum(pieces), inputs)) < moving, rng.normal(size=(sum(pieces), inputs)), 0)
    frames = np.sin(moves.cumsum(axis=0)).astype(np.float32)
    engine = compiled(layer, name)
    whole, counts, state = engine.run(frames), engine.activity, engine.state
    engine.reset()
    cut = np.split(frames, np.cumsum(pieces)[:-1])
    np.testing.assert_array_equal(np.concatenate([engine.run(piece) for piece in cut]), whole)
    assert engine.activity == counts
    for ours, theirs in zip(engine.state, state, strict=True):
        for part, values in ours.items():
            np.testing.assert_array_equal(values, theirs[part])
    engine.reset()
    np.testing.assert_array_equal(np.stack([engine.step(frame) for frame in frames]), whole)


@pytest.mark.parametrize("name", ISAS)
def test_deltas_wider_than_sixteen_bits(name: str) -> None:
    """The difference of two 16-bit activations has 17 bits; the accumulators are exact all the same."""
    torch.manual_seed(0)
    formats = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6))
    layer = DeltaGRU(9, 20, quantization=formats, backend="eager").eval()
    frames = np.where(np.random.default_rng(0).random((40, 9)) < 0.5, 500, -500).astype(np.float32)  # saturates A
    engine = compiled(layer, name)
    np.testing.assert_array_equal(engine.run(frames), eager(layer, frames))
    assert np.abs(engine.state[0]["x_hat"]).max() == 128


@pytest.mark.parametrize("name", ISAS)
def test_accumulators_that_could_overflow_are_widened(name: str) -> None:
    """600 inputs with weights of almost 1 and saturated activations need more than 32 bits."""
    formats = Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 6))
    for cell in (DeltaGRU, DeltaLSTM):
        layer = cell(600, 5, quantization=formats, backend="eager").eval()
        with torch.no_grad():
            layer.weight_ih_l0.fill_(127 / 128)
            layer.weight_ih_l0[::2] *= -1
        frames = np.full((6, 600), 127.99, np.float32)
        frames[3:] = -128
        engine = compiled(layer, name)
        np.testing.assert_array_equal(engine.run(frames), eager(layer, frames))
        assert np.abs(engine.state[0]["m"]).max() * 2**15 > 2**31
        assert engine._model.wide(0)
        assert not compiled(cell(600, 5, quantization=formats).eval(), name)._model.wide(0)
