"""Runs: what names them, what they leave, which of them are found."""

import os

import pytest

from deltarnn.kws.config.command_line import parse_arguments
from deltarnn.kws.training.runs import Run, pretrained_models


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
        os.utime(folder / "config.json", (1e9 - age, 1e9 - age))
        os.utime(folder / "model.safetensors", (2e9 + age, 2e9 + age))  # a threshold for streams came later
    unfinished = config.folder("save") / "pretrain-e"
    config.save(unfinished / "config.json")
    (unfinished / "model.safetensors").write_text("")
    assert [path.parent.name for path in pretrained_models(config)] == ["pretrain-b", "pretrain-a"]


def test_a_network_of_other_features_is_no_start(tmp_path):
    """They are as many, and under the same --cfg_feat."""
    flags = ["--step", "retrain", "--work_dir", str(tmp_path)]
    pretrained = parse_arguments([*flags, "--floor", "60"])
    folder = pretrained.folder("save") / "pretrain-a"
    pretrained.save(folder / "config.json")
    for file in ("model.safetensors", "metrics.json"):
        (folder / file).write_text("{}")
    assert pretrained_models(pretrained) == [folder / "model.safetensors"]
    with pytest.raises(ValueError, match=r"has this network and its features .*: type deltarnn pretrain"):
        pretrained_models(parse_arguments(flags))


def test_best_csv_has_the_best_row(tmp_path):
    files = Run("pretrain", "", tmp_path / "log", tmp_path / "save", tmp_path / "model.safetensors")
    files.write_history([{"epoch": 1, "score": 3}, {"epoch": 2, "score": 5}, {"epoch": 3, "score": 4}], 1)
    assert (tmp_path / "log" / "best.csv").read_text() == "epoch,score\n2,5\n"
    assert len((tmp_path / "log" / "history.csv").read_text().splitlines()) == 4


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
