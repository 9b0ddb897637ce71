"""The options of runs, data and features: one dataclass per concern, one flag per field, named as the field."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from deltarnn.kws.config.option import STEPS, TRAIN, Step, option


def _feature(default: Any, help: str, **details: Any) -> Any:
    return option(default, help, steps=("feature", *TRAIN), **details)


def default_data_dir() -> str:
    """/DATA if it exists, else /data."""
    return "/DATA" if Path("/DATA").is_dir() else "/data"


def _official(config: Any) -> bool:
    return bool(config.data.dataset == "gscdv2")


def _iir(config: Any) -> bool:
    return bool(config.features.feat_type == "iir")


def _logfbank(config: Any) -> bool:
    return bool(config.features.feat_type == "logfbank")


def _spectrum(config: Any) -> bool:
    return not _iir(config)


def _logmel() -> dict[str, Any]:
    return {"needs": ("--feat_type logmel", lambda c: c.features.feat_type == "logmel")}


def _logmel_log() -> dict[str, Any]:
    logarithmic = lambda c: c.features.feat_type == "logmel" and c.features.log_feat  # noqa: E731
    return {"minimum": -1e9, "maximum": 1e9, "needs": ("--feat_type logmel --log_feat 1", logarithmic)}


LATER = frozenset(
    {"log_offset", "log_factor", "log_bias", "log_low", "log_high", "pool_bands", "pool_frames", "pool_log"}
)
"""Options that feature descriptions of version 0.1 do not have: left out of new ones too where they say nothing."""


_MAKES_DATA: tuple[str, Callable[[Any], bool]] = (
    "--step prepare or --from FOLDER",
    lambda c: "prepare" in c.steps or bool(c.data.from_folder),
)


@dataclass(frozen=True)
class RunConfig:
    """Which step runs, on which device, and what it leaves behind."""

    step: Step = option("pretrain", "step to run", choices=STEPS)  # noqa: RUF009
    run_through: bool = option(False, "run this step and all later ones")
    work_dir: str = option(".", "folder that receives data/, feat/, log/ and save/")
    workers: int = option(
        os.cpu_count() or 1, "processes for audio, features and augmented versions", minimum=1, maximum=256
    )
    model_path: str = option("", "model file to write instead of the one under save/", steps=TRAIN)
    path_net_pretrain: str = option(
        "", "model to retrain from (default: the newest pretrain run that matches)", steps=("retrain",)
    )
    eval_val: bool = option(True, "evaluate on the validation set after every epoch", steps=TRAIN)
    score_val: bool = option(True, "apply the decision rule to the validation set", steps=TRAIN)
    eval_test: bool = option(True, "evaluate on the test set, once, with the best model", steps=TRAIN)
    score_test: bool = option(True, "apply the decision rule to the test set", steps=TRAIN)
    debug: bool = option(False, "record intermediate signals of a few clips beside the model", steps=TRAIN)
    use_cuda: bool = option(True, "train on the GPU, or on the CPU (with a message) if there is none", steps=TRAIN)
    gpu_device: int = option(
        0, "index of the GPU", minimum=0, maximum=1024, steps=TRAIN, needs=("--use_cuda 1", lambda c: c.run.use_cuda)
    )
    threads: int = option(
        0,
        "threads that share each batch on the CPU; 0: torch's number, at most 4",
        minimum=0,
        maximum=256,
        steps=TRAIN,
    )
    save_every_epoch: bool = option(False, "keep the model of every epoch", steps=TRAIN)


@dataclass(frozen=True)
class DataConfig:
    """Where speech comes from and how it is grouped."""

    dataset: str = option(
        "gscdv2",
        "data set: gscdv2; synth for speech synthesised on this machine; or any other name for recordings of your own",
    )
    data_dir: str = option(
        default_data_dir(),
        "folder with speech_commands_v0.02 and speech_commands_test_set_v0.02; for recordings of your own, with one "
        "folder per word; for test clips beside --from, with speech_commands_test_set_v0.02",
        steps=("prepare", "feature"),
        needs=_MAKES_DATA,
    )
    from_folder: str = option(
        "",
        "use features that were made elsewhere: folder with train.npz, validation.npz, …",
        flag="from",
        steps=("feature",),
    )
    keywords: tuple[str, ...] = option(
        ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"),
        "target words, separated by commas; every other word is _unknown_ (recordings of your own: all words)",
    )
    clip_seconds: float = option(
        1.0,
        "length of all clips, seconds: longer ones are cut, shorter ones padded with zeros",
        minimum=0.1,
        maximum=60,
        steps=("prepare", "feature"),
        needs=_MAKES_DATA,
    )
    download: bool = option(
        False,
        "fetch the two official archives into data_dir (2.5 GB)",
        steps=("prepare",),
        needs=("--dataset gscdv2", _official),
    )
    download_url: str = option(
        "http://download.tensorflow.org/data",
        "folder that serves the archives",
        steps=("prepare",),
        needs=("--download 1", lambda c: c.data.download),
    )
    unknown_ratio: float = option(
        1.0,
        "unknown training clips, relative to one keyword's",
        minimum=0,
        maximum=100,
        steps=("prepare", "feature"),
        needs=_MAKES_DATA,
    )
    more_train: str = option(
        "", "folder with further training recordings, one folder per word; speakers of the other groups are left out",
        steps=("prepare",),
    )  # fmt: skip
    augment_noise: bool = option(
        False, "add copies of the training clips with background noise at 10 and 5 dB SNR", steps=("prepare",)
    )
    target_snr: float = option(
        5.0,
        "SNR in dB of the noisier copies; the others have 5 dB more",
        steps=("prepare",),
        minimum=-100,
        maximum=200,
        needs=("--augment_noise 1", lambda c: c.data.augment_noise),
    )
    synth_unknown: int = option(
        0,
        "synthetic clips of more unknown words to add to the training set",
        minimum=0,
        maximum=1000000,
        steps=("prepare",),
    )
    synth_keywords: int = option(
        0,
        "synthetic clips of the keywords to add, so that a synthetic voice is no sign of an unknown word",
        minimum=0,
        maximum=1000000,
        steps=("prepare",),
    )
    synth_scale: float = option(
        1.0,
        "size of the synthetic data set, relative to the default",
        minimum=0.01,
        maximum=100,
        steps=("prepare",),
        needs=("--dataset synth", lambda c: c.data.dataset == "synth"),
    )


@dataclass(frozen=True)
class FeatureConfig:
    """The front end (docs/front_ends.md): the keys of --cfg_feat's JSON file; flags of the same names override them."""

    cfg_feat: str = _feature("feat_fft", "feature configuration: NAME of config/DATASET/NAME.json, or a file's path")
    zero_padding: Literal["head", "tail", "centre"] = _feature(
        "head",
        "where short clips are padded with zeros; centre: of logmel, frames amid empty ones, zeros at the end cut",
        choices=("head", "tail", "centre"),
    )
    logf: Literal["none", "lut"] = _feature("none", "lut: take log10(1 + feature)", choices=("none", "lut"))
    feat_type: Literal["logfbank", "logmel", "iir"] = _feature(
        "logfbank", "front end", choices=("logfbank", "logmel", "iir")
    )
    label_head: int = _feature(2, "frames at the start labelled silence", minimum=0, maximum=10000)
    label_tail: int = _feature(
        -2, "frames at the end labelled silence, as a negative number", minimum=-10000, maximum=0
    )
    sim_mic: bool = _feature(True, "iir: microphone model before the filters", needs=("--feat_type iir", _iir))
    mic_res: int = _feature(
        12,
        "resolution of the microphone's converter, bits",
        minimum=1,
        maximum=32,
        needs=("--feat_type iir --sim_mic 1", lambda c: _iir(c) and c.features.sim_mic),
    )
    n_filt: int = _feature(16, "number of filters", minimum=1, maximum=512)
    qf: bool = _feature(False, "quantise features: floor(x/max·2^(fqi−1)), then to Qfqi.fqf")
    fqi: int = _feature(12, "integer bits of quantised features, sign included", minimum=1, maximum=32)
    fqf: int = _feature(0, "fraction bits of quantised features", minimum=0, maximum=31)
    nfft: int = _feature(
        1024, "FFT length", minimum=2, maximum=65536, needs=("--feat_type logfbank or logmel", _spectrum)
    )
    mfcc: bool = _feature(False, "cepstral coefficients 1-39", needs=("--feat_type logfbank", _logfbank))
    gradient: bool = _feature(
        False, "append first and second differences along time", needs=("--feat_type logfbank", _logfbank)
    )
    log_feat: bool = _feature(True, "logarithmic features; 0: the filters' levels themselves")
    approx_log: bool = _feature(
        False,
        "round the logarithm's input to Qfqi.fqf, its output to Q3.8",
        needs=("--logf lut", lambda c: c.features.logf == "lut"),
    )
    floor: float = _feature(
        80.0,
        "lowest log level, dB: 80 is about the last bit of 16-bit audio, zeros would be -313",
        minimum=-1000,
        maximum=1000,
        needs=(
            "--feat_type logfbank --log_feat 1 --gain_ctrl 0",
            lambda c: _logfbank(c) and c.features.log_feat and not c.features.gain_ctrl,
        ),
    )
    norm_feat: bool = _feature(True, "normalise by one mean and one standard deviation of the training set")
    frame_size: float = _feature(0.016384, "frame length, seconds", minimum=1e-4, maximum=1.0)
    frame_stride: float = _feature(0.016384, "distance between frames, seconds", minimum=1e-4, maximum=1.0)
    sample_rate: int = _feature(16000, "samples per second; other files are resampled", minimum=1000, maximum=192000)
    freq_low: float = _feature(100.0, "lower edge of the filters, Hz", minimum=0, maximum=96000)
    freq_high: float = _feature(8000.0, "upper edge of the filters, Hz", minimum=0, maximum=96000)
    gain_ctrl: bool = _feature(False, "one gain per block of 8 frames", needs=("--feat_type logfbank", _logfbank))
    oversample_factor: int = _feature(
        1, "iir: resample to this multiple before the filters", minimum=1, maximum=16, needs=("--feat_type iir", _iir)
    )
    ch_orders: int = _feature(
        2, "iir: order of the band-passes", minimum=1, maximum=16, needs=("--feat_type iir", _iir)
    )
    q_factors: float = _feature(
        3.0, "iir: quality factor of the band-passes", minimum=1e-3, maximum=1000, needs=("--feat_type iir", _iir)
    )
    f_spacing: Literal["mel", "log"] = _feature("mel", "spacing of the filters", choices=("mel", "log"))
    f_centers: tuple[float, ...] = _feature(
        (),
        "the n_filt + 2 corner frequencies (Hz) themselves, instead of f_spacing, freq_low, freq_high",
        minimum=0,
        maximum=96000,
    )
    log_offset: float = _feature(
        400.0, "logmel: features are log_factor·ln(power + log_offset) + log_bias, above 0", **_logmel_log()
    )
    log_factor: float = _feature(10.0, "logmel: factor of the logarithm, above 0", **_logmel_log())
    log_bias: float = _feature(-61.5, "logmel: bias added to the logarithm", **_logmel_log())
    log_low: float = _feature(0.0, "logmel: lowest level; lower ones are raised to it", **_logmel_log())
    log_high: float = _feature(255.0, "logmel: highest level; higher ones are clipped to it", **_logmel_log())
    pool_bands: int = _feature(
        1, "logmel: neighbouring bands whose powers are added to one feature", minimum=1, maximum=512, **_logmel()
    )
    pool_frames: int = _feature(
        1, "logmel: neighbouring frames that are averaged to one", minimum=1, maximum=1000, **_logmel()
    )
    pool_log: bool = _feature(
        True,
        "mean of the frames' levels; 0: of their powers",
        needs=("--pool_frames 2 or more --log_feat 1", lambda c: c.features.pool_frames > 1 and c.features.log_feat),
    )

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame of the network's input to the next."""
        return self.frame_stride * (self.pool_frames if self.feat_type == "logmel" else 1)

    def record(self) -> dict[str, Any]:
        """All options, but for those of LATER that have their default."""
        return {f.name: getattr(self, f.name) for f in fields(self)
                if f.name not in LATER or getattr(self, f.name) != f.default}  # fmt: skip
