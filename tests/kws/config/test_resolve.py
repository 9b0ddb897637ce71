"""Flags: defaults, files, presets, checks, and what is said of flags that do nothing."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deltarnn import cli
from deltarnn.cli import COMMANDS, main
from deltarnn.kws.config import command_line as module
from deltarnn.kws.config.command_line import parse_arguments
from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.config.resolve import Config, resolve

ROOT = Path(__file__).parents[3]

# name → default, as the flags' specification lists them
DEFAULTS = {
    "dataset": "gscdv2", "cfg_feat": "feat_fft", "step": "pretrain", "run_through": False, "path_net_pretrain": "",
    "eval_val": True, "score_val": True, "eval_test": True, "score_test": True, "debug": False, "model_path": "",
    "use_cuda": True, "gpu_device": 0, "save_every_epoch": False, "augment_noise": False, "target_snr": 5.0,
    "qf": False, "logf": "none", "seed": 0, "epochs_pretrain": 50, "epochs_retrain": 50, "batch_size": 64,
    "batch_size_eval": 256, "opt": "ADAMW", "lr_schedule": True, "lr": 1e-3, "lr_end": 3e-4, "decay_factor": 0.8,
    "patience": 4, "beta": 0.0, "loss": "crossentropy", "weight_decay": 0.01, "grad_clip_val": 200.0,
    "model_pretrain": "cla-rnn", "model_retrain": "cla-deltarnn", "rnn_type": "GRU", "rnn_layers": 1, "rnn_size": 64,
    "rnn_dropout": 0.0, "fc_extra_size": 0, "fc_dropout": 0.0, "use_hardsigmoid": False, "use_hardtanh": False,
    "qa": 0, "aqi": 3, "aqf": 5, "qw": 0, "wqi": 1, "wqf": 7, "qc": 0, "cqi": 3, "cqf": 5, "qcw": 0, "cwqi": 1,
    "cwqf": 7, "nqi": 2, "nqf": 6, "bw_acc": 32, "thx": [0.0], "thh": [0.0], "smooth": True,
    "smooth_window_size": 60, "confidence_window_size": 80, "fire_threshold": 0.0, "cbtd": False, "gamma_rnn": 0.7,
    "gamma_fc": 0.75, "alpha_anneal_epoch": 100, "stim_head": 1000, "stim_len": 1000, "num_array": 1,
    "num_array_pe": 16, "num_array_pe_ext": 8, "act_latency": 8, "act_interval": 4, "op_freq": 2e8,
    "w_sp_ext": 0.9375,
}  # fmt: skip


def parse(line: str) -> Config:
    return parse_arguments(line.split())


def test_every_specified_flag_has_its_default():
    flat = Config().flat()
    assert {name: flat[name] for name in DEFAULTS} == DEFAULTS
    assert flat["keywords"] == ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"]
    assert flat["zero_padding"] in ("head", "tail")
    assert flat["data_dir"] == ("/DATA" if Path("/DATA").is_dir() else "/data")


@pytest.mark.parametrize(
    "line",
    [
        "--dataset gscdv2 --step prepare",
        "--dataset gscdv2 --step feature",
        "--dataset gscdv2 --step pretrain --epochs_pretrain 20 --batch_size 32",
        "--dataset gscdv2 --step retrain --epochs_retrain 10 --thx 0.1 --thh 0.1 --batch_size 64",
    ],
)
def test_the_four_example_lines_do_not_warn(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = parse(line)
    assert config.idle_flags() == []
    assert config.notes == ()
    assert config.features == FeatureConfig()  # the committed feat_fft.json says what the defaults say


def test_committed_feature_files_name_the_specified_front_ends(monkeypatch):
    monkeypatch.chdir(ROOT)
    for dataset in ("gscdv2", "synth"):
        iir = resolve({"dataset": dataset, "cfg_feat": "feat_iir"}).features
        assert (iir.feat_type, iir.freq_high, iir.q_factors, iir.ch_orders, iir.mic_res) == ("iir", 6500.0, 3.0, 2, 12)


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_switches_take_numbers_words_and_nothing(value):
    assert parse_arguments(["--run_through", value]).run.run_through is True
    assert parse_arguments(["--run_through"]).run.run_through is True
    assert parse_arguments(["--run_through", "false"]).run.run_through is False


def test_lists_and_steps():
    config = parse_arguments(["--keywords", "yes,no", "--thx", "0.1,0.2", "--rnn_layers", "2", "--step", "feature"])
    assert config.data.keywords == ("yes", "no")
    assert config.delta.per_layer(2) == ((0.1, 0.2), (0.0, 0.0))
    assert config.steps == ("feature",)
    assert config.replace(run_through=True).steps == ("feature", "pretrain", "retrain")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lr fast", "--lr fast: must be a number"),
        ("--lr nan", "--lr nan: must be at least 0"),
        ("--batch_size 0", "--batch_size 0: must be at least 1"),
        ("--batch_size 1.5", "--batch_size 1.5: must be a whole number"),
        ("--gamma_rnn 1.5", "--gamma_rnn 1.5: must be at most 1"),
        ("--opt adamax", "--opt adamax: must be one of ADAMW, ADAM, SGD, RMSPROP"),
        ("--cbtd maybe", "--cbtd maybe: must be 0, 1, false or true"),
        ("--qa 3", "--qa 3: must be one of 0, 1, 2"),
        ("--cfg_feat feat_x", "--cfg_feat feat_x: no such file; config/gscdv2 has feat_fft, feat_iir"),
        ("--keywords yes,yes", "--keywords yes,yes: needs one or more words, each once"),
        ("--keywords yes,../x", "--keywords ../x: must be a plain word"),
        ("--keywords _silence_,yes", "--keywords _silence_: must be a plain word"),
        ("--thx 0.1,0.2", "--thx 0.1,0.2: needs one value"),
        ("--lr 1e-4", "--lr_end 0.0003: must not exceed --lr 0.0001"),
        ("--logf lut", "--logf lut: logfbank features are logarithmic already"),
        ("--use_hardtanh 1", "give both, or neither"),
        ("--dataset ../x", "--dataset ../x: must be a plain name"),
        ("--config none.yaml", "none.yaml: cannot be read"),
    ],
)
def test_value_errors_name_the_flag_and_what_it_takes(line, message, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=message):
        parse(line)
    assert main(line.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--step pretrain --thx 0.1", "--thx does nothing in --step pretrain: it acts in retrain"),
        (
            "--step retrain --thx 0.1 --keep_last 1 --early_stop 3",
            "--early_stop does nothing without --stream_minutes 0 and --keep_last 0",
        ),
        ("--step retrain --aqi 4", "--aqi does nothing without --qa 1 or 2"),
        ("--step pretrain --gamma_fc 0.5", "--gamma_fc does nothing without --cbtd 1"),
        ("--step pretrain --smooth 0 --fire_threshold 0.5", "--fire_threshold does nothing without --smooth 1"),
        ("--step prepare --target_snr 3", "--target_snr does nothing without --augment_noise 1"),
        ("--step feature --mic_res 8", "--mic_res does nothing without --feat_type iir --sim_mic 1"),
        ("--step retrain --stim_len 5", "--stim_len does nothing in --step retrain: it acts in `deltarnn export`"),
        ("--dataset synth --step prepare --download", "--download does nothing without --dataset gscdv2"),
    ],
)
def test_flags_that_do_nothing_are_named(line, sentence):
    assert parse(line).idle_flags() == [sentence]


def test_flags_that_act_are_not():
    """Versions of the clips are made in training: by --workers, that too."""
    assert parse("--step pretrain --aug_noise 0.5 --workers 3").idle_flags() == []
    assert parse("--step prepare --run_through 1 --thx 0.1 --epochs_pretrain 3").idle_flags() == []


def test_file_preset_and_command_line_override_in_that_order(tmp_path, monkeypatch):
    monkeypatch.setitem(module.PRESETS, "large", {"rnn_size": 128, "rnn_layers": 2, "lr": 0.002})
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"rnn_layers": 3, "lr": 0.003}))
    config = resolve({"lr": "0.004"}, "large", str(file))
    assert (config.model.rnn_size, config.model.rnn_layers, config.training.lr) == (128, 3, 0.004)
    assert config.given == {"rnn_layers", "lr"}
    file.write_text(json.dumps({"learning_rate": 1}))
    with pytest.raises(ValueError, match="'learning_rate' is no flag"):
        resolve({}, "none", str(file))
    file.write_text("[1, 2")
    with pytest.raises(ValueError, match="neither YAML nor JSON"):
        resolve({}, "none", str(file))


def test_saved_configuration_resolves_to_the_same_options(tmp_path):
    config = parse("--step retrain --thx 0.1 --qa 2 --keywords yes,no --n_filt 20")
    config.save(tmp_path / "config.json")
    again = resolve({}, "none", str(tmp_path / "config.json"))
    assert again.flat() == config.flat()


def test_feature_files_are_checked(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"n_filt": 20, "channel_scale": 2, "remove_offset": 1}))
    config = resolve({"cfg_feat": str(file)})
    assert config.features.n_filt == 20
    assert resolve({"cfg_feat": str(file), "n_filt": "24"}).features.n_filt == 24
    assert [note.split(": ")[1] for note in config.notes] == [
        "channel_scale does nothing",
        "remove_offset does nothing",
    ]
    file.write_text(json.dumps({"n_filter": 20}))
    with pytest.raises(ValueError, match="unknown key 'n_filter'"):
        resolve({"cfg_feat": str(file)})


def test_feature_name_tells_changed_options_apart():
    plain = parse_arguments([])
    assert plain.feature_name == "feat_fft"
    changed = plain.replace(n_filt=20)
    assert changed.feature_name.startswith("feat_fft-")
    assert changed.feature_name != plain.replace(n_filt=21).feature_name
    assert changed.replace(n_filt=16).feature_name == "feat_fft"


def test_quantisation_becomes_formats():
    assert parse_arguments([]).quantization.layer is None
    formats = parse("--qa 2 --aqi 8 --aqf 8 --nqf 4").quantization.layer
    assert (str(formats.activation), str(formats.weight), str(formats.gate)) == ("Q8.8", "Q1.7", "Q2.4")
    assert formats.rounding == "floor"


def test_both_entries_share_one_parser(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = ["--dataset", "gscdv2", "--data_dir", str(tmp_path / "nothing")]
    assert main(["prepare", *line]) == main(["--step", "prepare", *line]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == second
    assert f"no folder {tmp_path / 'nothing'}" in first
    assert "--download" in first
    assert main(["prepare", "--step", "prepare"]) == 1
    assert "leave --step out" in capsys.readouterr().err
    assert main(["foretell"]) == 1
    assert "'foretell' is no command; there are prepare, feature" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["--step", "prepare"], ["sweep"], ["listen"], ["tune"]])
def test_keyboard_interrupt_is_one_line(command, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run_command", interrupted)
    monkeypatch.setattr(cli, "_run_steps", interrupted)
    assert main(command) == 130
    remedy = "" if command[0] in ("listen", "tune") else "; the same command goes on where it stopped"
    assert capsys.readouterr().err == f"interrupted{remedy}\n"


@pytest.mark.parametrize(("module_name", "shown"), [("deltarnn.kws.training.trainer", True), ("elsewhere", False)])
def test_own_errors_are_one_line_and_defects_keep_their_traceback(module_name, shown, monkeypatch, capsys):
    kind = type("SomeError", (RuntimeError,), {"__module__": module_name})

    def failing(arguments):
        raise kind("no more epochs")

    monkeypatch.setattr(module, "parse_arguments", failing)
    if shown:
        assert main(["--step", "prepare"]) == 1
        assert capsys.readouterr().err == "error: no more epochs\n"
    else:
        with pytest.raises(kind):
            main(["--step", "prepare"])


def test_help_teaches_without_importing_torch():
    code = "import sys, deltarnn.cli as c\ntry: c.main(['--dataset', 'gscdv2', '-h'])\n"
    code += "finally: assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in (*DEFAULTS, "keywords", "preset", "config", "download"):
        assert f"--{name} " in shown or f"--{name}\n" in shown
    assert "deltarnn retrain  --dataset gscdv2 --epochs_retrain 10 --thx 0.1 --thh 0.1" in shown


@pytest.mark.parametrize("step", ["prepare", "feature", "pretrain", "retrain"])
def test_help_of_a_step_says_what_it_does_and_has_no_empty_section(step, capsys):
    with pytest.raises(SystemExit):
        main([step, "--help"])
    shown = capsys.readouterr().out
    assert shown.splitlines()[2].rstrip(".").lower() == COMMANDS[step][1].lower()
    sections = re.split(r"\n(?=[a-z]+:\n)", shown)
    assert all(section.startswith("usage") or "  --" in section for section in sections)
    assert ("pruning:" in shown) == (step in ("pretrain", "retrain"))
