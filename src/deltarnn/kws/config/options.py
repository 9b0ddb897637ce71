"""The options of training: one dataclass per concern, one flag per field, named as the field."""

from dataclasses import dataclass
from typing import Any, Literal

from deltarnn.fixed.qformat import QFormat, Quantization, Rounding
from deltarnn.kws.config.option import TRAIN, option

ROUNDINGS: tuple[Rounding, ...] = ("nearest", "floor")  # the meaning of 1 and 2 in --qa, --qw, --qc, --qcw


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    model_pretrain: str = option("cla-rnn", "model of pretrain", choices=("cla-rnn",), steps=("pretrain",))
    model_retrain: str = option("cla-deltarnn", "model of retrain", choices=("cla-deltarnn",), steps=("retrain",))
    rnn_type: Literal["GRU", "LSTM"] = option("GRU", "recurrent cell", choices=("GRU", "LSTM"), steps=TRAIN)
    rnn_layers: int = option(1, "recurrent layers", minimum=1, maximum=64, steps=TRAIN)
    rnn_size: int = option(64, "units per recurrent layer", minimum=1, maximum=4096, steps=TRAIN)
    rnn_dropout: float = option(
        0.0,
        "dropout between recurrent layers, in pretrain only: its masks, new for every frame, make all deltas fire",
        minimum=0,
        maximum=1,
        steps=("pretrain",),
        needs=("--rnn_layers 2 or more", lambda c: c.model.rnn_layers > 1),
    )
    fc_extra_size: int = option(
        0, "units of an extra dense layer before the class scores", minimum=0, maximum=65536, steps=TRAIN
    )
    fc_dropout: float = option(0.0, "dropout before the class scores", minimum=0, maximum=1, steps=TRAIN)
    zero_b_hn: bool = option(
        False,
        "keep b_hn, the hidden bias of a GRU's candidate, at 0: EdgeDRNN has one bias per gate row",
        steps=TRAIN,
        needs=("--rnn_type GRU", lambda c: c.model.rnn_type == "GRU"),
    )
    use_hardsigmoid: bool = option(False, "hard sigmoid; acts together with --use_hardtanh", steps=TRAIN)
    use_hardtanh: bool = option(False, "hard tanh; acts together with --use_hardsigmoid", steps=TRAIN)


@dataclass(frozen=True)
class DeltaConfig:
    """Thresholds of the delta network (MATH §1), one per layer or one for all."""

    thx: tuple[float, ...] = option(
        (0.0,),
        "threshold of input deltas, one for all layers or one per layer (0.1 or 0.1,0.05)",
        minimum=0,
        maximum=1e6,
        steps=("retrain",),
    )
    thh: tuple[float, ...] = option(
        (0.0,),
        "threshold of hidden-state deltas, one for all layers or one per layer",
        minimum=0,
        maximum=1e6,
        steps=("retrain",),
    )

    def per_layer(self, layers: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(thx, thh) with one value per layer. ValueError where their number fits neither 1 nor `layers`."""
        for name, values in (("thx", self.thx), ("thh", self.thh)):
            if len(values) not in (1, layers):
                raise ValueError(
                    f"--{name} {','.join(map(str, values))}: needs one value, or one for each of {layers} layers"
                )
        return self.thx * (layers // len(self.thx)), self.thh * (layers // len(self.thh))


def _cbtd() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--cbtd 1", lambda c: c.pruning.cbtd)}


def _schedule() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--lr_schedule 1", lambda c: c.training.lr_schedule)}


def _plateau() -> dict[str, Any]:
    return {
        "steps": TRAIN,
        "needs": (
            "--lr_schedule 1 --lr_decay plateau",
            lambda c: c.training.lr_schedule and c.training.lr_decay == "plateau",
        ),
    }


def _targeted() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("a --loss other than ctc", lambda c: c.training.loss != "ctc")}


def _taught() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--teacher MODEL", lambda c: c.training.teacher != "")}


def _noise() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--aug_noise above 0", lambda c: c.augmentation.aug_noise > 0)}


def _words() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--target word", lambda c: c.training.target == "word")}


def _clips() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--stream_minutes 0", lambda c: not c.stream.stream_minutes)}


def _smooth() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--smooth 1", lambda c: c.scoring.smooth)}


def _on(flag: str) -> dict[str, Any]:
    """Steps and need of a Q format's bits: they act where their quantisation is on."""
    return {"steps": TRAIN, "needs": (f"--{flag} 1 or 2", lambda c: getattr(c.quantization, flag) > 0)}


def _mode(what: str) -> Any:
    return option(0, f"quantise {what}: 0 off, 1 to nearest (ties to even), 2 down", choices=(0, 1, 2), steps=TRAIN)


@dataclass(frozen=True)
class QuantizationConfig:
    """Q formats (MATH §6): integer bits (sign included) and fraction bits of what is quantised."""

    qa: int = _mode("activations")
    aqi: int = option(3, "integer bits of activations", minimum=1, maximum=31, **_on("qa"))
    aqf: int = option(5, "fraction bits of activations", minimum=0, maximum=31, **_on("qa"))
    qw: int = _mode("weights, after every epoch")
    wqi: int = option(1, "integer bits of weights", minimum=1, maximum=31, **_on("qw"))
    wqf: int = option(7, "fraction bits of weights", minimum=0, maximum=31, **_on("qw"))
    qc: int = _mode("class scores")
    cqi: int = option(3, "integer bits of class scores", minimum=1, maximum=31, **_on("qc"))
    cqf: int = option(5, "fraction bits of class scores", minimum=0, maximum=31, **_on("qc"))
    qcw: int = _mode("class weights, scaled down first when the scores exceed their format's range")
    cwqi: int = option(1, "integer bits of class weights", minimum=1, maximum=31, **_on("qcw"))
    cwqf: int = option(7, "fraction bits of class weights", minimum=0, maximum=31, **_on("qcw"))
    nqi: int = option(2, "integer bits of the outputs of σ and tanh", minimum=1, maximum=31, **_on("qa"))
    nqf: int = option(6, "fraction bits of the outputs of σ and tanh", minimum=0, maximum=31, **_on("qa"))
    bw_acc: int = option(
        32,
        "width of the hardware's accumulators, bits; the run reports whether the worst case fits",
        minimum=8,
        maximum=64,
        **_on("qa"),
    )

    @property
    def layer(self) -> Quantization | None:
        """Formats of the recurrent layers, or None where activations are not quantised."""
        if not self.qa:
            return None
        return Quantization(
            activation=QFormat(self.aqi, self.aqf),
            weight=self.weight,
            gate=QFormat(self.nqi, self.nqf),
            rounding=ROUNDINGS[self.qa - 1],
        )

    @property
    def weight(self) -> QFormat:
        """Format of weights."""
        return QFormat(self.wqi, self.wqf)


@dataclass(frozen=True)
class PruningConfig:
    """Column-balanced targeted dropout (MATH §7)."""

    cbtd: bool = option(
        False, "prune the weights after every epoch, balanced per column and processing element", steps=TRAIN
    )
    gamma_rnn: float = option(0.7, "fraction of recurrent weights to prune", minimum=0, maximum=1, **_cbtd())
    gamma_fc: float = option(0.75, "fraction of dense weights to prune", minimum=0, maximum=1, **_cbtd())
    alpha_anneal_epoch: int = option(
        100, "epochs over which the pruning probability rises to 1", minimum=1, maximum=100000, **_cbtd()
    )


@dataclass(frozen=True)
class TrainingConfig:
    """Optimisation."""

    seed: int = option(0, "seed of all random choices", minimum=0, maximum=2**63 - 1)
    epochs_pretrain: int = option(50, "epochs of pretrain", minimum=0, maximum=100000, steps=("pretrain",))
    epochs_retrain: int = option(50, "epochs of retrain", minimum=0, maximum=100000, steps=("retrain",))
    batch_size: int = option(64, "clips per training step", minimum=1, maximum=65536, steps=TRAIN)
    batch_size_eval: int = option(256, "clips per evaluation step", minimum=1, maximum=65536, steps=TRAIN)
    opt: str = option("ADAMW", "optimiser", choices=("ADAMW", "ADAM", "SGD", "RMSPROP"), steps=TRAIN)
    lr_schedule: bool = option(True, "change the learning rate during training", steps=TRAIN)
    lr: float = option(1e-3, "learning rate", minimum=0, maximum=1e30, steps=TRAIN)
    lr_end: float = option(3e-4, "lowest learning rate", minimum=0, maximum=1e30, **_schedule())
    lr_decay: Literal["plateau", "cosine"] = option(
        "plateau",
        "plateau: reduce the rate when the validation loss stalls; cosine: along half a cosine to lr_end",
        choices=("plateau", "cosine"),
        **_schedule(),
    )
    decay_factor: float = option(0.8, "learning rate's factor at each reduction", minimum=0, maximum=1, **_plateau())
    patience: int = option(4, "epochs without improvement before a reduction", minimum=0, maximum=100000, **_plateau())
    keep_last: bool = option(
        False, "keep the last epoch, not the best: while sparsity still rises, the best may be a less sparse one",
        **_clips(),
    )  # fmt: skip
    early_stop: int = option(
        0,
        "stop after this many epochs without a better one; 0: never",
        minimum=0,
        maximum=100000,
        steps=TRAIN,
        needs=("--stream_minutes 0 and --keep_last 0", lambda c: not (c.stream.stream_minutes or c.training.keep_last)),
    )
    beta: float = option(0.0, "weight of Σ|Δh| in the loss", minimum=0, maximum=1e6, steps=("retrain",))
    loss: str = option("crossentropy", "loss", choices=("crossentropy", "ctc", "mse", "l1"), steps=TRAIN)
    target: Literal["clip", "frame", "word"] = option(
        "clip",
        "what the loss compares with the label: scores pooled over the clip, or every frame's; word: every frame's of "
        "made-up recordings, with a target of its own",
        choices=("clip", "frame", "word"),
        **_targeted(),
    )
    label_smoothing: float = option(
        0.0, "share of each target spread over all classes", minimum=0, maximum=0.99, **_targeted()
    )
    focus: float = option(
        0.0, "extra weight of frames without a keyword that score like one", minimum=0, maximum=5, **_words()
    )
    tell_silence: float = option(1.0, "weight of telling silence from other words", minimum=0, maximum=1, **_words())
    class_weights: bool = option(False, "weight the loss so that all classes count equally", steps=TRAIN)
    teacher: str = option(
        "",
        "model files, separated by commas, of networks whose mean posteriors the loss follows too; in retrain also "
        "start: the one it starts from, and all: every pretrain run of this network, of several seeds for instance",
        steps=TRAIN,
    )
    teacher_weight: float = option(0.5, "share of the loss that follows the teacher", minimum=0, maximum=1, **_taught())
    temperature: float = option(
        2.0, "temperature of both posteriors in distillation", minimum=0.1, maximum=1000, **_taught()
    )
    average: float = option(
        0.0,
        "evaluate and keep averaged parameters: decay per step of the moving average",
        minimum=0,
        maximum=0.99999,
        steps=TRAIN,
    )
    carry_state: float = option(
        0.0,
        "share of the training clips that start from the state another clip left behind, as in a stream",
        minimum=0,
        maximum=1,
        **_clips(),
    )
    threshold_warmup: float = option(
        0.0, "share of the epochs over which the thresholds rise from 0", minimum=0, maximum=1, steps=("retrain",)
    )
    weight_decay: float = option(0.01, "weight decay", minimum=0, maximum=1000, steps=TRAIN)
    grad_clip_val: float = option(
        200.0, "largest norm of the gradient; 0: no limit", minimum=0, maximum=1e9, steps=TRAIN
    )


@dataclass(frozen=True)
class AugmentationConfig:
    """Random changes of the training clips, drawn anew for every epoch (docs/data.md). Each is off at 0."""

    aug_noise: float = option(0.0, "probability of background noise in a clip", minimum=0, maximum=1, steps=TRAIN)
    aug_snr_low: float = option(0.0, "lowest SNR of that noise, dB", minimum=-100, maximum=200, **_noise())
    aug_snr_high: float = option(20.0, "highest SNR of that noise, dB", minimum=-100, maximum=200, **_noise())
    aug_gain: float = option(0.0, "gain drawn from ± this many dB", minimum=0, maximum=40, steps=TRAIN)
    aug_shift: float = option(0.0, "time shift drawn from ± this many seconds", minimum=0, maximum=0.5, **_clips())
    aug_speed: float = option(0.0, "speed drawn from 1 ± this", minimum=0, maximum=0.5, steps=TRAIN)
    aug_warp: float = option(
        0.0,
        "bands moved by a factor drawn from 1 ± this, as by a longer or shorter vocal tract (of levels)",
        minimum=0,
        maximum=0.5,
        **_clips(),
    )
    aug_splice: int = option(
        0,
        "unknown clips made from the training words: halves of two words joined, or one word backwards",
        minimum=0,
        maximum=100000,
        **_clips(),
    )
    aug_versions: int = option(
        8,
        "versions of every clip, from which each batch draws",
        minimum=1,
        maximum=1000,
        steps=TRAIN,
        needs=("changed or spliced audio", lambda c: c.makes_audio),
    )
    aug_time_mask: int = option(0, "SpecAugment: longest run of masked frames", minimum=0, maximum=10000, steps=TRAIN)
    aug_freq_mask: int = option(0, "SpecAugment: widest band of masked features", minimum=0, maximum=10000, steps=TRAIN)

    @property
    def changes_audio(self) -> bool:
        """Whether features must be computed anew from changed audio."""
        return any((self.aug_noise, self.aug_gain, self.aug_shift, self.aug_speed, self.aug_warp))


@dataclass(frozen=True)
class ScoringConfig:
    """Decision rule of a clip."""

    smooth: bool = option(True, "smooth the posteriors over time before deciding", steps=TRAIN)
    smooth_window_size: int = option(60, "frames that are averaged", minimum=1, maximum=10000, **_smooth())
    confidence_window_size: int = option(
        80, "frames whose best smoothed posterior counts", minimum=1, maximum=100000, **_smooth()
    )
    fire_threshold: float = option(0.0, "posterior below which a clip is silence", minimum=0, maximum=1, **_smooth())
    unknown_weight: float = option(
        1.0,
        "how much the posterior of other words counts: a keyword's beginning passes for one",
        minimum=0.01,
        maximum=1,
        steps=TRAIN,
        needs=("--smooth 1 --target word", lambda c: c.scoring.smooth and c.training.target == "word"),
    )


@dataclass(frozen=True)
class ExportConfig:
    """The accelerator that `deltarnn export` writes for (docs/accelerators.md)."""

    stim_head: int = option(1000, "first frame of the stimulus", minimum=0, maximum=1000000000, steps=())
    stim_len: int = option(1000, "frames of the stimulus", minimum=1, maximum=1000000, steps=())
    num_array: int = option(1, "MAC arrays; also of column-balanced pruning", minimum=1, maximum=1024, **_cbtd())
    num_array_pe: int = option(
        16, "processing elements per array; also of column-balanced pruning", minimum=1, maximum=4096, **_cbtd()
    )
    num_array_pe_ext: int = option(
        8, "processing elements per array of the exported network", minimum=1, maximum=4096, steps=()
    )
    act_latency: int = option(8, "clocks of the activation pipeline", minimum=0, maximum=100000, steps=())
    act_interval: int = option(4, "clocks between two activations", minimum=1, maximum=100000, steps=())
    op_freq: float = option(2e8, "clock frequency, Hz", minimum=1, maximum=1e12, steps=())
    w_sp_ext: float = option(0.9375, "weight sparsity of the exported network", minimum=0, maximum=1, steps=())
