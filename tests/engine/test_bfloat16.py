"""bfloat16 weights: to the last bit float32 over weights that were rounded, in half the bytes."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.cases import ISAS, isa, layers, signal

from deltarnn import DeltaGRU, Quantization
from deltarnn.engine import Engine


@settings(max_examples=30, deadline=None)
@given(module=layers(quantized=False), name=st.sampled_from(ISAS), seed=st.integers(0, 1000))
def test_it_is_float32_over_rounded_weights_to_the_last_bit(module: Any, name: str, seed: int) -> None:
    rounded = copy.deepcopy(module)
    with torch.no_grad():
        for parameter_name, parameter in rounded.named_parameters():
            if parameter_name.startswith("weight"):
                parameter.copy_(parameter.bfloat16())
    frames = signal(37, module.input_size, seed, 0.3)
    with isa(name):
        engine, expected = Engine.compile(module, "bfloat16"), Engine.compile(rounded)
    np.testing.assert_array_equal(engine.run(frames), expected.run(frames))
    assert engine.activity == expected.activity
    for mine, theirs in zip(engine.state, expected.state, strict=True):
        for part, values in mine.items():
            np.testing.assert_array_equal(values, theirs[part])


@pytest.mark.parametrize("name", ISAS)
def test_tiles_and_steps_agree_and_weights_take_half_the_bytes(name: str) -> None:
    torch.manual_seed(0)
    module = DeltaGRU(600, 160, thx=0.01).eval()
    frames = np.random.default_rng(0).normal(scale=0.3, size=(43, 600)).astype(np.float32)
    with isa(name):
        engine, wide = Engine.compile(module, "bfloat16"), Engine.compile(module)
    output = engine.run(frames)
    engine.reset()
    np.testing.assert_array_equal(np.stack([engine.step(frame) for frame in frames]), output)
    assert engine._model.weight_bytes <= 0.55 * wide._model.weight_bytes
    assert 0 < np.abs(output - wide.run(frames)).max() < 0.02


def test_files_hold_the_weights_as_given(tmp_path: Path) -> None:
    engine, frames = Engine.compile(DeltaGRU(7, 20, thx=0.1), "bfloat16"), signal(20, 7, 0)
    assert engine.precision == "bfloat16"
    engine.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        Engine.load(tmp_path / "model.safetensors", "bfloat16").run(frames), engine.run(frames)
    )
    assert Engine.load(tmp_path / "model.safetensors").precision == "float32"
    with pytest.raises(ValueError, match="precision='bfloat16' would ignore"):
        Engine.compile(DeltaGRU(7, 20, quantization=Quantization()), "bfloat16")
    with pytest.raises(ValueError, match="would ignore: it is for 'int8'"):
        Engine.compile(DeltaGRU(7, 20), "bfloat16", calibration=frames)
