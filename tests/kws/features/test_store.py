"""The feature store, the audio cache, and the pipeline from audio to the network's input."""

import json
from pathlib import Path

import numpy as np
import pytest

from deltarnn.kws.config.options_data import FeatureConfig
from deltarnn.kws.config.resolve import Config, resolve
from deltarnn.kws.data.audio import read_audio
from deltarnn.kws.data.description import read_description
from deltarnn.kws.data.prepare import prepare
from deltarnn.kws.features.frontend import LogFilterBank
from deltarnn.kws.features.iir import IIRFilterBank
from deltarnn.kws.features.pipeline import FeaturePipeline, FeatureStatistics
from deltarnn.kws.features.store import feature, feature_paths, load_audio, load_features


def configure(corpus: Path, **flags: object) -> Config:
    values = {"step": "feature", "data_dir": str(corpus), "work_dir": str(corpus / "work"), "keywords": "yes,no"}
    return resolve({**values, "workers": 2, **flags})


def speechlike(seed: int, samples: int = 16000, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(batch, samples)) * np.linspace(10, 4000, samples)).astype(np.int16)


def test_store_holds_every_clip_with_its_label(tiny_corpus):
    config = configure(tiny_corpus)
    description = prepare(config)
    feature(config)
    for group, path in feature_paths(config).items():
        stored = load_features(path)
        rows = description.group(group)
        assert stored.paths == [row.path for row in rows]
        np.testing.assert_array_equal(stored.labels, [row.label for row in rows])
        assert stored.class_names == ["_silence_", "_unknown_", "yes", "no"]
        assert stored.features.dtype == np.float32
        np.testing.assert_array_equal(stored.lengths, 61)
        for index in (0, len(rows) - 1):
            clip = read_audio(rows[index].path)
            padded = np.pad(clip, (16000 - len(clip), 0))
            expected = np.maximum(LogFilterBank()(padded), config.features.floor)
            np.testing.assert_allclose(stored.features[index], expected, rtol=1e-6)


def test_normalisation_is_one_mean_and_deviation_of_the_training_set(tiny_corpus):
    config = configure(tiny_corpus)
    prepare(config)
    feature(config)
    paths = feature_paths(config)
    train, test = load_features(paths["train"]), load_features(paths["test"])
    assert abs(train.normalised.mean()) < 1e-4
    assert train.normalised.std() == pytest.approx(1, abs=1e-4)
    assert test.pipeline.statistics == train.pipeline.statistics
    expected = (test.features - train.features.mean(dtype=float)) / train.features.std(dtype=float)
    np.testing.assert_allclose(test.normalised, expected, atol=1e-4)


def test_again_makes_only_what_is_missing_or_old(tiny_corpus, capsys):
    config = configure(tiny_corpus)
    prepare(config)
    feature(config)
    paths = feature_paths(config)
    before = {group: path.read_bytes() for group, path in paths.items()}
    paths["validation"].unlink()
    capsys.readouterr()
    feature(config)
    said = capsys.readouterr().out
    assert said.count("is up to date") == 2
    assert {group: path.read_bytes() for group, path in paths.items()} == before
    prepare(config.replace(step="prepare", seed=5))
    with pytest.raises(
        ValueError, match=r"is older than the data description: type deltarnn feature --dataset gscdv2 "
    ):
        feature_paths(config)
    feature(config)
    feature_paths(config)
    description = read_description(config)
    for row, clip in zip(description.group("train"), load_audio(config, description, "train"), strict=True):
        np.testing.assert_array_equal(clip[-11000:], read_audio(row.path)[-11000:])  # the cache follows the description


def test_an_edited_feature_file_makes_features_old(tiny_corpus):
    file = tiny_corpus / "mine.json"
    file.write_text(json.dumps({"n_filt": 12}))
    config = configure(tiny_corpus, cfg_feat=str(file))
    prepare(config)
    feature(config)
    file.write_text(json.dumps({"n_filt": 14}))
    config = configure(tiny_corpus, cfg_feat=str(file))
    with pytest.raises(ValueError, match="older than"):
        feature_paths(config)
    feature(config)
    assert load_features(feature_paths(config)["train"]).features.shape[2] == 14


def test_other_options_get_a_folder_of_their_own(tiny_corpus):
    config = configure(tiny_corpus)
    prepare(config)
    other = config.replace(n_filt=20)
    with pytest.raises(ValueError, match=r"is missing: type deltarnn feature --dataset gscdv2 .*--n_filt 20"):
        feature_paths(other)
    assert feature(other) != feature(config)
    assert load_features(feature_paths(other)["test"]).features.shape[2] == 20


def test_audio_cache_pads_where_asked_and_is_kept(tiny_corpus):
    config = configure(tiny_corpus)
    description = prepare(config)
    head = load_audio(config, description, "validation")
    tail = load_audio(config.replace(zero_padding="tail"), description, "validation")
    assert isinstance(head, np.memmap)
    for row, first, last in zip(description.group("validation"), head, tail, strict=True):
        clip = read_audio(row.path)
        np.testing.assert_array_equal(first[16000 - len(clip) :], clip)
        np.testing.assert_array_equal(last[: len(clip)], clip)
        assert not first[: 16000 - len(clip)].any()
    files = list((tiny_corpus / "work/data/gscdv2/audio").glob("*.npy"))
    times = [file.stat().st_mtime_ns for file in files]
    load_audio(config, description, "validation")
    assert [file.stat().st_mtime_ns for file in files] == times


def test_wrong_files_are_refused(tmp_path):
    for name, content in (("a.safetensors", b"not at all"), ("b.safetensors", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="no feature file"):
            load_features(tmp_path / name)
    with pytest.raises(ValueError, match="no feature file"):
        load_features(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="no data description"):
        read_description(resolve({"work_dir": str(tmp_path)}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feat_type": "iir", "freq_high": 6500.0, "logf": "lut"},
        {"gradient": True},
        {"log_feat": False, "logf": "lut"},
    ],
)
def test_pipeline_survives_json_and_streams_the_same_numbers(options):
    statistics = FeatureStatistics(mean=50.0, std=20.0, max=900.0, mic_mean=-1.0, mic_full_scale=7000.0)
    pipeline = FeaturePipeline(FeatureConfig(**options), statistics)
    again = FeaturePipeline.from_dict(json.loads(json.dumps(pipeline.to_dict())))
    audio = speechlike(1)
    expected = pipeline.normalise(pipeline(audio))
    np.testing.assert_array_equal(again.normalise(again(audio)), expected)
    stream = again.stream()
    stream.accept_waveform(audio[0, :7000])
    stream.accept_waveform(audio[0, 7000:])
    stream.input_finished()
    assert stream.num_frames_ready == expected.shape[1] == pipeline.num_frames(16000)
    streamed = np.stack([stream.get_frame(i) for i in range(stream.num_frames_ready)])
    np.testing.assert_allclose(streamed, expected[0], rtol=1e-5, atol=1e-5)


def test_pipeline_refuses_other_keys():
    values = FeaturePipeline(FeatureConfig()).to_dict()
    with pytest.raises(ValueError, match="'n_filter' is unknown"):
        FeaturePipeline.from_dict({**values, "n_filter": 3})
    del values["nfft"]
    with pytest.raises(ValueError, match="'nfft' is missing"):
        FeaturePipeline.from_dict(values)


def test_quantised_features_and_the_log_table():
    audio = speechlike(2)
    raw = IIRFilterBank(full_scale=7000.0)(audio)
    statistics = FeatureStatistics(max=float(raw.max()), mic_full_scale=7000.0)
    options = {"feat_type": "iir", "freq_high": 6500.0, "qf": True}
    quantised = FeaturePipeline(FeatureConfig(**options), statistics)(audio)
    np.testing.assert_array_equal(quantised, np.minimum(np.floor(raw / raw.max() * 2048), 2047))  # Q12.0
    logarithm = FeaturePipeline(FeatureConfig(**options, logf="lut", approx_log=True), statistics)(audio)
    np.testing.assert_array_equal(logarithm, np.rint(np.log10(1.0 + quantised.astype(float)) * 256) / 256)
    exact = FeaturePipeline(FeatureConfig(**options, logf="lut"), statistics)(audio)
    np.testing.assert_allclose(exact, np.log10(1.0 + quantised), rtol=1e-6)


def test_iir_statistics_come_from_spoken_training_samples(tiny_corpus):
    config = configure(tiny_corpus, cfg_feat="feat_iir", feat_type="iir", freq_high=6500, qf=1)
    description = prepare(config)
    feature(config)
    stored = load_features(feature_paths(config)["train"])
    spoken = load_audio(config, description, "train")[stored.labels != 0].astype(float)
    statistics = stored.pipeline.statistics
    assert statistics.mic_mean == pytest.approx(spoken.mean())
    assert statistics.mic_full_scale == pytest.approx(5 * spoken.std())
    assert stored.features.max() == 2047  # the maximum of the training set fills the format
    assert stored.features.min() >= 0


def test_oversampling_has_no_streaming_twin():
    pipeline = FeaturePipeline(FeatureConfig(feat_type="iir", freq_high=6500.0, oversample_factor=2))
    assert pipeline(speechlike(3)).shape == (2, 61, 16)
    with pytest.raises(ValueError, match="no streaming twin"):
        pipeline.stream()
