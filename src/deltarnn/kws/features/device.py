"""The front end of a model as a small processor computes it: `FeaturePipeline` in integers, or why it cannot be."""

import math

import numpy as np

from deltarnn.fixed.band_passes import (
    GAIN_BITS,
    MICROPHONE_BITS,
    BandPassSections,
    IntegerBandPasses,
    Microphone,
    level_shift,
)
from deltarnn.fixed.feature_scale import FeatureScale
from deltarnn.fixed.front_end import IntegerFrontEnd
from deltarnn.fixed.log_bank import IntegerLogFilterBank, level_fraction_bits
from deltarnn.fixed.log_mel_bank import WEIGHT_BITS, IntegerLogMelFilterBank, level_bits
from deltarnn.fixed.parameters import UnsupportedModelError
from deltarnn.fixed.qformat import QFormat
from deltarnn.fixed.spectrum import IntegerSpectrum, window_q15
from deltarnn.kws.features.frontend import FULL_SCALE_32BIT, LogFilterBank
from deltarnn.kws.features.iir import IIRFilterBank
from deltarnn.kws.features.log_mel import LogMelFilterBank
from deltarnn.kws.features.pipeline import FeaturePipeline


def device_front_end(pipeline: FeaturePipeline, activation: QFormat) -> IntegerFrontEnd:
    """The front end in integers, its features in `activation`.

    Raises
    ------
    UnsupportedModelError
        Where an option of the front end has no integer form; it names the option.
    """
    c, bank = pipeline.config, pipeline.front_end
    iir = c.feat_type == "iir"
    refused = {
        "pool_frames": c.feat_type == "logmel" and c.pool_frames > 1,
        "log_feat": c.feat_type == "logmel" and not c.log_feat,
        "mfcc": c.mfcc,
        "gradient": c.gradient,
        "gain_ctrl": c.gain_ctrl,
        "qf": c.qf,
        "oversample_factor": iir and c.oversample_factor > 1,
        "logf": not iir and c.logf != "none",
        "approx_log": iir and c.logf != "none" and c.approx_log,
    }
    for name, wanted in refused.items():
        if wanted:
            raise UnsupportedModelError(
                f"a device's front end has no --{name} ({getattr(c, name)}): train on features without it"
            )
    if iir and pipeline.framing.length > pipeline.framing.hop:
        raise UnsupportedModelError(
            f"a device's band-passes have no overlapping frames (--frame_size {c.frame_size:g} above --frame_stride "
            f"{c.frame_stride:g}): train on frames that do not overlap"
        )
    try:
        if isinstance(bank, LogFilterBank):
            return _log_bank(pipeline, bank, activation)
        if isinstance(bank, LogMelFilterBank):
            return _log_mel_bank(pipeline, bank, activation)
        assert isinstance(bank, IIRFilterBank)
        return _band_passes(pipeline, bank, activation)
    except ValueError as error:
        raise UnsupportedModelError(f"a device cannot compute this front end: {error}") from None


def _log_bank(pipeline: FeaturePipeline, bank: LogFilterBank, activation: QFormat) -> IntegerLogFilterBank:
    spectrum = IntegerSpectrum(window_q15(np.hamming(bank.framing.length)), bank.nfft)
    corners = tuple(int(bin) for bin in np.floor((bank.nfft + 1) * bank.corners / bank.sample_rate))
    unit = FULL_SCALE_32BIT / bank.nfft / 2.0 ** level_fraction_bits(spectrum, corners)
    mean, std = _statistics(pipeline)
    if bank.log:
        scale = FeatureScale.of(
            20 * math.log10(2) / std, (20 * math.log10(unit) - mean) / std, activation, logarithmic=True,
            floor=(bank.floor - mean) / std,
        )  # fmt: skip
    else:
        scale = FeatureScale.of(unit / std, -mean / std, activation, logarithmic=False)
    return IntegerLogFilterBank(spectrum, bank.framing.hop, scale, corners)


def _log_mel_bank(pipeline: FeaturePipeline, bank: LogMelFilterBank, activation: QFormat) -> IntegerLogMelFilterBank:
    length, levels = bank.frames.length, bank.scale
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    spectrum = IntegerSpectrum(window_q15(window), bank.nfft)
    bits = level_bits(spectrum)
    added = round(levels.offset * 2.0**bits)
    if not 1 <= added < 1 << 62:
        raise ValueError(f"--log_offset {levels.offset:g} is beyond its levels, of {bits} fraction bits")
    mean, std = _statistics(pipeline)
    scale = FeatureScale.of(
        levels.factor * math.log(2) / std, (levels.bias - levels.factor * math.log(2) * bits - mean) / std, activation,
        logarithmic=True, added=added, floor=(levels.low - mean) / std, ceiling=(levels.high - mean) / std,
    )  # fmt: skip
    weights = np.rint(bank.joined(bank.triangles)[: bank.nfft // 2] * 2.0**WEIGHT_BITS).astype(np.int64)
    return IntegerLogMelFilterBank(spectrum, bank.frames.hop, scale, weights)


def _band_passes(pipeline: FeaturePipeline, bank: IIRFilterBank, activation: QFormat) -> IntegerBandPasses:
    framing, microphone = bank.framing, None
    peak = 32768.0 if bank.mic_res is None else 2.0 ** (bank.mic_res - 1)
    sections = BandPassSections.of(bank.sections, peak)
    if bank.mic_res is not None:
        unit = 2.0**MICROPHONE_BITS
        gain = round(peak / bank.full_scale / unit * 2.0 ** (sections.fraction_bits + GAIN_BITS))
        microphone = Microphone(round(bank.mean * unit), round(bank.full_scale * unit), gain)
        if max(microphone.full_scale, abs(microphone.mean)) >= 1 << 30:
            raise ValueError(f"mean {bank.mean:g} and full scale {bank.full_scale:g} of its microphone are too large")
    count = framing.length * 2.0 ** (sections.fraction_bits - level_shift(framing.length))  # a level of 1
    mean, std = _statistics(pipeline)
    if pipeline.config.logf == "lut":  # log10(1 + level / count)
        unit, added = math.log10(2) / std, round(count)
        scale = FeatureScale.of(
            unit, (-math.log10(count) - mean) / std, activation, logarithmic=True, added=added
        )  # fmt: skip
    else:
        scale = FeatureScale.of(1 / count / std, -mean / std, activation, logarithmic=False)
    return IntegerBandPasses(sections, microphone, framing.length, framing.hop, scale)


def _statistics(pipeline: FeaturePipeline) -> tuple[float, float]:
    """Mean and deviation by which features are normalised."""
    statistics = pipeline.statistics
    return (statistics.mean, statistics.std) if pipeline.config.norm_feat else (0.0, 1.0)
