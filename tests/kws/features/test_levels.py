"""Features made elsewhere as a data set: taken in, kept apart, trained on; test clips as recordings; faults."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.kws.killed import check_it_goes_on

from deltarnn.cli import main
from deltarnn.kws import LogMelFilterBank
from deltarnn.kws.config.resolve import Config, resolve
from deltarnn.kws.data.audio import read_audio, write_wav
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import prepare
from deltarnn.kws.features.levels import load_levels
from deltarnn.kws.features.store import feature, feature_paths, load_audio, load_features
from deltarnn.kws.features.versions import training_clips
from deltarnn.kws.network.decision import clip_scores
from deltarnn.kws.network.model import Architecture, KeywordModel
from deltarnn.kws.training.teachers import load_teacher

FLAGS = {"dataset": "shared", "cfg_feat": "feat_logmel", "zero_padding": "centre", "keywords": "yes,no", "workers": 2}


def configure(folder: Path, **flags: object) -> Config:
    values = {"step": "feature", "from_folder": str(folder), "work_dir": str(folder / "work"), **FLAGS, **flags}
    return resolve(values)


def stored(config: Config) -> dict:
    feature(config)
    return {group: load_features(path) for group, path in feature_paths(config).items()}


def test_arrays_become_a_data_set(elsewhere):
    sets = stored(configure(elsewhere))
    arrays = np.load(elsewhere / "train.npz")
    images = {(word, name): x for word, name, x in zip(arrays["word"], arrays["name"], arrays["x"], strict=True)}
    train = sets["train"]
    assert train.class_names == ["_silence_", "_unknown_", "yes", "no"]
    assert train.features.shape[1:] == (98, 40)
    assert [np.bincount(features.labels).tolist() for features in sets.values()] == [
        [12, 12, 12, 12], [4, 8, 4, 4], [1, 4, 2, 2]
    ]  # fmt: skip
    for index in np.flatnonzero(train.labels):
        path = Path(train.paths[index])
        np.testing.assert_allclose(train.features[index], images[path.parent.name, path.name], atol=1e-4)
    assert abs(train.normalised.mean()) < 1e-4
    again = stored(configure(elsewhere, pool_bands=2, pool_frames=2, from_folder=""))["train"]  # from the work folder
    assert again.features.shape[1:] == (49, 20)
    bank = LogMelFilterBank(pool_bands=2, pool_frames=2)
    np.testing.assert_allclose(again.features, bank.of_levels(train.features), atol=1e-3)


def test_the_same_noise_is_never_on_both_sides(elsewhere):
    config = configure(elsewhere)
    sets, description = stored(config), read_description(config)
    heard = {noise.tobytes() for noise in load_levels(config, description, "noise")}
    silent = load_levels(config, description, "validation")[sets["validation"].labels == 0]
    every = {noise.tobytes() for noise in np.load(elsewhere / "noise.npz")["x"]}
    assert len(every) == 41
    assert {noise.tobytes() for noise in silent} <= every - heard
    assert heard < every


def test_recordings_are_cut_and_centred(elsewhere):
    """Zeros at the end of a recording are none of it; the frames of a short one lie in the middle of empty ones."""
    rng = np.random.default_rng(1)
    spoken = rng.integers(-3000, 3000, 9000).astype(np.int16)
    test = elsewhere / "speech_commands_test_set_v0.02" / "yes"
    write_wav(test / "padded.wav", np.pad(spoken, (0, 7000)))
    write_wav(test / "few_zeros.wav", np.pad(spoken, (0, 100)))
    features = stored(configure(elsewhere))["test"]
    of = {Path(path): levels for path, levels in zip(features.paths, features.features, strict=True)}
    bank = LogMelFilterBank()
    for name, samples in (("padded.wav", spoken), ("few_zeros.wav", np.pad(spoken, (0, 100)))):
        frames = bank(samples)
        before = (98 - len(frames)) // 2
        expected = np.zeros((98, 40))
        expected[before : before + len(frames)] = frames
        np.testing.assert_allclose(of[test / name], expected, atol=1e-3)
    whole = of[test / "b0000000_nohash_0.wav"]
    np.testing.assert_allclose(whole, bank(read_audio(test / "b0000000_nohash_0.wav")), atol=1e-3)
    assert features.pipeline.of_clip(np.zeros(16000, np.int16), 16000).max() == 0


def test_a_killed_run_goes_on_to_the_same_result(elsewhere, tmp_path):
    stored(configure(elsewhere, pool_bands=2))
    data = ["--dataset", "shared", "--cfg_feat", "feat_logmel", "--zero_padding", "centre", "--pool_bands", "2"]
    changes = ["--aug_noise", "0.5", "--aug_speed", "0.1", "--aug_versions", "2", "--aug_time_mask", "9"]
    network = ["--keywords", "yes,no", "--rnn_size", "8", "--batch_size", "16", "--epochs_pretrain", "5"]
    check_it_goes_on(tmp_path, elsewhere / "work", ["pretrain", *data, *changes, *network])


def test_versions_are_those_of_the_seed_whoever_makes_them(elsewhere):
    changes = {"aug_noise": 0.5, "aug_gain": 3, "aug_shift": 0.1, "aug_speed": 0.1, "aug_warp": 0.05, "aug_versions": 2}
    config = configure(elsewhere, step="pretrain", pool_bands=2, pool_frames=2, **changes)
    features = stored(config)["train"]
    clips = training_clips(config, features)
    assert clips.versions.shape == (2, 48, 49, 20)
    files = sorted((elsewhere / "work").glob("feat/shared/*/versions/*"))
    made = [path.read_bytes() for path in files]
    for path in files:
        path.unlink()
    training_clips(config.replace(workers=1, seed=5), features)
    assert [path.read_bytes() for path in files] == made
    assert not (clips.versions[0] == clips.versions[1]).all()


def test_every_later_step_runs_as_usual(elsewhere, capsys):
    quick = ["--dataset", "shared", "--work_dir", str(elsewhere / "work"), "--preset", "default12", "--rnn_size", "8"]
    quick += ["--batch_size", "8", "--aug_versions", "2", "--threads", "1"]
    keywords = ["--keywords", "yes,no"]
    assert main(["feature", *quick[:6], *keywords, "--from", str(elsewhere)]) == 0
    assert main(["pretrain", *quick, "--epochs_pretrain", "2"]) == 0
    assert main(["retrain", *quick, "--epochs_retrain", "2"]) == 0
    model = Path(capsys.readouterr().out.strip().splitlines()[-1]).with_name("model.safetensors")
    assert len(list((elsewhere / "work").glob("feat/shared/*/versions/*-taught.safetensors"))) == 2
    assert main(["evaluate", str(model)]) == 0
    metrics = json.loads(model.with_name("metrics.json").read_text())
    assert metrics["operations_per_second_dense"] == 2 * (metrics["parameters"] - 6 * 8 * 3 - 4) / 0.01
    recording = elsewhere / "speech_commands_test_set_v0.02" / "yes" / "b0000000_nohash_0.wav"
    assert main(["predict", str(model), str(recording)]) == 0
    assert main(["evaluate", str(model), "--stream"]) == 1
    assert "shared has features that were made elsewhere: this needs recordings" in capsys.readouterr().err


def test_recordings_become_levels_where_frames_are_centred(elsewhere):
    config = configure(elsewhere, dataset="gscdv2", data_dir=str(elsewhere), from_folder="", pool_frames=2)
    description = prepare(config)
    sets = stored(config)
    for features in sets.values():
        for path, row in list(zip(features.paths, features.features, strict=True))[::5]:
            np.testing.assert_allclose(row, features.pipeline.of_clip(read_audio(path), 16000), atol=1e-4)
    assert load_levels(config, description, "noise").shape == (32, 98, 40)
    config = config.replace(step="pretrain", aug_warp=0.1, aug_noise=0.5, aug_versions=1)
    assert training_clips(config, sets["train"]).versions.shape == (1, len(sets["train"]), 49, 40)
    files = sorted((elsewhere / "work" / "data" / "gscdv2" / "levels").glob("*.npy"))
    assert len(files) == 4
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-1])  # a damaged one is made anew
    load_levels(config, description, files[0].stem.split("-")[1])
    assert files[0].read_bytes() == content


def test_a_killed_step_leaves_arrays_that_are_noticed(elsewhere):
    config = configure(elsewhere)
    feature(config)
    path = elsewhere / "work" / "data" / "shared" / "levels" / "train.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    told = rf"train\.npy is damaged: type deltarnn feature --dataset shared .*--from {elsewhere}.* --pool_bands 2 "
    with pytest.raises(ValueError, match=told):
        feature(configure(elsewhere, pool_bands=2, from_folder=""))
    feature(configure(elsewhere, pool_bands=2))
    content[-1] ^= 1
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"from_folder": "nowhere"}, "--from nowhere: no such folder"),
        ({"cfg_feat": "feat_speech", "zero_padding": "head"}, "--from takes features of --feat_type logmel, not logf"),
        ({"nfft": 1024}, r"features\.json: the arrays were made with nfft 512, not 1024"),
        ({"clip_seconds": 2}, "has 98 frames of 40 bands; feat_logmel makes 198 of 40 from clips of 2 s"),
        ({"keywords": "yes,no,stop"}, "no train clip of stop can be used"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_named(elsewhere, flags, message):
    with pytest.raises(ValueError, match=message):
        feature(configure(elsewhere, **flags))


def test_parts_that_are_missing_are_named(elsewhere, capsys):
    (elsewhere / "features.json").unlink()
    feature(configure(elsewhere))
    assert "has no features.json: its arrays count as made by feat_logmel" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--n_filt 20: the features of shared were made with 40"):
        feature(configure(elsewhere, from_folder="", n_filt=20))
    config = configure(elsewhere, step="pretrain", aug_splice=3)
    train = load_features(feature_paths(config)["train"])
    with pytest.raises(ValueError, match="--aug_splice joins samples"):
        training_clips(config, train)
    (elsewhere / "noise.npz").unlink()
    with pytest.raises(ValueError, match="no silence for train"):
        feature(configure(elsewhere, dataset="other"))
    shutil.rmtree(elsewhere / "speech_commands_test_set_v0.02")
    with pytest.raises(ValueError, match=r"no file .*test\.npz: --from names a folder with test\.npz"):
        feature(configure(elsewhere, dataset="other"))


def test_features_that_versions_cannot_hold_are_refused(elsewhere):
    """Infinities would train to NaN."""
    own = {**FLAGS, "dataset": "gscdv2", "zero_padding": "head", "data_dir": str(elsewhere), "from_folder": ""}
    config = configure(elsewhere, **own, norm_feat=0, log_feat=0, aug_gain=1.0)
    prepare(config)
    with pytest.raises(ValueError, match=r"features up to \d\S+: changed clips .* hold at most 65504: --norm_feat 1"):
        training_clips(config, stored(config)["train"])


def test_recordings_and_arrays_are_not_mixed(elsewhere):
    own = {**FLAGS, "dataset": "gscdv2", "zero_padding": "head", "data_dir": str(elsewhere), "from_folder": ""}
    config = configure(elsewhere, **own)
    prepare(config)
    with pytest.raises(ValueError, match="describes recordings: give the features of --from"):
        feature(config.replace(from_folder=str(elsewhere)))
    config = config.replace(step="pretrain", aug_warp=0.1)
    train = stored(config)["train"]
    with pytest.raises(ValueError, match="--aug_warp moves bands: it needs --zero_padding centre"):
        training_clips(config, train)
    shared = configure(elsewhere)
    feature(shared)
    with pytest.raises(ValueError, match="shared has features that were made elsewhere"):
        load_audio(shared, read_description(shared), "train")


def test_a_teacher_of_features_that_are_pooled_otherwise_hears_the_same(elsewhere, tmp_path):
    """It says of every version what it says of its own features of that version."""
    changes = {"aug_noise": 0.5, "aug_speed": 0.1, "aug_versions": 2, "aug_time_mask": 9, "step": "pretrain"}
    fine, coarse = (configure(elsewhere, pool_frames=frames, **changes) for frames in (1, 2))
    own, theirs = stored(fine)["train"], stored(coarse)["train"]
    model = KeywordModel(Architecture(40, 4, hidden_size=8)).to_delta()
    model.save(tmp_path / "m.safetensors", labels=theirs.class_names, features=theirs.pipeline.to_dict())
    teacher = load_teacher(fine, tmp_path / "m.safetensors", own, pooled_otherwise=True)
    clips, heard = training_clips(fine, own, [teacher]), training_clips(coarse, theirs).versions.float()
    for version, taught in zip(heard, clips.taught, strict=True):
        scores = clip_scores(model(version.transpose(0, 1))[0]).log_softmax(-1)
        torch.testing.assert_close(taught, scores.detach(), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"m\.safetensors: trained on other features or classes"):
        load_teacher(fine, tmp_path / "m.safetensors", own, pooled_otherwise=False)
    model.save(tmp_path / "m.safetensors", labels=["a", "b", "c", "d"], features=theirs.pipeline.to_dict())
    with pytest.raises(ValueError, match=r"m\.safetensors: trained on other features or classes"):
        load_teacher(fine, tmp_path / "m.safetensors", own, pooled_otherwise=True)
