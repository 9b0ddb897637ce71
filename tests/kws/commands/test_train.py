"""The training steps on a tiny corpus, through the command line, and a run that is killed and goes on."""

import copy
import csv
import json
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from tests.kws.killed import check_it_goes_on

from deltarnn.adapt.checkpoint import Checkpoint, CheckpointError
from deltarnn.cli import main
from deltarnn.fixed import QFormat, Quantization
from deltarnn.kws.commands.evaluate import load_groups, precisions
from deltarnn.kws.config.resolve import parse_arguments
from deltarnn.kws.evaluation.scoring import evaluate, evaluate_carried
from deltarnn.kws.features.versions import Batch, VersionedClips
from deltarnn.kws.network.decision import DecisionRule, clip_scores
from deltarnn.kws.network.losses import LossOptions, loss_of
from deltarnn.kws.network.model import Architecture, KeywordModel, load_keyword_model
from deltarnn.kws.training.carried import CarriedStates
from deltarnn.kws.training.finishing import Finisher, PruningPlan
from deltarnn.kws.training.outcome import accumulator_bits
from deltarnn.kws.training.runs import Run, pretrained_models
from deltarnn.kws.training.schedule import LearningRate
from deltarnn.kws.training.trainer import Plan, Trainer
from deltarnn.nn.activity import record_activity

DATA = ["--dataset", "gscdv2", "--keywords", "yes,no", "--workers", "1"]
QUICK = [
    *DATA,
    "--rnn_size",
    "12",
    "--batch_size",
    "8",
    "--lr",
    "0.01",
    "--average",
    "0.9",
    "--rnn_layers",
    "2",
    "--threads",
    "1",
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_corpus_of) -> Path:
    """A work_dir with features, and a pretrained network of 6 epochs."""
    folder = tmp_path_factory.mktemp("kws")
    corpus = tiny_corpus_of(folder / "corpus")
    work = folder / "work"
    where = ["--work_dir", str(work)]
    assert main(["prepare", *DATA, *where, "--data_dir", str(corpus)]) == 0
    assert main(["feature", *DATA, *where]) == 0
    assert main(["pretrain", *QUICK, *where, "--epochs_pretrain", "6"]) == 0
    return work


def run(capsys, work: Path, *arguments: str) -> dict:
    """metrics.json of a step, found as its last line says."""
    assert main([arguments[0], *QUICK, "--work_dir", str(work), *arguments[1:]]) == 0
    path = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert path.name == "metrics.json"
    return {**json.loads(path.read_text()), "model_file": path.parent / "model.safetensors"}


def test_pretrain_learns_tones(prepared):
    (path,) = prepared.glob("save/gscdv2/pretrain-*/metrics.json")
    metrics = json.loads(path.read_text())
    assert metrics["validation_accuracy"] >= 0.7
    assert metrics["parameters"] == sum(
        p.numel() for p in load_keyword_model(path.parent / "model.safetensors")[0].parameters()
    )
    history = next(prepared.glob("log/gscdv2/pretrain-*/history.csv")).read_text().splitlines()
    assert len(history) == 7
    best = next(prepared.glob("log/gscdv2/pretrain-*/best.csv")).read_text().splitlines()[1]
    assert best in history


def test_retrain_reaches_sparsity_and_evaluate_agrees(prepared, capsys):
    metrics = run(capsys, prepared, "retrain", "--epochs_retrain", "2", "--thx", "0.2", "--thh", "0.1")
    assert metrics["sparsity_h"] > 0.3
    assert metrics["sparsity_x"] > 0.1
    assert main(["evaluate", str(metrics["model_file"])]) == 0
    out = capsys.readouterr().out.strip().splitlines()
    again = json.loads(Path(out[-1]).read_text())
    assert again["test_accuracy"] == metrics["test_accuracy"]
    assert again["sparsity"] == pytest.approx(metrics["sparsity"])
    assert set(again["evaluation"]) == {"float", "fixed"}
    assert "<svg" in metrics["model_file"].with_name("report.html").read_text()


def test_evaluate_writes_what_each_arithmetic_and_state_gives(prepared, capsys, monkeypatch):
    streams = "deltarnn.kws.evaluation.scoring.STREAMS"
    monkeypatch.setattr(streams, 2)  # the set is small: more streams would be of one clip each
    metrics = run(capsys, prepared, "retrain", "--epochs_retrain", "2", "--thx", "0.2", "--thh", "0.1")
    assert main(["evaluate", str(metrics["model_file"])]) == 0
    written = json.loads(Path(capsys.readouterr().out.strip().splitlines()[-1]).read_text())
    model, header = load_keyword_model(metrics["model_file"])
    (clips,) = load_groups(header, None, ["test"]).values()
    rule = DecisionRule(**header["decision"])
    variants, sparsities = precisions(model), []
    assert list(written["evaluation"]) == list(variants) == ["float", "fixed"]
    for name, candidate in variants.items():
        for state, function in (("reset", evaluate), ("carried", evaluate_carried)):
            expected = function(candidate, clips, rule, LossOptions(target=rule.target)).fields()
            actual = written["evaluation"][name][state]["test"]
            assert actual["confusion"] == expected["confusion"]
            assert actual["sparsity"] == pytest.approx(expected["sparsity"], abs=1e-6)
            sparsities.append(actual["sparsity"])
    assert len(set(sparsities)) == 4
    assert written["sparsity"] == sparsities[0]
    with pytest.raises(ValueError, match="other feature options"):
        load_groups({**header, "labels": header["labels"][::-1]}, None, ["test"])


def test_sweep_measures_every_point_and_takes_the_sparsest_within_its_budget(prepared, capsys):
    metrics = run(capsys, prepared, "retrain", "--epochs_retrain", "1", "--thx", "0.2", "--thh", "0.1")
    arguments = ["--thx", "0.1,0.6", "--thh", "0.05,0.4", "--workers", "0", "--budget", "0.25"]
    assert main(["sweep", str(metrics["model_file"]), *arguments]) == 0
    path = Path(capsys.readouterr().out.strip().splitlines()[-1])
    sweep = json.loads(path.read_text())
    model, header = load_keyword_model(metrics["model_file"])
    rule, groups = DecisionRule(**header["decision"]), load_groups(header, None, ["validation", "test"])
    measured = sweep["points"]
    assert measured[0] == sweep["dense"]
    pairs = [(0.0, 0.0), (0.1, 0.05), (0.1, 0.4), (0.6, 0.05), (0.6, 0.4)]
    for point, (thx, thh) in zip(measured, pairs, strict=True):
        assert (point["thx"], point["thh"]) == (thx, thh)
        model.set_thresholds((thx,), (thh,))
        for group, clips in groups.items():
            result = evaluate(model, clips, rule, LossOptions())
            assert (point[f"{group}_accuracy"], point[f"{group}_sparsity"]) == (
                result.accuracy,
                result.sparsity.sparsity,
            )
    floor = sweep["dense"]["validation_accuracy"] - 0.25
    allowed = [p["validation_sparsity"] for p in measured[1:] if p["validation_accuracy"] >= floor]
    assert sweep["best"]["validation_sparsity"] == max(allowed)
    assert sweep["best"]["validation_accuracy"] >= floor
    pairs = {(p["validation_accuracy"], p["validation_sparsity"]) for p in measured}
    beaten = {p for p in pairs for q in pairs if q != p and q[0] >= p[0] and q[1] >= p[1]}
    assert {(p["validation_accuracy"], p["validation_sparsity"]) for p in sweep["front"]} == pairs - beaten
    rows = list(csv.DictReader(path.with_name("sweep.csv").open()))
    assert [(float(row["thx"]), float(row["test_sparsity"])) for row in rows] == [
        (point["thx"], point["test_sparsity"]) for point in measured
    ]


def test_sweep_retrains_its_points_apart(prepared, tmp_path, capsys, monkeypatch):
    """In processes of their own, whose command lines run here: with all that a point needs to know."""
    work = tmp_path / "work"
    shutil.copytree(prepared, work)
    model = run(capsys, work, "retrain", "--epochs_retrain", "2", "--thx", "0.1", "--thh", "0.1")["model_file"]
    before = set(work.glob("save/gscdv2/retrain-*"))
    commands = []

    def apart(command: list[str], **_) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, main(command[3:]), "", "failed")

    monkeypatch.setattr("deltarnn.kws.commands.apart.subprocess.run", apart)
    sweep = ["sweep", str(model), "--thx", "0.3", "--thh", "0.2", "--workers", "1"]
    assert main([*sweep, "--epochs_retrain", "1"]) == 0
    path = Path(capsys.readouterr().out.strip().splitlines()[-1])
    (retrained,) = set(work.glob("save/gscdv2/retrain-*")) - before - {path.parent.parent}
    metrics = json.loads((retrained / "metrics.json").read_text())
    assert metrics["epochs"] == 1
    _, point = json.loads(path.read_text())["points"]
    assert point["test_sparsity"] == pytest.approx(metrics["test"]["sparsity"], abs=1e-6)
    header = load_keyword_model(retrained / "model.safetensors")[1]
    assert (header["thx"], header["thh"]) == ([0.3, 0.3], [0.2, 0.2])
    assert main([*sweep, "--epochs_retrain", "1"]) == 0
    assert len(commands) == 2  # what is there is not measured again
    assert main(sweep) == 0
    assert len(commands) == 4  # but not retrained is something else


def test_retrain_starts_from_the_pretrained_network(prepared, capsys):
    """With a rate too small to move any weight, it is what comes out."""
    still = ["--epochs_retrain", "1", "--lr", "1e-12", "--lr_end", "0", "--average", "0", "--weight_decay", "0"]
    metrics = run(capsys, prepared, "retrain", *still, "--thx", "0.1", "--thh", "0.1")
    (start,) = prepared.glob("save/gscdv2/pretrain-*/model.safetensors")
    before, after = (load_keyword_model(path)[0].state_dict() for path in (start, metrics["model_file"]))
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)


@pytest.mark.parametrize(
    ("score_val", "column", "sign"), [("1", "validation_accuracy", 1), ("0", "validation_loss", -1)]
)
def test_the_score_is_what_was_asked_for(prepared, capsys, score_val, column, sign):
    flags = ["--epochs_retrain", "2", "--thx", "0.1", "--thh", "0.1", "--score_val", score_val, "--seed", "5"]
    metrics = run(capsys, prepared, "retrain", *flags)
    rows = list(csv.DictReader((Path(metrics["run"]) / "history.csv").open()))
    assert [float(row["score"]) for row in rows] == [sign * float(row[column]) for row in rows]


def test_the_optimiser_is_the_one_asked_for(prepared, capsys):
    """All start alike, and end apart."""
    names, ends = ("ADAMW", "ADAM", "SGD", "RMSPROP"), []
    for name in names:
        flags = ["--epochs_retrain", "1", "--thx", "0.1", "--thh", "0.1", "--opt", name, "--weight_decay", "0.5"]
        ends.append(vector(load_keyword_model(run(capsys, prepared, "retrain", *flags)["model_file"])[0]))
    assert not any(torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


def test_pretrained_models_are_finished_runs_of_the_same_network_newest_first(tmp_path):
    config = parse_arguments(["--step", "retrain", "--work_dir", str(tmp_path)])
    other = parse_arguments(["--step", "retrain", "--work_dir", str(tmp_path), "--rnn_size", "99"])
    for age, (name, options) in enumerate(
        [("pretrain-b", config), ("pretrain-a", config), ("pretrain-c", other), ("retrain-d", config)]
    ):
        folder = config.folder("save") / name
        options.save(folder / "config.json")
        for file in ("model.safetensors", "metrics.json"):
            (folder / file).write_text("{}")
        os.utime(folder / "model.safetensors", (1e9 - age, 1e9 - age))
    unfinished = config.folder("save") / "pretrain-e"
    config.save(unfinished / "config.json")
    (unfinished / "model.safetensors").write_text("")
    assert [path.parent.name for path in pretrained_models(config)] == ["pretrain-b", "pretrain-a"]


def test_best_csv_has_the_best_row(tmp_path):
    files = Run("pretrain", "", tmp_path / "log", tmp_path / "save", tmp_path / "model.safetensors")
    files.write_history([{"epoch": 1, "score": 3}, {"epoch": 2, "score": 5}, {"epoch": 3, "score": 4}], 1)
    assert (tmp_path / "log" / "best.csv").read_text() == "epoch,score\n2,5\n"
    assert len((tmp_path / "log" / "history.csv").read_text().splitlines()) == 4


def test_thresholds_that_do_nothing_are_an_error(prepared, capsys):
    arguments = ["retrain", *QUICK, "--work_dir", str(prepared), "--epochs_retrain", "1", "--thx", "1e-12"]
    assert main(arguments) == 1
    assert "--thx 1e-12" in capsys.readouterr().err


def test_activity_cost_lowers_activity(prepared, capsys):
    free = run(capsys, prepared, "retrain", "--epochs_retrain", "3", "--thx", "0.1", "--thh", "0.1")
    held = run(capsys, prepared, "retrain", "--epochs_retrain", "3", "--thx", "0.1", "--thh", "0.1", "--beta", "1")
    assert held["sparsity_h"] > free["sparsity_h"] + 0.02


def test_all_pretrained_networks_teach(prepared, tmp_path, capsys):
    """The mean of their posteriors: as when each is named."""
    work = tmp_path / "work"
    shutil.copytree(prepared, work)
    run(capsys, work, "pretrain", "--epochs_pretrain", "1", "--seed", "1")
    paths = sorted(map(str, work.glob("save/gscdv2/pretrain-*/model.safetensors")))
    assert len(paths) == 2
    start = ["--path_net_pretrain", paths[0], "--epochs_retrain", "1", "--thx", "0.1", "--thh", "0.1"]
    weights = []
    for teacher in (",".join(paths), "all", paths[0]):
        metrics = run(capsys, work, "retrain", *start, "--teacher", teacher)
        weights.append(load_keyword_model(metrics["model_file"])[0].rnn.weight_hh_l0)
    named, meant, alone = weights
    assert torch.equal(meant, named)
    assert not torch.equal(alone, named)
    assert main(["retrain", *QUICK, "--work_dir", str(work), *start, "--teacher", f"{paths[0]},gone.safetensors"]) == 1
    assert "--teacher gone.safetensors: no such file" in capsys.readouterr().err


def test_the_options_on_record_can_be_used_again(prepared, tmp_path, capsys):
    """The words are the data's, not the flag's default: --config reads the record, and a sweep retrains by it."""
    work = tmp_path / "work"
    shutil.copytree(prepared, work)
    flags = [flag for flag in QUICK if flag not in ("--keywords", "yes,no")]
    assert main(["pretrain", *flags, "--work_dir", str(work), "--epochs_pretrain", "1", "--seed", "7"]) == 0
    metrics = Path(capsys.readouterr().out.strip().splitlines()[-1])
    record = metrics.with_name("config.json")
    assert json.loads(record.read_text())["keywords"] == ["yes", "no"]
    model = str(metrics.with_name("model.safetensors"))
    grid = ["--thx", "0.1", "--thh", "0.1", "--epochs_retrain", "1", "--workers", "0"]
    assert main(["sweep", model, *grid]) == 0
    assert main(["retrain", "--config", str(record), "--epochs_retrain", "1", "--thx", "0.1", "--thh", "0.1"]) == 0


def test_scores_and_signals_as_asked(prepared, capsys):
    flags = ["--thx", "0.1", "--thh", "0.1", "--qa", "1", "--bw_acc", "12", "--debug", "1", "--score_test", "0"]
    assert main(["retrain", *QUICK, "--work_dir", str(prepared), "--epochs_retrain", "1", *flags]) == 0
    out = capsys.readouterr().out
    assert "MAY OVERFLOW in accumulators of --bw_acc 12" in out
    path = Path(out.strip().splitlines()[-1])
    metrics = json.loads(path.read_text())
    assert "test_accuracy" not in metrics
    assert set(metrics["test"]) == {"loss"}
    signals = np.load(path.with_name("signals.npz"))
    assert signals["fired_x_l0"].shape == signals["features"].shape
    assert signals["fired_h_l1"].shape == (*signals["features"].shape[:2], 12)
    assert signals["scores"].shape[2] == 4


def test_accumulator_bits_hold_the_worst_case():
    """|M| ≤ 1.5·4 + 0.25 at inputs in [−4, 4): 6.25·2⁵·2⁷ = 25600 takes 15 bits and a sign."""
    formats = Quantization(QFormat(3, 5), QFormat(1, 7), QFormat(2, 6))
    model = KeywordModel(Architecture(1, 3, hidden_size=1)).to_delta(quantization=formats)
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.zero_()
        model.rnn.weight_ih_l0[1] = -0.75
        model.rnn.weight_hh_l0[1] = 0.75
        model.rnn.bias_ih_l0[1] = 0.25
    assert accumulator_bits(model) == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "inf"], "--lr inf: must be a number"),
        (["--model_path", "."], "--model_path .: a folder"),
        (["--loss", "ctc", "--teacher", "start"], "--teacher has no part in --loss ctc"),
    ],
)
def test_refuses_before_or_at_once(prepared, capsys, flags, message):
    assert main(["retrain", *QUICK, "--work_dir", str(prepared), "--epochs_retrain", "1", "--thx", "0.1", *flags]) == 1
    assert message in capsys.readouterr().err


def test_rounding_and_pruning_are_in_force(prepared, capsys):
    flags = ["--qw", "1", "--wqi", "2", "--wqf", "6", "--cbtd", "1", "--gamma_rnn", "0.5", "--gamma_fc", "0"]
    metrics = run(
        capsys, prepared, "retrain", "--epochs_retrain", "1", "--thx", "0.1", "--thh", "0.1", *flags,
        "--num_array_pe", "2",
    )  # fmt: skip
    model, _ = load_keyword_model(metrics["model_file"])
    for name, parameter in model.rnn.named_parameters():
        grid = parameter.detach() * 64
        assert torch.equal(grid, grid.round()), name
    # Sub-columns of 18 rows lose 9 of them.
    assert (model.rnn.weight_hh_l0 == 0).float().mean(0).min() >= 0.5


def test_quantised_training_evaluates_in_fixed_point(prepared, capsys):
    metrics = run(
        capsys, prepared, "retrain", "--epochs_retrain", "1", "--thx", "0.1", "--thh", "0.1", "--qa", "1", "--qw", "1",
        "--qc", "1", "--qcw", "1",
    )  # fmt: skip
    model, header = load_keyword_model(metrics["model_file"])
    assert header["quantization"]["activation"] == [3, 5]
    assert header["thx"] == [0.09375, 0.09375]
    scores, _ = model(torch.randn(5, 2, 16))
    assert torch.equal(scores * 32, (scores * 32).round())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_evaluate_needs_the_gpu_that_it_is_told_to_take(prepared, capsys):
    (path,) = prepared.glob("save/gscdv2/pretrain-*/model.safetensors")
    assert main(["evaluate", str(path), "--use_cuda", "1"]) == 1
    assert "there is no GPU here" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--stream", "--use_cuda", "1"]) == 1
    assert "a stream runs on the CPU" in capsys.readouterr().err


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_evaluate_gives_the_same_on_a_gpu(prepared, capsys):
    metrics = run(capsys, prepared, "retrain", "--epochs_retrain", "1", "--thx", "0.2", "--thh", "0.1", "--seed", "7")
    tables = []
    for flag in ("0", "1"):
        assert main(["evaluate", str(metrics["model_file"]), "--use_cuda", flag]) == 0
        tables.append([line for line in capsys.readouterr().out.splitlines() if line.startswith(("float", "fixed "))])
    assert tables[0] == tables[1]


def test_recurrent_layers_drop_out_in_pretrain_alone(prepared, capsys, monkeypatch):
    dropouts = []

    class Noting(KeywordModel):
        def __init__(self, architecture: Architecture, rnn_dropout: float, fc_dropout: float) -> None:
            dropouts.append(rnn_dropout)
            super().__init__(architecture, rnn_dropout, fc_dropout)

    monkeypatch.setattr("deltarnn.kws.commands.train.KeywordModel", Noting)
    network = ["--rnn_layers", "2", "--rnn_dropout", "0.3"]
    run(capsys, prepared, "pretrain", *network, "--epochs_pretrain", "1")
    run(capsys, prepared, "retrain", *network, "--epochs_retrain", "1", "--thh", "0.1")
    assert dropouts == [0.3, 0.0]


def test_nan_stops_at_once(prepared, capsys):
    wild = ["--lr", "1e30", "--seed", "3", "--lr_schedule", "0", "--grad_clip_val", "0"]
    assert main(["pretrain", *QUICK, "--work_dir", str(prepared), "--epochs_pretrain", "2", *wild]) == 1
    assert "of epoch 1: lower --lr (now 1e+30)" in capsys.readouterr().err


def test_retrain_names_what_is_missing(prepared, capsys):
    assert main(["retrain", *DATA, "--work_dir", str(prepared), "--rnn_size", "99"]) == 1
    assert "--rnn_size 99" in capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_same_result(prepared, tmp_path):
    thresholds = ["--thx", "0.1", "--thh", "0.1", "--threshold_warmup", "0.5", "--fc_dropout", "0.2"]
    changes = ["--aug_shift", "0.05", "--aug_versions", "2", "--aug_time_mask", "5", "--carry_state", "0.5"]
    check_it_goes_on(tmp_path, prepared, ["retrain", *QUICK, *thresholds, *changes, "--epochs_retrain", "5"])


class FewClips(VersionedClips):
    """Eight fixed clips, which note the order they are asked for."""

    def __init__(self) -> None:
        self.features = torch.randn(6, 8, 3, generator=torch.Generator().manual_seed(1))
        super().__init__(self.features.transpose(0, 1)[None], torch.arange(8) % 2)
        self.order: list[int] = []

    def batch(self, clips: torch.Tensor, generator: torch.Generator) -> Batch:
        self.order += clips.tolist()
        return super().batch(clips, generator)


class SmallRun:
    """A Trainer of a tiny delta network, four clips to a step and two steps to an epoch, and a record of what it did.

    steps: at each forward pass in training the thresholds and the carried state. weights: all parameters as one vector,
    before the first step and after each. validated: those of the model that each epoch evaluates.
    """

    def __init__(self, folder: Path, scores=(), finisher=None, optimizer=torch.optim.SGD, rate=None, **plan):
        torch.manual_seed(0)
        self.model = KeywordModel(Architecture(3, 2, hidden_size=4)).to_delta()
        fabric = Fabric(accelerator="cpu", devices=1)
        fabric.launch()
        self.clips, self.scores, self.steps, self.validated = FewClips(), list(scores), [], []
        rate = rate or (lambda steps: LearningRate(0.1, 0.1, steps, None))
        plan = {"epochs": 2, "batch_size": 4, "loss": LossOptions(), **plan}
        plan = Plan(optimizer=lambda parameters: optimizer(parameters, lr=0.1), rate=rate, **plan)
        path, finisher = folder / "checkpoint.safetensors", finisher or Finisher()
        self.trainer = Trainer(
            fabric, self.model, self.clips, plan, self.validate, finisher, path, "", lambda progress, model: None
        )
        self.weights = [vector(self.model)]
        self.model.register_forward_pre_hook(
            lambda model, given: self.steps.append((model.delta.thx, model.delta.thh, given[1]))
        )
        self.trainer.optimizer.optimizer.register_step_post_hook(lambda *_: self.weights.append(vector(self.model)))

    def validate(self, model: KeywordModel) -> dict[str, float]:
        self.validated.append((model.delta.thx, model.delta.thh, vector(model)))
        score = self.scores[len(self.validated) - 1] if self.scores else 0.0
        if isinstance(score, Exception):
            raise score
        return {"score": score, "validation_loss": 1 - score}


def vector(model: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def test_thresholds_warm_up_in_training_and_are_whole_in_validation(tmp_path):
    run = SmallRun(tmp_path, thx=(0.4,), thh=(0.2,), threshold_warmup=0.5)
    run.trainer.fit()
    assert [(thx[0], thh[0]) for thx, thh, _ in run.steps] == [(0.0, 0.0), (0.2, 0.1), (0.4, 0.2), (0.4, 0.2)]
    assert [(thx[0], thh[0]) for thx, thh, _ in run.validated] == [(0.4, 0.2)] * 2


def test_steps_are_as_long_as_rate_and_limit_say(tmp_path):
    """Plain descent along gradients that are all cut to one length."""
    run = SmallRun(tmp_path, gradient_limit=1e-3, rate=lambda steps: LearningRate(1.0, 0.1, steps, "cosine"))
    run.trainer.fit()
    lengths = [float((after - before).norm()) for before, after in pairwise(run.weights)]
    assert lengths == pytest.approx([1e-3 * run.trainer.rate.at(step) for step in range(4)], rel=1e-3)
    assert len(set(lengths)) > 1


def test_every_epoch_takes_all_clips_in_an_order_of_its_own(tmp_path):
    run = SmallRun(tmp_path)
    run.trainer.fit()
    first, second = run.clips.order[:8], run.clips.order[8:]
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second


def test_the_average_is_what_is_validated(tmp_path):
    run = SmallRun(tmp_path, average=0.5)
    run.trainer.fit()
    expected, after_step = run.weights[0], []
    for update, weights in enumerate(run.weights[1:], 1):
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * weights
        after_step.append(expected)
    for (_, _, validated), average in zip(run.validated, after_step[1::2], strict=True):
        assert torch.allclose(validated, average, atol=1e-6)


def test_the_best_epoch_has_the_highest_score(tmp_path):
    run = SmallRun(tmp_path, epochs=3, scores=[0.3, 0.8, 0.5])
    assert run.trainer.fit().best_epoch == 1
    assert torch.equal(vector(run.trainer.best()), run.validated[1][2])


def test_the_last_epoch_is_kept_where_scores_tell_little(tmp_path):
    run = SmallRun(tmp_path, epochs=3, scores=[0.3, 0.8, 0.5], keep_last=True)
    assert run.trainer.fit().best_epoch == 2
    assert torch.equal(vector(run.trainer.best()), run.validated[2][2])


def test_an_epoch_before_pruning_is_complete_is_never_the_best(tmp_path):
    pruning = Finisher(pruning=PruningPlan(gamma_rnn=0.5, gamma_fc=0.0, num_pe=2, anneal_epochs=3))
    assert SmallRun(tmp_path, epochs=4, scores=[0.9, 0.8, 0.5, 0.6], finisher=pruning).trainer.fit().best_epoch == 3


def test_an_epoch_before_thresholds_are_in_full_force_is_never_the_best(tmp_path):
    scores = [0.9, 0.8, 0.5, 0.6]
    late = SmallRun(tmp_path / "late", epochs=4, scores=scores, thh=(0.1,), threshold_warmup=0.5)
    assert late.trainer.fit().best_epoch == 3
    never = SmallRun(tmp_path / "never", epochs=4, scores=scores, thh=(0.1,), threshold_warmup=1.0)
    assert never.trainer.fit().best_epoch == 0


def test_the_plateau_is_one_of_the_validation_loss(tmp_path):
    """It rises from epoch to epoch, while the training loss falls."""
    rate = lambda steps: LearningRate(0.1, 0.0, steps, "plateau", factor=0.5, patience=0)  # noqa: E731
    run = SmallRun(tmp_path, epochs=4, scores=[0.9, 0.8, 0.7, 0.6], rate=rate)
    history = run.trainer.fit().history
    assert [row["lr"] for row in history] == pytest.approx([0.1, 0.1, 0.05, 0.025])
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_loss_is_the_sum_of_its_parts(tmp_path):
    """Of one step over all clips: class weights, a teacher, and β times Σ|Δh| for each frame and clip."""
    teacher = KeywordModel(Architecture(3, 2, hidden_size=5))
    weights, options = torch.tensor([0.2, 1.0]), LossOptions(teacher_weight=0.4)
    plan = {"epochs": 1, "batch_size": 8, "loss": options, "class_weights": weights, "beta": 2.0, "thh": (0.05,)}
    run = SmallRun(tmp_path, **plan)
    model, clips = copy.deepcopy(run.trainer.evaluated), run.clips
    clips.taught = clip_scores(teacher(clips.features)[0]).detach()[None]
    model.set_thresholds((0.0,), (0.05,))
    with torch.no_grad(), record_activity(model) as activity:
        scores, _ = model(clips.features)
    loss = loss_of(scores, clips.labels, options, weights, clips.taught[0])
    cost = float(activity.l1_delta_h) / (6 * 8)
    assert loss > 1.01 * (1 - options.teacher_weight) * loss_of(scores, clips.labels, LossOptions(), weights)
    (row,) = run.trainer.fit().history
    assert row["l1_delta_h"] == pytest.approx(cost, rel=1e-4)
    assert row["train_loss"] == pytest.approx(float(loss) + 2.0 * cost, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_carried_states_are_what_the_step_before_left(tmp_path, share):
    """Within an epoch alone: a run that goes on from a checkpoint has no clips before."""
    run, left = SmallRun(tmp_path, carry_state=share), []
    run.model.register_forward_hook(lambda model, given, result: left.append(result[1][0].detach()))
    run.trainer.fit()
    starts = [carried for *_, carried in run.steps]
    assert starts[0] is None
    assert starts[2] is None
    if share == 0:
        assert starts[1] is None
    else:
        assert all(any(torch.equal(row, kept) for kept in left[0]) for row in starts[1][0])


@pytest.mark.parametrize("cell", ["GRU", "LSTM"])
@pytest.mark.parametrize("delta", [False, True])
def test_sequences_go_on_or_begin_anew(cell, delta):
    """A row's state after the second step is that of a whole pass, or of a pass over the second step alone."""
    torch.manual_seed(0)
    model = KeywordModel(Architecture(3, 2, cell=cell, hidden_size=4, num_layers=2))
    model = model.to_delta((0.1,), (0.1,)) if delta else model
    carried, chunks = CarriedStates(model, share=0.0, fresh=0.4), torch.randn(2, 9, 40, 3)
    for step, chunk in enumerate(chunks):
        batch = Batch(chunk, torch.zeros(9, 40, dtype=torch.long), goes_on=step > 0)
        scores, carried.left = model(chunk, carried.states(batch, torch.Generator().manual_seed(1)))
    whole, alone = (model(part)[0][-9:] for part in (chunks.flatten(0, 1), chunks[1]))
    goes_on = [torch.allclose(scores[:, row], whole[:, row], atol=1e-5) for row in range(40)]
    anew = [torch.allclose(scores[:, row], alone[:, row], atol=1e-5) for row in range(40)]
    assert all(one != other for one, other in zip(goes_on, anew, strict=True))
    assert 8 <= sum(anew) <= 24


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path, optimizer):
    """The optimiser's moments, the average, the schedule and the best epoch so far all come from the checkpoint."""
    rate = lambda steps: LearningRate(0.1, 0.0, steps, "plateau", factor=0.5, patience=1)  # noqa: E731
    options = {"epochs": 4, "rate": rate, "optimizer": optimizer, "average": 0.9}
    scores = [0.9, 0.8, 0.7, 0.6]
    whole = SmallRun(tmp_path / "whole", scores, **options)
    expected = whole.trainer.fit()
    with pytest.raises(InterruptedError):
        SmallRun(tmp_path / "part", [*scores[:2], InterruptedError()], **options).trainer.fit()
    rest = SmallRun(tmp_path / "part", scores[2:], **options)
    actual = rest.trainer.fit()
    assert (actual.resumed_from, actual.best_epoch, actual.best_score) == (2, 0, 0.9)
    for row, other in zip(actual.history, expected.history, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}
    assert torch.equal(rest.validated[-1][2], whole.validated[-1][2])
    assert torch.equal(vector(rest.trainer.best()), vector(whole.trainer.best()))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint(
        3, {"model": {"w": torch.ones(2)}}, {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}
    ).save(path, "a")
    assert Checkpoint.load(path, "a").optimizer["state"][0]["step"] == 3
    with pytest.raises(CheckpointError, match="other settings"):
        Checkpoint.load(path, "b")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint.load(path, "a")


@pytest.mark.parametrize(
    ("step", "flags", "same"),
    [
        ("pretrain", ["--eval_test", "0"], True),
        ("pretrain", ["--thx", "0.1"], True),  # of retrain alone
        ("pretrain", ["--epochs_retrain", "3"], True),
        ("pretrain", ["--lr", "0.002"], False),
        ("pretrain", ["--seed", "1"], False),
        ("pretrain", ["--aug_shift", "0.1"], False),
        ("retrain", ["--epochs_pretrain", "3"], True),
        ("retrain", ["--epochs_retrain", "3"], False),
        ("retrain", ["--thx", "0.1"], False),
        ("retrain", ["--thh", "0.1"], False),
    ],
)
def test_a_run_is_named_by_what_changes_its_result(step, flags, same):
    names = [Run.of(parse_arguments(["--step", step, *f]), step, {}).log for f in ([], flags)]
    assert (names[0] == names[1]) is same
