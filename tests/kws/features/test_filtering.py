"""Band levels and band-passes: native against numpy and scipy, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter

from deltarnn.kws.features import filtering
from deltarnn.kws.features.filtering import BandLevels, BandPasses
from deltarnn.native import native_core

CORE = native_core()
ISAS = CORE.available_isas() if CORE else []
needs_core = pytest.mark.skipif(CORE is None, reason="the native core is not built")


def without_core(make):
    """What `make()` returns where the native core is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filtering, "native_core", lambda: None)
        return make()


@needs_core
@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=15, deadline=None)
@given(
    points=st.sampled_from([16, 32, 64, 128, 512, 1024, 2048]),
    share=st.floats(0.05, 1),
    bands=st.integers(1, 20),
    batch=st.integers(1, 3),
    count=st.integers(1, 20),
    integer=st.booleans(),
    power=st.booleans(),
    seed=st.integers(0, 99),
)
def test_native_band_levels_equal_numpy(isa, points, share, bands, batch, count, integer, power, seed):
    rng = np.random.default_rng(seed)
    length, hop = max(1, int(share * points)), int(rng.integers(1, points))
    weights = rng.random((points // 2 + 1, bands)) * (rng.random((points // 2 + 1, bands)) < 0.3)
    signals = 1000 * rng.standard_normal((batch, (count - 1) * hop + length + int(rng.integers(0, 5))))
    signals = signals.astype(np.int16) if integer else signals
    window = rng.random(length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTARNN_ISA", isa)
        native = BandLevels(window, points, weights, power)(signals, hop, count)
    expected = without_core(lambda: BandLevels(window, points, weights, power))(signals, hop, count)
    np.testing.assert_allclose(native, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@needs_core
@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=15, deadline=None)
@given(
    points=st.sampled_from([256, 512, 1024, 2048]),
    share=st.floats(0.01, 1),
    bands=st.integers(1, 20),
    power=st.booleans(),
    seed=st.integers(0, 99),
)
def test_one_frame_alone_has_the_bits_of_many_together(isa, points, share, bands, power, seed):
    rng = np.random.default_rng(seed)
    weights = rng.random((points // 2 + 1, bands)) * (rng.random((points // 2 + 1, bands)) < 0.3)
    signals = rng.integers(-32768, 32768, (1, 3 * points)).astype(np.int16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTARNN_ISA", isa)
        levels = BandLevels(rng.random(max(1, int(share * points))), points, weights, power)
        together = levels(signals, points // 2, 4)
        for frame in range(4):
            alone = levels(signals[:, frame * (points // 2) :], points, 1)
            np.testing.assert_array_equal(alone[0, 0], together[0, frame])


@needs_core
@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=15, deadline=None)
@given(
    orders=st.lists(st.integers(1, 4), min_size=1, max_size=20),
    batch=st.integers(1, 3),
    length=st.integers(1, 60),
    hop=st.integers(1, 60),
    samples=st.integers(1, 400),
    seed=st.integers(0, 99),
)
def test_native_band_passes_equal_scipy(isa, orders, batch, length, hop, samples, seed):
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.uniform(0.05, 0.95, (len(orders), 2)), axis=1) + np.array([0, 0.02])
    sections = [butter(n, edge, btype="bandpass", output="sos") for n, edge in zip(orders, edges, strict=True)]
    signals = rng.standard_normal((batch, samples))
    count = -(-abs(samples - length) // hop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DELTARNN_ISA", isa)
        native = BandPasses(sections)(signals, length, hop, count)
    expected = without_core(lambda: BandPasses(sections))(signals, length, hop, count)
    np.testing.assert_allclose(native, expected, rtol=1e-7, atol=1e-9)


def test_numpy_band_levels_are_the_definition():
    rng = np.random.default_rng(0)
    window, weights = rng.random(20), rng.random((17, 3))
    signal = rng.standard_normal((2, 60))
    levels = without_core(lambda: BandLevels(window, 32, weights))(signal, 10, 5)
    for clip in range(2):
        for frame in range(5):
            spectrum = np.fft.fft(signal[clip, 10 * frame : 10 * frame + 20] * window, 32)[:17]
            np.testing.assert_allclose(levels[clip, frame], np.abs(spectrum) @ weights)


def test_transforms_of_other_sizes_and_long_cascades_go_without_the_core():
    rng = np.random.default_rng(1)
    levels = BandLevels(np.ones(30), 48, np.ones((25, 2)))(rng.standard_normal((1, 100)), 30, 2)
    assert levels.shape == (1, 2, 2)
    sections = [butter(6, [0.2, 0.4], btype="bandpass", output="sos")]
    signal = rng.standard_normal((1, 100))
    np.testing.assert_array_equal(
        BandPasses(sections)(signal, 10, 10, 9), without_core(lambda: BandPasses(sections))(signal, 10, 10, 9)
    )


@needs_core
def test_the_core_refuses_arrays_that_do_not_fit():
    plan = CORE.BandPlan(np.ones(20), 32, np.ones((17, 3)))
    with pytest.raises(ValueError, match="levels: shape does not fit"):
        plan.levels(np.zeros((1, 59)), 10, np.empty((1, 5, 3)))
    with pytest.raises(ValueError, match="weights: must be"):
        CORE.BandPlan(np.ones(20), 32, np.ones((16, 3)))
    with pytest.raises(ValueError, match="power of two"):
        CORE.BandPlan(np.ones(20), 24, np.ones((13, 3)))
    coefficients = np.zeros((1, 2, 5, 8))
    with pytest.raises(ValueError, match="must rise within the signal"):
        CORE.rectified_sums(np.zeros((1, 10)), coefficients, np.array([5, 11]), np.empty((1, 2, 8)))
    with pytest.raises(ValueError, match="sums: must be"):
        CORE.rectified_sums(np.zeros((1, 10)), coefficients, np.array([5, 10]), np.empty((1, 2, 7)))
