"""The training steps, sweep and evaluate on a tiny corpus, as typed, and a run that is killed and goes on."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.kws.killed import check_it_goes_on

from deltarnn.cli import main
from deltarnn.kws.commands.evaluate import load_groups, precisions
from deltarnn.kws.evaluation.scoring import evaluate, evaluate_carried
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.losses import LossOptions
from deltarnn.kws.network.model import Architecture, KeywordModel, load_keyword_model

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

    monkeypatch.setattr("deltarnn.kws.commands.processes.subprocess.run", apart)
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
        model, _ = load_keyword_model(run(capsys, prepared, "retrain", *flags)["model_file"])
        ends.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert not any(torch.equal(a, b) for i, a in enumerate(ends) for b in ends[:i])


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
    told = capsys.readouterr().err
    assert "--rnn_size 99" in told
    assert re.search(r"type deltarnn pretrain --dataset gscdv2 .*--rnn_size 99 .*first", told)


def test_a_killed_run_goes_on_to_the_same_result(prepared, tmp_path):
    thresholds = ["--thx", "0.1", "--thh", "0.1", "--threshold_warmup", "0.5", "--fc_dropout", "0.2"]
    changes = ["--aug_shift", "0.05", "--aug_versions", "2", "--aug_time_mask", "5", "--carry_state", "0.5"]
    check_it_goes_on(tmp_path, prepared, ["retrain", *QUICK, *thresholds, *changes, "--epochs_retrain", "5"])
