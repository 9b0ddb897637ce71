"""Rooms and noises for synthetic speech: what makes it less clean than the synthesiser."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve, lfilter

Signal = NDArray[np.float64]

NOISE_KINDS = ("white", "pink", "hum", "traffic", "clatter")


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> Signal:
    """Gaussian noise (samples,) of unit deviation whose power falls as 1/f^slope (0 white, 1 pink, 2 brown)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** (-slope / 2)
    spectrum[0] = 0.0
    noise = np.fft.irfft(spectrum, samples)
    return _of_unit_deviation(noise)


def _of_unit_deviation(signal: Signal) -> Signal:
    """A signal scaled; as it is where it does not vary, such as a single sample."""
    return np.asarray(signal / (signal.std() or 1.0))


def background(kind: str, samples: int, rng: np.random.Generator, sample_rate: int = 16000) -> Signal:
    """Background noise (samples,) of unit deviation, of one of NOISE_KINDS."""
    time = np.arange(samples) / sample_rate
    if kind == "white":
        return coloured_noise(samples, 0.0, rng)
    if kind == "pink":
        return coloured_noise(samples, 1.0, rng)
    if kind == "hum":
        mains = rng.choice([50.0, 60.0])
        signal = 0.1 * coloured_noise(samples, 0.0, rng)
        for k in range(1, 9):
            signal += rng.uniform(0.1, 1.0) / k * np.sin(2 * np.pi * (mains * k * time + rng.random()))
    elif kind == "traffic":
        swell = 1.0 + 0.7 * np.sin(2 * np.pi * (rng.uniform(0.1, 0.4) * time + rng.random()))
        signal = swell * coloured_noise(samples, 1.6, rng)
    elif kind == "clatter":
        clicks = rng.standard_normal(samples) * (rng.random(samples) < 6.0 / sample_rate) * 30.0
        ring = rng.standard_normal(1200) * np.exp(-np.arange(1200) / 150.0)
        signal = fftconvolve(clicks, ring)[:samples] + 0.3 * coloured_noise(samples, 0.8, rng)
    else:
        raise ValueError(f"noise {kind!r}: must be one of {', '.join(NOISE_KINDS)}")
    return _of_unit_deviation(signal)


def in_room(signal: Signal, rng: np.random.Generator, sample_rate: int = 16000) -> Signal:
    """A signal (N,) with the echo of a small room: exponentially decaying noise, 60 dB in 0.1 to 0.4 s, (N,)."""
    decay = rng.uniform(0.1, 0.4) * sample_rate / np.log(1000.0)
    tail = rng.standard_normal(int(4 * decay)) * np.exp(-np.arange(int(4 * decay)) / decay)
    tail *= rng.uniform(0.05, 0.5) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    return np.asarray(fftconvolve(signal, tail)[: len(signal)])


def tilted(signal: Signal, rng: np.random.Generator) -> Signal:
    """A signal (N,) through a random first-order filter that stresses low or high frequencies, as microphones do."""
    return np.asarray(lfilter([1.0, rng.uniform(-0.7, 0.4)], [1.0], signal))
