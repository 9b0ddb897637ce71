"""The training steps, as the command line calls them: pretrain and retrain."""

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_utilities.core.rank_zero import rank_zero_info

from deltarnn.fixed.qformat import Quantization
from deltarnn.kws.config.grid import grid_of
from deltarnn.kws.config.resolve import Config
from deltarnn.kws.evaluation.metrics import write_metrics
from deltarnn.kws.evaluation.scoring import (
    Clips,
    Evaluation,
    clips_of,
    decision_rule,
    evaluate,
    evaluate_carried,
    loss_options,
)
from deltarnn.kws.features.sequences import training_sequences
from deltarnn.kws.features.store import FeatureSet, feature_paths, load_features
from deltarnn.kws.features.versions import training_clips
from deltarnn.kws.network.losses import balanced_class_weights
from deltarnn.kws.network.model import Architecture, KeywordModel, load_keyword_model
from deltarnn.kws.paths import portable
from deltarnn.kws.training.finishing import Finisher, PruningPlan, hold_hidden_bias
from deltarnn.kws.training.journal import Journal
from deltarnn.kws.training.outcome import added_since, model_metrics, summary, write_signals
from deltarnn.kws.training.runs import CONFIG, Run, mark_latest, pretrained_models
from deltarnn.kws.training.schedule import LearningRate
from deltarnn.kws.training.teachers import file_digest, load_teacher, teacher_paths
from deltarnn.kws.training.trainer import Plan, Progress, Trainer, TrainingSet
from deltarnn.native import native_core

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "ADAMW": torch.optim.AdamW,
    "ADAM": torch.optim.Adam,
    "SGD": partial(torch.optim.SGD, momentum=0.9),
    "RMSPROP": torch.optim.RMSprop,
}


def pretrain(config: Config) -> Path:
    """Train the dense network from a random start; the path of its metrics.json."""
    return train(config, "pretrain").metrics


def retrain(config: Config) -> Path:
    """Train the delta network from a pretrained one; the path of its metrics.json."""
    return train(config, "retrain").metrics


def train(config: Config, step: str, *, latest: bool = True) -> Run:
    """One training step, from its checkpoint if there is one; the finished run. `latest`: save/DATASET/latest is it."""
    fabric = _fabric(config)
    sets = {group: load_features(path) for group, path in feature_paths(config).items()}
    # Those of the data, where no flag names them.
    config = config.replace(keywords=sets["train"].class_names[2:], clip_seconds=sets["train"].clip_seconds)
    sources = {group: features.source for group, features in sets.items() if group != "test"}
    start = _start(config) if step == "retrain" else None
    teachers = teacher_paths(config, start)
    models = [*teachers] if start is None else [start, *teachers]
    sources |= {f"model {i}": file_digest(path) for i, path in enumerate(models)}
    run = Run.of(config, step, sources)
    model = _model(config, step, sets["train"], start)
    rank_zero_info(f"{step}: {model.rnn}, {model.parameter_count} parameters" + (f", from {start}" if start else ""))
    rule, loss = decision_rule(config), loss_options(config)
    streams = config.stream.stream_minutes > 0
    groups = {group: clips_of(features).to(fabric.device) for group, features in sets.items()}
    header = model_header(config, step, sets["train"])

    def validate(candidate: KeywordModel) -> dict[str, float]:
        if not config.run.eval_val:
            return {}
        if streams:
            result = evaluate_carried(candidate, groups["validation"], rule, loss)
        else:
            result = evaluate(candidate, groups["validation"], rule, loss, config.training.batch_size_eval)
        score = result.accuracy if config.run.score_val else -result.loss
        sparsities = vars(result.sparsity) if result.sparsity is not None else {}
        return {"score": score, "validation_loss": result.loss, "validation_accuracy": result.accuracy, **sparsities}

    epochs = config.training.epochs_pretrain if step == "pretrain" else config.training.epochs_retrain
    journal = Journal(run, epochs, header, config.run.save_every_epoch)
    if fabric.is_global_zero:
        run.check_places(config.run.save_every_epoch)
        if not run.checkpoint.is_file():
            config.save(run.log / CONFIG)
    material = _material(config, sets["train"], teachers, fabric.device)
    plan = _plan(config, step, epochs, material.labels, len(header["labels"]))
    finisher = _finisher(config, step, groups["validation"])
    trainer = Trainer(
        fabric, model, material, plan, validate, finisher, run.checkpoint, run.identity, journal.after_epoch
    )
    progress = trainer.fit()
    best = trainer.best()
    if fabric.is_global_zero:
        journal.close()
        journal.tell_missing(progress)
        _finish(config, step, run, best, groups, progress, header)
        if latest:
            mark_latest(run)
    fabric.barrier()
    return run


def model_header(config: Config, step: str, features: FeatureSet) -> dict[str, Any]:
    """The application's fields of a model file: labels, features, decision rule, how it was trained."""
    formats = config.quantization
    class_quantization = {
        "score": {"format": [formats.cqi, formats.cqf], "mode": formats.qc},
        "weight": {"format": [formats.cwqi, formats.cwqf], "mode": formats.qcw},
    }
    work, folder = Path(config.run.work_dir).resolve(), config.folder("feat") / config.feature_name
    return {
        "labels": features.class_names,
        "clip_seconds": features.clip_seconds,
        "features": features.pipeline.to_dict(),
        "decision": dataclasses.asdict(decision_rule(config)),
        "class_quantization": class_quantization if formats.qc or formats.qcw else None,
        "training": {
            "step": step,
            "feature_folder": portable(folder, None if config.run.model_path else work),
            "options": config.flat(),
        },
    }


def _finish(
    config: Config, step: str, run: Run, best: KeywordModel, groups: dict[str, Clips], progress: Progress,
    header: dict[str, Any],
) -> None:  # fmt: skip
    """Evaluate the best model, once; write model, metrics and configuration; say what was achieved."""
    rule, loss = decision_rule(config), loss_options(config)
    wanted = {"validation": config.run.eval_val, "test": config.run.eval_test}
    results: dict[str, Evaluation] = {
        group: evaluate(best, groups[group], rule, loss, config.training.batch_size_eval)
        for group, asked in wanted.items()
        if asked
    }
    rows = progress.history
    metrics = {
        "step": step,
        "model": run.model_path.name,
        **model_metrics(best, results, config.features.frame_seconds),
        "best_epoch": progress.best_epoch + 1,
        "epochs": len(rows),
        "seconds_per_epoch": sum(row["seconds"] for row in rows) / max(1, len(rows)),
        "seed": config.training.seed,
        "run": str(run.log),
    }
    for group, scored in (("validation", config.run.score_val), ("test", config.run.score_test)):
        if not scored and group in results:  # what the decision rule gives is not asked for
            del metrics[f"{group}_accuracy"]
            metrics[group] = {"loss": results[group].loss}
    line = summary(config, step, best, metrics)
    added, earlier = added_since(run, best)
    metrics = earlier | metrics
    best.save(run.model_path, **header, **added)
    config.save(run.model_path.with_name(CONFIG))
    if "test" in results and config.run.score_test:
        print(results["test"].confusion)
    if config.run.debug:
        signals = run.model_path.with_name("signals.npz")
        write_signals(signals, best, groups["validation"])
        print(f"signals of a few validation clips: {signals}")
    print(line)
    print(f"model: {run.model_path}")
    print(write_metrics(run.metrics, metrics))


def _fabric(config: Config) -> Fabric:
    """CPU or the chosen GPU; under torchrun one process per device."""
    wants_cuda = _wants_cuda(config)
    if config.run.use_cuda and not wants_cuda and "use_cuda" in config.given:
        rank_zero_info("--use_cuda 1: there is no GPU here; training on the CPU")
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    devices: int | list[int] = processes if processes > 1 or not wants_cuda else [config.run.gpu_device]
    fabric = Fabric(accelerator="cuda" if wants_cuda else "cpu", devices=devices, num_nodes=_nodes())
    if not wants_cuda:
        # The samples of a batch are few and short: more threads would mostly wait for each other.
        torch.set_num_threads(config.run.threads or min(torch.get_num_threads(), 4))
    fabric.launch()
    return fabric


def _wants_cuda(config: Config) -> bool:
    return config.run.use_cuda and torch.cuda.is_available()


def _nodes() -> int:
    return max(1, int(os.environ.get("WORLD_SIZE", "1")) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _start(config: Config) -> Path:
    """The pretrained model from which retrain starts."""
    if not config.run.path_net_pretrain:
        return pretrained_models(config)[0]
    path = Path(config.run.path_net_pretrain)
    if not path.is_file():
        raise ValueError(f"--path_net_pretrain {path}: no such file")
    return path


def _model(config: Config, step: str, features: FeatureSet, start: Path | None) -> KeywordModel:
    """The network to train: random, or the pretrained one as a delta network."""
    options, quantization = config.model, config.quantization.layer
    architecture = Architecture(
        input_size=features.pipeline.num_features,
        classes=len(features.class_names),
        cell=options.rnn_type,
        hidden_size=options.rnn_size,
        num_layers=options.rnn_layers,
        fc_extra_size=options.fc_extra_size,
        hard_activations=options.use_hardsigmoid,
    )
    torch.manual_seed(config.training.seed)
    model = KeywordModel(architecture, options.rnn_dropout if step == "pretrain" else 0.0, options.fc_dropout)
    if start is not None:
        pretrained, header = load_keyword_model(start)
        if pretrained.architecture != architecture or header.get("labels") != features.class_names:
            raise ValueError(
                f"{start} is another network than asked for: {_differences(pretrained.architecture, architecture)}"
                f"{_words(header['labels'], features.class_names)}; give the same --rnn_*, --keywords and --cfg_feat "
                "as in pretrain"
            )
        model.load_state_dict(pretrained.state_dict())
    if step == "retrain":
        thx, thh = config.delta.per_layer(options.rnn_layers)
        model.to_delta(_on_grid("thx", thx, quantization), _on_grid("thh", thh, quantization), quantization)
    elif quantization is not None or (not _wants_cuda(config) and native_core() is not None):
        # With thresholds 0 the delta layer equals the dense one. It alone computes in fixed point, and on the CPU its
        # kernels train several times faster.
        model.to_delta(quantization=quantization)
    if options.zero_b_hn and options.rnn_type == "GRU":
        hold_hidden_bias(model)
    return model


def _differences(there: Architecture, asked: Architecture) -> str:
    """What tells two networks apart, such as "hidden_size 64, not 128"."""
    return ", ".join(
        f"{name} {value}, not {getattr(asked, name)}"
        for name, value in vars(there).items()
        if value != getattr(asked, name)
    )


def _words(there: list[str], asked: list[str]) -> str:
    return "" if there == asked else f" for the classes {','.join(there)}, not {','.join(asked)}"


def _on_grid(flag: str, thresholds: tuple[float, ...], quantization: Quantization | None) -> tuple[float, ...]:
    """Thresholds rounded to the activation grid of a quantised network, and said so."""
    if quantization is None:
        return thresholds
    rounded = tuple(quantization.round_threshold(threshold) for threshold in thresholds)
    if rounded != thresholds:
        rank_zero_info(f"--{flag} {thresholds} rounded to the grid of {quantization.activation}: {rounded}")
    return rounded


def _material(config: Config, features: FeatureSet, teachers: list[Path], device: torch.device) -> TrainingSet:
    """The training set, with the teachers' scores of it, on the device."""
    streams = config.stream.stream_minutes > 0
    loaded = [load_teacher(config, path, features, pooled_otherwise=not streams) for path in teachers]
    for teacher in loaded:
        teacher.model.to(device)
    material = (training_sequences if streams else training_clips)(config, features, loaded)
    try:
        return material.to(device)
    except torch.cuda.OutOfMemoryError as error:
        raise ValueError(
            f"--use_cuda 1: the training set does not fit into the GPU's memory ({error}); take fewer --aug_versions, "
            "or --use_cuda 0"
        ) from None


def _plan(config: Config, step: str, epochs: int, labels: torch.Tensor, classes: int) -> Plan:
    """The loop's plan."""
    options = config.training
    thx, thh = config.delta.per_layer(config.model.rnn_layers) if step == "retrain" else ((0.0,), (0.0,))
    quantization = config.quantization.layer
    if quantization is not None:
        thx, thh = (tuple(map(quantization.round_threshold, thresholds)) for thresholds in (thx, thh))
    decay = options.lr_decay if options.lr_schedule else None
    return Plan(
        epochs=epochs,
        batch_size=options.batch_size,
        optimizer=partial(OPTIMIZERS[options.opt], lr=options.lr, weight_decay=options.weight_decay),
        rate=lambda steps: LearningRate(
            options.lr, options.lr_end, steps, decay, options.decay_factor, options.patience
        ),
        loss=loss_options(config),
        seed=options.seed,
        class_weights=balanced_class_weights(labels, classes) if options.class_weights else None,
        beta=options.beta if step == "retrain" else 0.0,
        gradient_limit=options.grad_clip_val,
        average=options.average,
        thx=thx,
        thh=thh,
        threshold_warmup=options.threshold_warmup if step == "retrain" else 0.0,
        carry_state=options.carry_state,
        stream_fresh=config.stream.stream_fresh,
        early_stop=options.early_stop,
        keep_last=options.keep_last or config.stream.stream_minutes > 0,
    )


def _finisher(config: Config, step: str, validation: Clips) -> Finisher:
    """Rounding and pruning after each epoch. A network is pruned gradually in pretrain, and kept so in retrain."""
    formats, pruning, array = config.quantization, config.pruning, config.export
    plan = PruningPlan(
        pruning.gamma_rnn,
        pruning.gamma_fc,
        array.num_array * array.num_array_pe,
        pruning.alpha_anneal_epoch if step == "pretrain" else 0,
    )
    return Finisher(
        recurrent=grid_of(formats.qw, formats.wqi, formats.wqf),
        dense=grid_of(formats.qcw, formats.cwqi, formats.cwqf),
        scores=grid_of(formats.qc, formats.cqi, formats.cqf),
        calibration=validation.features,
        pruning=plan if pruning.cbtd else None,
        seed=config.training.seed,
    )
