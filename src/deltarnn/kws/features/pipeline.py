"""From audio to the network's input: front end, quantisation, logarithm, normalisation, with their statistics."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltarnn.fixed.qformat import QFormat
from deltarnn.kws.config.option import convert
from deltarnn.kws.config.options_data import LATER, FeatureConfig
from deltarnn.kws.data.audio import Audio, fit, resample
from deltarnn.kws.features.filters import spaced_frequencies
from deltarnn.kws.features.frontend import FrontEnd, LogFilterBank
from deltarnn.kws.features.frontend_stream import FrameStream
from deltarnn.kws.features.iir import IIRFilterBank
from deltarnn.kws.features.log_mel import LogMelFilterBank, LogScale

Features = NDArray[np.float32]

MAX_STATISTIC = 1e30

LOG_OUTPUT = QFormat(3, 8)
"""Format of the logarithm's output with approx_log."""


@dataclass(frozen=True)
class FeatureStatistics:
    """What the front end knows from the training set.

    mean, std: of all features over all frames, for normalisation. max: the largest value before quantisation.
    mic_mean, mic_full_scale: of the microphone model, int16 counts (5 standard deviations of the non-silent samples).
    """

    mean: float = 0.0
    std: float = 1.0
    max: float = 1.0
    mic_mean: float = 0.0
    mic_full_scale: float = 32768.0


class FeaturePipeline:
    """Features of audio as the network was trained on them.

    pipeline(audio (B, N) int16) -> (B, T, F) float32, before normalisation, and of levels (B, frames, bands) that were
    made elsewhere (deltarnn.kws.features.levels) too; pipeline.normalise(features) -> the
    network's input; pipeline.stream() -> frames of the network's input from audio that arrives piece by piece.
    `to_dict` and `from_dict` carry it in feature files and model files.
    """

    def __init__(self, config: FeatureConfig, statistics: FeatureStatistics | None = None) -> None:
        self.config, self.statistics = config, statistics or FeatureStatistics()
        self.front_end = make_front_end(config, self.statistics)
        self.num_features, self.framing = self.front_end.num_features, self.front_end.framing

    def __call__(self, audio: ArrayLike) -> Features:
        return self.shape(self.raw(audio)).astype(np.float32)

    def raw(self, audio: ArrayLike) -> NDArray[np.float64]:
        """The front end's own output (B, T, F), before quantisation and --logf, of audio (B, N) or levels."""
        if np.ndim(audio) == 3:
            return self.log_mel.of_levels(np.asarray(audio))
        if self.config.oversample_factor > 1:
            audio = _oversample(np.asarray(audio), self.config.oversample_factor)
        return self.front_end(audio)

    def normalise(self, features: Features) -> Features:
        """(features − mean) / deviation of the training set, or the features as they are with norm_feat 0."""
        if not self.config.norm_feat:
            return features
        return ((features - self.statistics.mean) / self.statistics.std).astype(np.float32)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples` samples at the configured sample rate."""
        return self.front_end.num_frames(num_samples * self.config.oversample_factor)

    def clip_shape(self, clips: NDArray[Any]) -> tuple[int, int]:
        """Frames and features (T, F) of each of many clips: audio (N, samples) or levels (N, frames, bands)."""
        if clips.ndim == 3:
            return clips.shape[1] // self.log_mel.pool_frames, self.num_features
        return self.num_frames(clips.shape[1]), self.num_features

    def of_clip(self, samples: Audio, num_samples: int) -> Features:
        """Features (T, F), before normalisation, of a recording (N,) brought to a length as --zero_padding says."""
        padding = self.config.zero_padding
        if padding == "centre":
            return self.shape(self.log_mel.centred(samples, num_samples)).astype(np.float32)
        return self(fit(samples, num_samples, padding))

    @property
    def log_mel(self) -> LogMelFilterBank:
        """The front end, where it is a log-mel bank. ValueError where it is another."""
        if not isinstance(self.front_end, LogMelFilterBank):
            raise ValueError(f"levels and --zero_padding centre need --feat_type logmel, not {self.config.feat_type}")
        return self.front_end

    def stream(self) -> "PipelineStream":
        """A twin that takes audio piece by piece and gives the same numbers, normalised."""
        if self.config.oversample_factor > 1:
            raise ValueError("oversample_factor above 1 has no streaming twin: its resampler needs the whole clip")
        return PipelineStream(self, self.front_end.stream())

    def native(self) -> dict[str, Any] | None:
        """What the native core's spotter needs to compute the frames of `stream()` itself, or None where it cannot."""
        c, front = self.config, self.front_end.native()
        if front is None or c.qf or c.logf != "none":
            return None
        return {
            **front,
            "normalise": c.norm_feat,
            "mean": self.statistics.mean,
            "deviation": self.statistics.std,
        }

    def with_statistics(self, **changes: float) -> "FeaturePipeline":
        """The same pipeline with other statistics."""
        return FeaturePipeline(self.config, replace(self.statistics, **changes))

    def to_dict(self) -> dict[str, Any]:
        """Configuration and statistics as JSON takes them."""
        return {**self.config.record(), "statistics": asdict(self.statistics)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FeaturePipeline":
        """The pipeline that `to_dict` described. ValueError where keys are missing or unknown, or values impossible."""
        try:
            given = _of_keys(values, {*(f.name for f in fields(FeatureConfig)), "statistics"}, LATER)
            numbers = _of_keys(given.pop("statistics"), {f.name for f in fields(FeatureStatistics)})
            statistics = {name: _finite(name, value) for name, value in numbers.items()}
            types = get_type_hints(FeatureConfig)
            options = {
                f.name: convert(f.name, types[f.name], f.metadata["option"], given[f.name])
                for f in fields(FeatureConfig)
                if f.name in given
            }
            return cls(FeatureConfig(**options), FeatureStatistics(**statistics))
        except (ValueError, MemoryError) as error:
            raise ValueError(f"feature configuration: {error}") from None

    def shape(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Quantisation and --logf, as configured, of the front end's output."""
        c = self.config
        fixed = QFormat(c.fqi, c.fqf)
        if c.qf:
            features = fixed.quantize(np.floor(features / self.statistics.max * 2.0 ** (c.fqi - 1)))
        if c.logf == "lut":
            if c.approx_log:
                return LOG_OUTPUT.quantize(np.log10(1.0 + fixed.quantize(features)))
            return np.log10(1.0 + features)
        return features


def _of_keys(values: Any, known: set[str], optional: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A mapping with exactly these keys, the optional ones or not."""
    if not isinstance(values, Mapping):
        raise ValueError(f"must be a mapping, not {type(values).__name__}")
    for name in sorted((set(values) ^ known) - (optional - set(values)), key=str):
        raise ValueError(f"{name!r} is {'unknown' if name in values else 'missing'}")
    return dict(values)


def _finite(name: str, value: Any) -> float:
    positive = name in ("std", "max", "mic_full_scale")
    if not isinstance(value, (int, float)) or not abs(value) <= MAX_STATISTIC or (positive and value <= 0):
        raise ValueError(f"{name} must be a finite number{' above 0' * positive}")
    return float(value)


class PipelineStream:
    """Frames of the network's input from a stream of samples; the verbs are those of `FrameStream`."""

    def __init__(self, pipeline: FeaturePipeline, frames: FrameStream) -> None:
        self._pipeline, self._frames = pipeline, frames
        self.accept_waveform = frames.accept_waveform
        self.input_finished = frames.input_finished
        self.pop = frames.pop

    @property
    def num_frames_ready(self) -> int:
        """How many frames are ready, counted from the start of the stream."""
        return self._frames.num_frames_ready

    def get_frame(self, index: int) -> Features:
        """The network's input (features,) at frame `index`, normalised."""
        shaped = self._pipeline.shape(self._frames.get_frame(index))
        return self._pipeline.normalise(shaped.astype(np.float32))


def make_front_end(config: FeatureConfig, statistics: FeatureStatistics) -> FrontEnd:
    """The filter bank that a configuration describes."""
    if config.feat_type == "logfbank":
        return LogFilterBank(
            n_filt=config.n_filt, freq_low=config.freq_low, freq_high=config.freq_high, frame_size=config.frame_size,
            frame_stride=config.frame_stride, nfft=config.nfft, f_spacing=config.f_centers or config.f_spacing,
            gradient=config.gradient, gain_ctrl=config.gain_ctrl, mfcc=config.mfcc, sample_rate=config.sample_rate,
            log=config.log_feat, floor=-math.inf if config.gain_ctrl else config.floor,
        )  # fmt: skip
    if config.feat_type == "logmel":
        scale = LogScale(config.log_offset, config.log_factor, config.log_bias, config.log_low, config.log_high)
        return LogMelFilterBank(
            n_filt=config.n_filt, freq_low=config.freq_low, freq_high=config.freq_high, frame_size=config.frame_size,
            frame_stride=config.frame_stride, nfft=config.nfft, sample_rate=config.sample_rate, log=config.log_feat,
            scale=scale, pool_bands=config.pool_bands, pool_frames=config.pool_frames, pool_log=config.pool_log,
        )  # fmt: skip
    centres = np.asarray(config.f_centers) if config.f_centers else spaced_frequencies(
        config.n_filt + 2, config.freq_low, config.freq_high, config.f_spacing
    )  # fmt: skip
    return IIRFilterBank(
        n_filt=config.n_filt, f_centers=centres, q_factors=config.q_factors, ch_orders=config.ch_orders,
        mean=statistics.mic_mean, full_scale=statistics.mic_full_scale,
        mic_res=config.mic_res if config.sim_mic else None, frame_size=config.frame_size,
        frame_stride=config.frame_stride, sample_rate=config.sample_rate * config.oversample_factor,
    )  # fmt: skip


def _oversample(audio: Audio, factor: int) -> Audio:
    if audio.ndim == 1:
        return resample(audio, 1, factor)
    return np.stack([resample(clip, 1, factor) for clip in audio])
