"""What goes wrong around the commands: moved and read-only folders, damaged files, odd consoles, early ends."""

import ast
import copy
import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deltarnn.adapt.checkpoint import Checkpoint
from deltarnn.cli import main
from deltarnn.engine.model_file import ModelFileError, load_model, save_model
from deltarnn.files import WriteError
from deltarnn.kws.commands.predict import Predictor
from deltarnn.kws.features.pipeline import FeaturePipeline
from deltarnn.kws.features.store import load_features, save_features
from deltarnn.kws.network.model import load_keyword_model
from deltarnn.kws.spotter.calibration import Calibration, store
from deltarnn.kws.spotter.rule import StreamRule
from deltarnn.kws.training.teachers import file_digest
from deltarnn.stored import load_stored, save_stored

SOURCE = Path(__file__).parents[3] / "src" / "deltarnn"
DATA = ["--keywords", "yes,no", "--workers", "1"]
TRAIN = ["--rnn_size", "6", "--batch_size", "16", "--lr", "0.01", "--threads", "1", "--epochs_pretrain", "1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_corpus_of) -> Path:
    """A work_dir with one pretrained network."""
    folder = tmp_path_factory.mktemp("faults")
    corpus, work = tiny_corpus_of(folder / "corpus"), folder / "work"
    assert main(["prepare", *DATA, "--work_dir", str(work), "--data_dir", str(corpus)]) == 0
    assert main(["feature", *DATA, "--work_dir", str(work)]) == 0
    assert main(["pretrain", *DATA, *TRAIN, "--work_dir", str(work)]) == 0
    return work


@pytest.fixture
def work(finished, tmp_path) -> Path:
    """A copy of it at another place."""
    return Path(shutil.copytree(finished, tmp_path / "moved", symlinks=True))


def model_of(work: Path) -> Path:
    return work / "save" / "gscdv2" / "latest" / "model.safetensors"


def test_latest_leads_to_the_run_that_finished_last(work):
    link = work / "save" / "gscdv2" / "latest"
    first = str(link.readlink())
    assert first.startswith("pretrain-gru6x1-")
    assert main(["pretrain", *DATA, *TRAIN, "--work_dir", str(work), "--seed", "1"]) == 0
    assert str(link.readlink()) not in (first, "latest")
    assert model_of(work).is_file()


def test_a_folder_beside_a_named_model_is_told_to_do_nothing(work, capsys):
    assert main(["evaluate", str(model_of(work)), "--work_dir", str(work)]) == 0
    assert "--work_dir does nothing beside a model that is named: " in capsys.readouterr().err


def test_a_moved_model_finds_its_features_and_history(work, finished, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    hidden = finished.with_name("gone")
    finished.rename(hidden)
    try:
        assert main(["evaluate", "--work_dir", str(work)]) == 0
        assert main(["sweep", str(model_of(work)), "--thx", "0.1", "--thh", "0.1", "--workers", "0"]) == 0
    finally:
        hidden.rename(finished)
    header = load_model(model_of(work))[1]
    assert header["training"]["feature_folder"] == "feat/gscdv2/feat_fft"
    assert header["clip_seconds"] == 1.0


def test_out_names_another_folder_and_a_folder_of_no_use_is_found_at_once(work, tmp_path, capsys, monkeypatch):
    model = model_of(work).resolve()
    before = {path.name: path.stat().st_mtime_ns for path in model.parent.iterdir()}
    assert main(["evaluate", str(model), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.html", "metrics.json"}
    assert {path.name: path.stat().st_mtime_ns for path in model.parent.iterdir()} == before
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert record["step"] == "pretrain"  # the model's own record is added to
    capsys.readouterr()
    for command in ("evaluate", "sweep"):
        (tmp_path / "file").touch()
        assert main([command, str(model), "--out", str(tmp_path / "file" / "out")]) == 1
        told = capsys.readouterr()
        assert "file/out: no file can be written there: Not a directory" in told.err
        assert "accuracy" not in told.out

    def read_only(folder: Path) -> None:
        raise WriteError(f"{folder}: no file can be written there: Read-only file system")

    monkeypatch.setattr("deltarnn.kws.commands.choice.check_writable", read_only)
    assert main(["evaluate", str(model)]) == 1
    assert "Read-only file system; name another folder with --out" in capsys.readouterr().err


def test_a_place_of_no_use_is_found_before_the_work(work, finished, capsys):
    """Of the model, of the checkpoint, of a run that goes on, of the models of every epoch, of data and features."""
    flags, model = [*DATA, *TRAIN, "--seed", "1", "--work_dir", str(work)], work / "m" / "model.safetensors"
    (work / "file").touch()

    def told(*command: str) -> str:
        assert main([*command]) == 1
        output = capsys.readouterr()
        assert "epoch" not in output.out
        return output.err.splitlines()[-1]

    assert "file: no file can be written there: Not a directory; name another file with --model_path" in told(
        "pretrain", *flags, "--model_path", str(work / "file" / "model.safetensors")
    )
    (work / "m" / "metrics.json").mkdir(parents=True)
    assert "metrics.json: cannot be written: a folder is in its place; name another" in told(
        "pretrain", *flags, "--model_path", str(model)
    )
    assert main(["pretrain", *flags]) == 0
    capsys.readouterr()
    run = next(p.parent for p in work.glob("log/gscdv2/*/config.json") if json.loads(p.read_text())["seed"] == 1)
    (run / "checkpoint.safetensors").unlink()
    (run / "checkpoint.safetensors").mkdir()
    assert "checkpoint.safetensors: cannot be written: a folder is in its place; make room there" in told(
        "pretrain", *flags
    )
    (work / "save" / "gscdv2" / run.name / "epochs").touch()
    (run / "checkpoint.safetensors").rmdir()
    assert "epochs: no file can be written there: Not a directory; make room" in told(
        "pretrain", *flags, "--save_every_epoch", "1"
    )
    features = work / "feat/gscdv2/feat_fft/test.safetensors"
    features.unlink()
    features.mkdir()
    assert "test.safetensors: cannot be written: a folder is in its place" in told(
        "feature", *DATA, "--work_dir", str(work)
    )
    shutil.rmtree(work / "data")
    (work / "data").touch()
    assert "no file can be written there" in told(
        "prepare", *DATA, "--work_dir", str(work), "--data_dir", str(finished.parent / "corpus")
    )


def test_a_run_that_goes_on_looks_at_its_checkpoints_place_first(work, capsys, monkeypatch):
    command = ["pretrain", *DATA, *TRAIN, "--work_dir", str(work)]

    def read_only(path: Path) -> None:
        raise WriteError(f"{path}: Read-only file system")

    monkeypatch.setattr("deltarnn.kws.training.trainer.check_file", read_only)
    assert main(command) == 0  # nothing is left to train
    (checkpoint,) = work.glob("log/gscdv2/pretrain-*/checkpoint.safetensors")
    saved = Checkpoint.load(checkpoint, identity := load_stored(checkpoint, "training")[1]["identity"])
    saved.epoch, saved.history, saved.best_epoch = 0, [], -1
    saved.save(checkpoint, identity)
    capsys.readouterr()
    assert main(command) == 1
    assert "checkpoint.safetensors: Read-only file system" in capsys.readouterr().err


def test_a_finished_run_is_told_again_without_touching_its_folders(work, capsys):
    """They may be read-only, where the model goes elsewhere."""
    command = ["retrain", *DATA, *TRAIN, "--epochs_retrain", "1", "--thx", "0.1", "--work_dir", str(work)]
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")}
    told = capsys.readouterr().out.splitlines()[-3]
    elsewhere = work.parent / "elsewhere" / "model.safetensors"
    assert main([*command, "--model_path", str(elsewhere)]) == 0
    assert capsys.readouterr().out.splitlines()[-3] == told
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*")} == before
    assert elsewhere.is_file()


def test_a_console_that_is_not_utf8_gets_all_the_same(work):
    code = "import sys; from deltarnn.cli import main; sys.exit(main())"
    environment = {
        **os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
    }  # fmt: skip
    for arguments in (["evaluate", str(model_of(work))], ["pretrain", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    page = (model_of(work).parent / "report.html").read_bytes().decode("utf-8")
    assert "Δx" in page


def test_progress_bars_keep_still_where_the_output_is_no_terminal():
    """Each says so by itself; the output of tests is none."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm":
                assert any(keyword.arg == "disable" for keyword in node.keywords), f"{path}:{node.lineno}"


def test_commands_print_no_bars(finished, tmp_path, tiny_corpus_of, capsys):
    corpus = tiny_corpus_of(tmp_path / "corpus")
    where = ["--work_dir", str(tmp_path / "work")]
    assert main(["prepare", *DATA, *where, "--data_dir", str(corpus)]) == 0
    assert main(["feature", *DATA, *where]) == 0
    assert capsys.readouterr().err == ""


def damaged(content: bytes, places: list[int]) -> bytes:
    flipped = bytearray(content)
    for place in places:
        flipped[place // 8 % len(flipped)] ^= 1 << place % 8
    return bytes(flipped)


PLACES = st.lists(st.integers(0, 2**24), min_size=1, max_size=200, unique=True)
FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(places=PLACES, head=st.booleans())
def test_a_damaged_feature_file_is_one_sentence(finished, tmp_path, places, head):
    whole = (finished / "feat/gscdv2/feat_fft/test.safetensors").read_bytes()
    path = tmp_path / "test.safetensors"
    path.write_bytes(damaged(whole, [place % 8000 for place in places] if head else places))
    with pytest.raises(ValueError, match=r"^.*test\.safetensors: .*make it with --step feature$"):
        load_features(path)


def test_a_damaged_feature_file_is_made_anew(work, capsys):
    path = work / "feat/gscdv2/feat_fft/validation.safetensors"
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, [8 * len(whole) - 77]))
    assert main(["pretrain", *DATA, *TRAIN, "--seed", "2", "--work_dir", str(work)]) == 1
    assert "validation.safetensors: damaged (its checksum differs)" in capsys.readouterr().err
    assert main(["feature", *DATA, "--work_dir", str(work)]) == 0
    assert path.read_bytes() == whole
    path.write_bytes(b"")
    assert main(["pretrain", *DATA, *TRAIN, "--seed", "2", "--work_dir", str(work)]) == 1
    told = capsys.readouterr().err
    assert f"damaged: type deltarnn feature --dataset gscdv2 --keywords yes,no --work_dir {work} --workers 1\n" in told


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("features", np.zeros((9, 61, 17), np.float32)), ("features", np.zeros((8, 61, 16), np.float32)),
        ("features", np.zeros((9, 61, 16), np.float64)), ("features", np.full((9, 61, 16), np.nan, np.float32)),
        ("labels", np.full(9, 4)), ("labels", np.full(9, -1)), ("labels", np.zeros((9, 1), np.int64)),
        ("labels", np.zeros(9, np.float32)), ("lengths", np.zeros(8, np.int64)), ("class_names", "abc"),
        ("class_names", [1, 2, 3, 4]), ("paths", ["a"]), ("paths", 3), ("source", None), ("clip_seconds", -1),
        ("features", None), ("class_names", None),
    ],
)  # fmt: skip
def test_a_feature_file_whose_parts_do_not_belong_together_is_named(finished, tmp_path, part, wrong):
    arrays, record = load_stored(finished / "feat/gscdv2/feat_fft/test.safetensors", "deltarnn.features")
    target = arrays if isinstance(wrong, np.ndarray) else record
    target[part] = wrong
    save_stored(tmp_path / "a.safetensors", "deltarnn.features", arrays, record)
    with pytest.raises(ValueError, match=r"a\.safetensors: .*make it with --step feature"):
        load_features(tmp_path / "a.safetensors")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=4,
)


@settings(FUZZ, max_examples=80)
@given(data=st.data(), value=JSON)
def test_a_damaged_feature_configuration_is_one_sentence(data, value):
    from deltarnn.kws.config.options_data import FeatureConfig

    values = json.loads(json.dumps(FeaturePipeline(FeatureConfig()).to_dict()))
    group = data.draw(st.sampled_from([values, values["statistics"]]))
    group[data.draw(st.sampled_from(sorted(group)))] = value
    try:
        pipeline = FeaturePipeline.from_dict(values)
    except ValueError as error:
        told = str(error)
    else:
        told = f"feature configuration: {pipeline.config}"
    assert told.startswith("feature configuration: ")
    assert "\n" not in told


@settings(FUZZ, max_examples=50)
@given(data=st.data(), value=JSON)
def test_a_damaged_header_is_one_sentence_in_every_command(finished, tmp_path, data, value):
    tensors, header = load_model(model_of(finished))
    header = copy.deepcopy(header)
    name = data.draw(
        st.sampled_from(["labels", "decision", "features", "training", "class_quantization", "clip_seconds"])
    )
    if isinstance(header[name], dict) and data.draw(st.booleans()):
        header[name][data.draw(st.sampled_from(sorted(header[name])))] = value
    else:
        header[name] = value
    try:
        save_model(tmp_path / "model.safetensors", tensors, header)
    except ModelFileError:
        return  # NaN is no JSON
    try:
        Predictor(tmp_path / "model.safetensors")(np.arange(16000).astype(np.int16))
    except ValueError as error:
        told = str(error)
    else:
        told = ""
    assert "\n" not in told


def test_what_a_message_tells_to_type_is_what_is_missing(work, capsys):
    """With the preset and the flags that the other step needs, and no others."""
    flags = ["--preset", "demo", "--n_filt", "14", "--zero_padding", "tail", "--norm_feat", "0"]
    command = ["pretrain", *DATA, *TRAIN, *flags, "--work_dir", str(work)]
    assert main(command) == 1
    typed = shlex.split(capsys.readouterr().err.partition("is missing: type deltarnn ")[2])
    assert "--rnn_size" not in typed
    assert main(typed) == 0
    assert main([*command, "--eval_test", "0"]) == 0


def test_what_evaluate_added_outlives_the_same_training_again(work, capsys):
    """The threshold for streams, the other arithmetics; and a threshold is no other network to start from."""
    model, command = model_of(work).resolve(), ["pretrain", *DATA, *TRAIN, "--work_dir", str(work)]
    assert main(command) == 0  # the work folder was moved, as the record now says
    digest = file_digest(model)
    store(model, Calibration(StreamRule.at(0.016, threshold=0.25), 5.0, 1.0))
    assert main(["evaluate", str(model)]) == 0
    added = model.read_bytes()
    assert file_digest(model) == digest
    measured = json.loads(model.with_name("metrics.json").read_text())
    assert set(measured["evaluation"]) == {"float", "fixed"}
    assert main(command) == 0
    assert model.read_bytes() == added
    assert json.loads(model.with_name("metrics.json").read_text()) == measured
    assert main([*command, "--eval_test", "0"]) == 0
    again = json.loads(model.with_name("metrics.json").read_text())
    assert all(again[name] == measured[name] for name in ("test", "test_accuracy", "evaluation"))
    tensors, header = load_model(model)
    tensors["head.0.bias"] = tensors["head.0.bias"] + 1
    save_model(model, tensors, header)
    assert main(command) == 0
    assert "stream" not in load_model(model)[1]
    assert "evaluation" not in json.loads(model.with_name("metrics.json").read_text())


def test_the_models_of_every_epoch_are_missed_aloud(work, capsys):
    command = ["pretrain", *DATA, *TRAIN, "--work_dir", str(work), "--save_every_epoch", "1"]
    assert main(command) == 0
    assert "epochs 1 to 1 ended before it was given" in capsys.readouterr().err
    assert main([*command, "--seed", "4"]) == 0
    assert "ended before" not in capsys.readouterr().err


def test_a_damaged_model_does_not_start_a_retraining(work, capsys):
    path = model_of(work).resolve()
    whole = path.read_bytes()
    path.write_bytes(damaged(whole, [8 * len(whole) - 40]))
    with pytest.raises(ModelFileError, match="checksum"):
        load_keyword_model(path)
    assert main(["retrain", *DATA, "--rnn_size", "6", "--work_dir", str(work), "--thx", "0.1"]) == 1
    assert "model.safetensors: damaged (its checksum differs)" in capsys.readouterr().err


def test_a_damaged_sweep_point_is_measured_anew(work):
    arguments = ["sweep", str(model_of(work)), "--thx", "0.1", "--thh", "0.1", "--workers", "0"]
    assert main(arguments) == 0
    (point,) = work.glob("save/gscdv2/pretrain-*/sweep-*/points/x0.1-h0.1.json")
    whole = point.read_text()
    values = json.loads(whole)
    values["values"]["validation_accuracy"] += 0.01
    point.write_text(json.dumps(values))
    assert main(arguments) == 0
    assert point.read_text() == whole


def test_points_of_a_sweep_are_told_apart_by_features_and_thresholds(work, capsys):
    """Those of other clips are measured anew, those of nearly the same thresholds each on its own."""
    arguments = ["sweep", str(model_of(work)), "--thx", "0.1,0.10000001", "--thh", "0.1", "--workers", "0"]
    assert main(arguments) == 0
    (test,) = work.glob("feat/gscdv2/feat_fft/test.safetensors")
    features = load_features(test)
    save_features(test, replace(features, labels=np.zeros_like(features.labels), source="other clips"))
    assert main(arguments) == 0
    first, second = (json.loads(Path(line).read_text()) for line in capsys.readouterr().out.splitlines()
                     if line.endswith("sweep.json"))  # fmt: skip
    assert first["dense"]["test_accuracy"] != second["dense"]["test_accuracy"]
    assert [point["thx"] for point in second["points"]] == [0.0, 0.1, 0.10000001]


def test_a_damaged_audio_cache_and_version_are_made_anew(work):
    flags = [*DATA, *TRAIN, "--aug_shift", "0.05", "--aug_versions", "1", "--work_dir", str(work)]
    assert main(["pretrain", *flags]) == 0
    (version,) = work.glob("feat/gscdv2/feat_fft/versions/*.safetensors")
    cache = work / "data/gscdv2/audio/train-head-16000.npy"
    for path in (version, cache):
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, [8 * len(whole) - 31]))
        version.touch()
        if path == cache:
            version.unlink()
        assert main(["pretrain", *flags, "--seed", "0", "--epochs_pretrain", "2"]) == 0
        assert path.read_bytes() == whole
        for folder in work.glob("log/gscdv2/pretrain-*"):
            shutil.rmtree(folder)


def test_another_network_is_told_by_what_differs(work, capsys):
    model = str(model_of(work))
    assert main(["retrain", *DATA, "--rnn_size", "7", "--path_net_pretrain", model, "--work_dir", str(work)]) == 1
    error = capsys.readouterr().err
    assert "another network than asked for: hidden_size 6, not 7; give the same" in error
    assert "Architecture" not in error


def test_leftovers_of_killed_runs_are_removed(work):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = [work / "data/gscdv2/audio" / f".train.{process.pid}.part.npy", work / f"feat/gscdv2/.a.{process.pid}.part"]
    for path in left:
        path.touch()
    assert main(["feature", *DATA, "--work_dir", str(work)]) == 0
    assert not any(path.exists() for path in left)


def test_the_last_epoch_is_kept_where_that_is_asked_for(work, capsys):
    """With a rate of 0 no epoch is better than the first."""
    still = ["--lr", "0", "--lr_end", "0", "--epochs_pretrain", "3", "--keep_last", "1"]
    assert main(["pretrain", *DATA, *TRAIN[:-2], *still, "--work_dir", str(work)]) == 0
    out = capsys.readouterr()
    assert json.loads(Path(out.out.strip().splitlines()[-1]).read_text())["best_epoch"] == 3


def test_early_stopping_ends_a_run_whose_score_stalls(work, capsys):
    """With a rate of 0 no epoch is better than the first."""
    still = ["--lr", "0", "--lr_end", "0", "--epochs_pretrain", "20", "--early_stop", "3"]
    assert main(["pretrain", *DATA, *TRAIN[:-2], *still, "--work_dir", str(work)]) == 0
    out = capsys.readouterr()
    metrics = json.loads(Path(out.out.strip().splitlines()[-1]).read_text())
    assert (metrics["epochs"], metrics["best_epoch"]) == (4, 1)
    rows = list(csv.DictReader((Path(metrics["run"]) / "history.csv").open()))
    assert len(rows) == 4
