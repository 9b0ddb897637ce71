"""The band-pass front end: a microphone model, Butterworth filters, and the mean of |·| per frame."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy.signal import sosfilt

from deltarnn.kws.features.filtering import BandPasses
from deltarnn.kws.features.filters import band_pass, check_count, spaced_frequencies
from deltarnn.kws.features.framing import Framing, as_batch
from deltarnn.kws.features.frontend_stream import FrameStream

FloatArray = NDArray[np.float64]
Samples = NDArray[Any]  # int16 or float64, whatever stage the signal is in


class IIRFilterBank:
    """Mean absolute output of band-pass filters behind a microphone model: the front end of analogue feature chips.

    Per sample: v = clip(sample − mean, ±full_scale) / full_scale · 2^(mic_res − 1); per channel a Butterworth band-pass
    of order `ch_orders` (two poles each) between f_c·(1 ∓ 1/(2·q)), in second-order sections;
    per frame the mean of |·|.

    Parameters
    ----------
    n_filt: number of channels.
    f_centers: their centre frequencies in Hz: n_filt of them, or n_filt + 2 of which the two outermost only bound the
        range; None: the inner ones of n_filt + 2 mel-spaced frequencies from 100 to 6500 Hz.
    q_factors, ch_orders: quality factor and filter order, one for all or one per channel.
    mean, full_scale: of the microphone, in int16 counts. mic_res: its resolution in bits; None: no microphone model.
    frame_size, frame_stride: seconds.

    Raises
    ------
    ValueError
        On parameters out of range (named), or audio that is not int16.

    Examples
    --------
    >>> IIRFilterBank(full_scale=7500)(np.zeros((2, 8000), np.int16)).shape
    (2, 30, 16)
    """

    def __init__(
        self,
        n_filt: int = 16,
        f_centers: Sequence[float] | FloatArray | None = None,
        q_factors: float | Sequence[float] = 3,
        ch_orders: int | Sequence[int] = 2,
        mean: float = 0.0,
        full_scale: float = 32768.0,
        mic_res: int | None = 12,
        frame_size: float = 0.016384,
        frame_stride: float = 0.016384,
        sample_rate: int = 16000,
    ) -> None:
        self.framing = Framing(frame_size, frame_stride, sample_rate)
        bits = 1 if mic_res is None else mic_res
        if not 0 < full_scale < np.inf or not np.isfinite(mean) or not bits >= 1 or bits % 1:
            raise ValueError(
                f"mean={mean}, full_scale={full_scale}, mic_res={mic_res}: must be finite, full_scale above 0, mic_res "
                "a whole number of bits"
            )
        check_count(n_filt)
        self.mean, self.full_scale, self.mic_res = float(mean), float(full_scale), mic_res
        self.sample_rate, self.num_features = sample_rate, n_filt
        if f_centers is None:
            f_centers = spaced_frequencies(n_filt + 2, 100, 6500)
        centres = np.asarray(f_centers, dtype=np.float64)
        if centres.shape == (n_filt + 2,):
            centres = centres[1:-1]
        if centres.shape != (n_filt,):
            raise ValueError(
                f"f_centers has {centres.size} values: needs n_filt={n_filt}, or n_filt + 2 with the bounds"
            )
        self.centres = centres
        qualities = np.broadcast_to(np.asarray(q_factors, dtype=np.float64), (n_filt,))
        orders = np.broadcast_to(np.asarray(ch_orders), (n_filt,))
        if (orders != np.trunc(orders)).any():
            raise ValueError(f"ch_orders={ch_orders}: must be whole numbers")
        self.sections = [
            band_pass(float(f), float(q), int(order), sample_rate)
            for f, q, order in zip(centres, qualities, orders, strict=True)
        ]
        self._band_passes = BandPasses(self.sections)

    def __call__(self, audio: ArrayLike) -> FloatArray:
        samples = as_batch(audio)
        count = self.num_frames(samples.shape[-1])
        out = self._band_passes(self.microphone(samples), self.framing.length, self.framing.hop, count)
        return out[0] if np.ndim(audio) == 1 else out

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples."""
        return self.framing.count(num_samples)

    def stream(self) -> FrameStream:
        """A twin that takes audio piece by piece and gives the same numbers."""
        states = [np.zeros((len(sections), 2)) for sections in self.sections]

        def rectify(piece: Samples) -> Samples:
            signal = self.microphone(piece)
            outputs = []
            for channel, sections in enumerate(self.sections):
                filtered, states[channel] = sosfilt(sections, signal, zi=states[channel])
                outputs.append(np.abs(filtered))
            return np.stack(outputs)

        def frame_means(rectified: Samples) -> FloatArray:
            frames = sliding_window_view(rectified, self.framing.length, axis=-1)[:, :: self.framing.hop]
            return cast(FloatArray, frames.mean(axis=-1).T)

        return FrameStream(self.framing, frame_means, transform=rectify)

    def native(self) -> None:
        """None: the native core's spotter has no band-passes."""

    def microphone(self, samples: Samples) -> FloatArray:
        """The microphone model's output (…, N) in counts of its converter."""
        signal = samples.astype(np.float64)
        if self.mic_res is None:
            return signal
        signal -= self.mean
        np.clip(signal, -self.full_scale, self.full_scale, out=signal)
        signal *= 2.0 ** (self.mic_res - 1) / self.full_scale
        return signal
