"""The configuration of a run: flags, files and presets, checked and resolved into plain dataclasses.

    config = resolve({"step": "retrain", "thx": "0.1"}, preset="default")
    config.delta.thx, config.training.lr, config.features.n_filt
    config = config.replace(thx=(0.2,), rnn_size=128)

Values come, each overriding the last, from the defaults (`options_data`, `options`), --preset,
the feature configuration that --cfg_feat names, --config FILE (YAML or JSON of flag names), and the command line.
"""

import dataclasses
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from deltarnn.files import write_json
from deltarnn.kws.config.option import STEPS, Option, Step, as_typed, convert, names_a_folder
from deltarnn.kws.config.options import (
    AugmentationConfig,
    DeltaConfig,
    ExportConfig,
    ModelConfig,
    PruningConfig,
    QuantizationConfig,
    ScoringConfig,
    TrainingConfig,
)
from deltarnn.kws.config.options_data import DataConfig, FeatureConfig, RunConfig
from deltarnn.kws.config.options_stream import StreamConfig
from deltarnn.kws.config.presets import PRESETS

IGNORED_FEATURE_KEYS = ("channel_scale", "channel_offset", "double_dynamic_range", "remove_offset")
"""Keys of older feature configurations, accepted with a warning that they do nothing."""


@dataclass(frozen=True)
class Config:
    """Every option of a run, by concern; `given` names those that the user set, `notes` what to tell the user."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    delta: DeltaConfig = field(default_factory=DeltaConfig)
    quantization: QuantizationConfig = field(default_factory=QuantizationConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    preset: str = "none"
    given: frozenset[str] = frozenset()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that this run takes."""
        first = STEPS.index(self.run.step)
        return STEPS[first:] if self.run.run_through else STEPS[first : first + 1]

    @property
    def makes_audio(self) -> bool:
        """Whether training hears other audio than the clips as they are."""
        return self.augmentation.changes_audio or self.augmentation.aug_splice > 0 or self.stream.stream_minutes > 0

    @property
    def feature_name(self) -> str:
        """Name of the folder under feat/DATASET/: --cfg_feat's, and a digest where other options change it."""
        named = feature_config(self.data.dataset, self.features.cfg_feat)
        changes = {k: v for k, v in vars(self.features).items() if v != getattr(named, k)}
        name = Path(self.features.cfg_feat).stem
        return f"{name}-{digest(changes)}" if changes else name

    def folder(self, kind: Literal["data", "feat", "log", "save"]) -> Path:
        """WORK_DIR/kind/DATASET."""
        return Path(self.run.work_dir) / kind / self.data.dataset

    def flat(self) -> dict[str, Any]:
        """All options by flag name, as JSON takes them."""
        values = {}
        for group in GROUPS:
            for name, value in dataclasses.asdict(getattr(self, group)).items():
                values[name] = list(value) if isinstance(value, tuple) else value
        return values

    def replace(self, **changes: Any) -> "Config":
        """A copy with options changed by flag name, checked like the command line's."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in changes.items():
            groups.setdefault(_group_of(name), {})[name] = _convert(name, value)
        parts = {group: dataclasses.replace(getattr(self, group), **values) for group, values in groups.items()}
        changed = dataclasses.replace(self, **parts, given=self.given | set(changes))
        changed.check()
        return changed

    def check(self) -> None:
        """ValueError where options contradict each other."""
        if not re.fullmatch(r"\w[\w.-]*", self.data.dataset):
            raise ValueError(f"--dataset {self.data.dataset}: must be a plain name; it names folders under --work_dir")
        if len(set(self.data.keywords)) != len(self.data.keywords) or not self.data.keywords:
            raise ValueError(f"--keywords {','.join(self.data.keywords)}: needs one or more words, each once")
        for word in self.data.keywords:
            if not names_a_folder(word) or (word.startswith("_") and word.endswith("_")):
                raise ValueError(f"--keywords {word}: must be a plain word, the name of the folder of its recordings")
        for low, high in (("aug_snr_low", "aug_snr_high"), ("lr_end", "lr"), ("freq_low", "freq_high")):
            if self._get(low) > self._get(high):
                raise ValueError(f"--{low} {self._get(low)}: must not exceed --{high} {self._get(high)}")
        features = self.features
        if features.logf == "lut" and features.feat_type != "iir" and features.log_feat:
            raise ValueError(
                f"--logf lut: {features.feat_type} features are logarithmic already; use it with --log_feat 0 or iir"
            )
        if features.feat_type == "logmel" and (features.f_centers or features.f_spacing != "mel"):
            raise ValueError(
                "--feat_type logmel: its bands are evenly spaced in mel; leave f_spacing and f_centers out"
            )
        if features.zero_padding == "centre" and features.feat_type != "logmel":
            raise ValueError(
                f"--zero_padding centre is for --feat_type logmel; with {features.feat_type}: head or tail"
            )
        if self.model.use_hardsigmoid != self.model.use_hardtanh:
            raise ValueError("--use_hardsigmoid and --use_hardtanh act together: give both, or neither")
        if self.run.model_path and Path(self.run.model_path).is_dir():
            raise ValueError(f"--model_path {self.run.model_path}: a folder; name a file in it")
        if self.training.teacher and self.training.loss == "ctc":
            raise ValueError("--teacher has no part in --loss ctc: leave one of them out")
        if (self.training.target == "word") != (self.stream.stream_minutes > 0):
            raise ValueError(
                "--target word and --stream_minutes act together: targets of words are those of made-up recordings"
            )
        if self.training.target == "word" and self.training.loss == "ctc":
            raise ValueError("--target word has no part in --loss ctc: leave one of them out")
        self.delta.per_layer(self.model.rnn_layers)

    def idle_flags(self) -> list[str]:
        """One sentence for every option that the user gave and that does nothing in this run."""
        sentences = []
        for name in sorted(self.given):
            rule = options()[name][2]
            if not set(rule.steps) & set(self.steps):
                where = f"it acts in {' and '.join(rule.steps)}" if rule.steps else "it acts in `deltarnn export`"
                sentences.append(f"--{name} does nothing in --step {self.run.step}: {where}")
            elif rule.needs is not None and not rule.needs[1](self):
                sentences.append(f"--{name} does nothing without {rule.needs[0]}")
        return sentences

    def command(self, step: Step, **further: Any) -> str:
        """The command line of another step for this run: data set, preset, the given flags that act there, further."""
        other, words = self.replace(step=step, run_through=0, **further), ["--dataset", self.data.dataset]
        words += ["--preset", self.preset] if self.preset != "none" else []
        for name in sorted(other.given - {"step", "run_through", "dataset", "seed"}):  # one data set serves all seeds
            rule, value = options()[name][2], other._get(name)
            if step in rule.steps and value != "" and (rule.needs is None or rule.needs[1](other)):
                words += [f"--{rule.flag or name}", as_typed(value)]
        return shlex.join(["deltarnn", step, *words])

    def save(self, path: str | Path) -> None:
        """Write the resolved options as JSON (a file that --config reads), atomically."""
        write_json(path, self.flat())

    def _get(self, name: str) -> Any:
        return getattr(getattr(self, _group_of(name)), name)


GROUPS: dict[str, type] = {
    f.name: cast(type, f.type) for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)
}


def resolve(flags: Mapping[str, Any], preset: str = "none", file: str | None = None) -> Config:
    """Options from flag values, a preset's name and a file's (see the module's head for which wins)."""
    from_file = _read_mapping(Path(file)) if file else {}
    unknown = sorted(set(from_file) - set(options()))
    if unknown:
        raise ValueError(f"--config {file}: {unknown[0]!r} is no flag; `deltarnn STEP --help` lists them")
    if preset not in PRESETS:
        raise ValueError(f"--preset {preset}: must be one of {', '.join(sorted(PRESETS))}")
    chosen = {**PRESETS[preset], **from_file, **flags}
    dataset = _convert("dataset", chosen.get("dataset", DataConfig().dataset))
    cfg_feat = _convert("cfg_feat", chosen.get("cfg_feat", FeatureConfig().cfg_feat))
    from_features, notes = read_feature_file(dataset, cfg_feat)
    values = {name: _convert(name, value) for name, value in {**from_features, **chosen}.items()}
    parts: dict[str, Any] = {
        group: kind(**{name: value for name, value in values.items() if _group_of(name) == group})
        for group, kind in GROUPS.items()
    }
    config = Config(**parts, preset=preset, given=frozenset({**from_file, **flags}), notes=tuple(notes))
    config.check()
    return config


def read_feature_file(dataset: str, cfg_feat: str) -> tuple[dict[str, Any], list[str]]:
    """Options of a feature configuration, and sentences on what in it does nothing.

    `cfg_feat` is the path of a JSON file, or the NAME of config/DATASET/NAME.json, looked for in the current folder and
    among those that come with the project. ValueError lists the names there are.
    """
    package = Path(__file__).resolve().parents[2]
    homes = (Path(), package.parents[1], package)  # the source tree's config/ is installed into the package
    # Recordings of one's own have no configurations of their own: those of Speech Commands serve.
    folders = [home / "config" / name for name in dict.fromkeys((dataset, "gscdv2")) for home in homes]
    candidates = [Path(cfg_feat)] if cfg_feat.endswith(".json") else [f / f"{cfg_feat}.json" for f in folders]
    path = next((c for c in candidates if c.is_file()), None)
    if path is None:
        if cfg_feat == FeatureConfig().cfg_feat:  # a data set without configurations: these are the defaults anyway
            return {}, []
        names = sorted({p.stem for f in folders for p in f.glob("*.json")})
        raise ValueError(f"--cfg_feat {cfg_feat}: no such file; config/{dataset} has {', '.join(names) or 'none'}")
    values = _read_mapping(path)
    ignored = [key for key in IGNORED_FEATURE_KEYS if values.pop(key, None) is not None]
    if isinstance(values.get("f_spacing"), list):
        values["f_centers"] = values.pop("f_spacing")
    unknown = sorted(set(values) - _names(FeatureConfig))
    if unknown:
        raise ValueError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(_names(FeatureConfig)))}")
    return values, [f"{path}: {key} does nothing" for key in ignored]


def feature_config(dataset: str, cfg_feat: str) -> FeatureConfig:
    """What a feature configuration says, and the defaults for the rest."""
    values, _ = read_feature_file(dataset, cfg_feat)
    return FeatureConfig(cfg_feat=cfg_feat, **{name: _convert(name, value) for name, value in values.items()})


def digest(values: Any) -> str:
    """Eight hexadecimal digits that stand for JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


@cache
def options() -> dict[str, tuple[str, Any, Option, Any]]:
    """Of every flag: its group, type, rule and default."""
    table = {}
    for group, kind in GROUPS.items():
        types = get_type_hints(kind)
        for f in dataclasses.fields(kind):
            table[f.name] = (group, types[f.name], f.metadata["option"], f.default)
    return table


@cache
def _names(kind: type) -> frozenset[str]:
    return frozenset(f.name for f in dataclasses.fields(kind))


def _group_of(name: str) -> str:
    if name not in options():
        raise ValueError(f"{name!r} is no option; `deltarnn STEP --help` lists them")
    return options()[name][0]


def _convert(name: str, raw: Any) -> Any:
    _, kind, rule, _ = options()[name]
    return convert(name, kind, rule, raw)


def _read_mapping(path: Path) -> dict[str, Any]:
    """A YAML or JSON file (JSON is YAML) that holds one mapping."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # beyond its own errors: dates, nesting
        raise ValueError(f"{path}: neither YAML nor JSON ({(str(error).splitlines() or ['?'])[0]})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold one mapping of names to values")
    return {str(key): value for key, value in content.items()}
