"""Front ends against golden features, closed forms, and their streaming twins."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deltarnn.kws.features.filters import spaced_frequencies
from deltarnn.kws.features.frontend import LogFilterBank
from deltarnn.kws.features.iir import IIRFilterBank

GOLDEN = sorted((Path(__file__).parents[2] / "data" / "features").glob("*.npz"))
FINE = {"frame_size": 0.025, "frame_stride": 0.01, "nfft": 512, "n_filt": 40}
BANKS = {
    "logfbank_mel": lambda centres: LogFilterBank(),
    "logfbank_gradient": lambda centres: LogFilterBank(gradient=True),
    "logfbank_gain_ctrl": lambda centres: LogFilterBank(gain_ctrl=True),
    "logfbank_mel40_25ms_10ms_nfft512": lambda centres: LogFilterBank(**FINE),
    "mfcc39_from_mel40_25ms_10ms_nfft512": lambda centres: LogFilterBank(**FINE, mfcc=True),
    "iir_inner16_of_mel18": lambda centres: IIRFilterBank(f_centers=centres, mean=-1.25, full_scale=7500),
}

APART = {"frame_stride": 0.04}  # samples between frames belong to none
STREAMED = {
    **BANKS,
    "logfbank_apart": lambda centres: LogFilterBank(**APART),
    "gain_ctrl_apart": lambda centres: LogFilterBank(gain_ctrl=True, **APART),
    "iir_apart": lambda centres: IIRFilterBank(full_scale=7500, **APART),
}


def speechlike(seed: int, samples: int, batch: int = 1) -> np.ndarray:
    """int16 noise (batch, samples) with a slow envelope, so that frames differ in level."""
    rng = np.random.default_rng(seed)
    envelope = 200 + 6000 * np.sin(np.linspace(0, 3 + seed % 5, samples)) ** 2
    return np.clip(rng.normal(size=(batch, samples)) * envelope, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("name", BANKS)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_equals_golden_features(name, path):
    golden = np.load(path)
    features = BANKS[name](golden["iir_centers"])(golden["audio"])
    np.testing.assert_allclose(features, golden[name], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", BANKS)
def test_batch_equals_single_clips(name):
    bank = BANKS[name](None)
    clips = speechlike(3, 9000, batch=3)
    batched = bank(clips)
    assert batched.shape == (3, bank.num_frames(9000), bank.num_features)
    for row, clip in zip(batched, clips, strict=True):
        np.testing.assert_allclose(row, bank(clip), rtol=1e-12, atol=1e-11)


@settings(max_examples=25, deadline=None)
@example(name="logfbank_apart", samples=2400, seed=0)
@example(name="gain_ctrl_apart", samples=9000, seed=0)
@example(name="iir_apart", samples=2400, seed=0)
@given(name=st.sampled_from(sorted(STREAMED)), samples=st.integers(2400, 6000), seed=st.integers(0, 99))
def test_stream_gives_the_same_numbers(name, samples, seed):
    bank = STREAMED[name](None)
    audio = speechlike(seed, samples)[0]
    rng = np.random.default_rng(seed)
    stream, rows = bank.stream(), []

    def take_ready_frames():
        while stream.num_frames_ready > len(rows):
            rows.append(stream.get_frame(len(rows)))
            if len(rows) % 3 == 0:
                stream.pop(3)

    start = 0
    while start < samples:
        stop = start + int(rng.integers(1, 1500))
        stream.accept_waveform(audio[start:stop])
        take_ready_frames()
        start = stop
    stream.input_finished()
    take_ready_frames()
    np.testing.assert_allclose(np.stack(rows), bank(audio), rtol=1e-10, atol=1e-9)


def test_stream_frames_are_ready_as_soon_as_they_are_sure():
    bank = LogFilterBank()
    stream = bank.stream()
    stream.accept_waveform(np.zeros(262, np.int16))
    stream.accept_waveform(np.zeros(1, np.int16))
    assert stream.num_frames_ready == 1
    with pytest.raises(IndexError, match="frame 1: at hand are the frames from 0 to 0"):
        stream.get_frame(1)
    stream.pop(1)
    with pytest.raises(IndexError, match="frame 0"):
        stream.get_frame(0)
    stream.input_finished()
    with pytest.raises(ValueError, match="after input_finished"):
        stream.accept_waveform(np.zeros(1, np.int16))


@pytest.mark.parametrize("samples", [1, 261, 262, 263, 524, 525, 1000])
@pytest.mark.parametrize("bank", [LogFilterBank(), IIRFilterBank()], ids=["logfbank", "iir"])
def test_short_clips_count_frames_by_the_formula(bank, samples):
    audio = speechlike(1, samples)[0]
    features = bank(audio)
    assert len(features) == -(-abs(samples - 262) // 262)
    stream = bank.stream()
    stream.accept_waveform(audio)
    stream.input_finished()
    assert stream.num_frames_ready == len(features)
    for index, row in enumerate(features):
        np.testing.assert_allclose(stream.get_frame(index), row, rtol=1e-12)


def test_short_frames_are_padded_with_zeros():
    audio = speechlike(2, 200)[0]
    padded = np.concatenate([audio, np.zeros(163, np.int16)])  # 363 samples: one whole frame, and a bit
    np.testing.assert_allclose(LogFilterBank()(audio), LogFilterBank()(padded), rtol=1e-12)


def test_tone_level_and_channel():
    """A sine at a triangle's corner: its filter is the loudest, and one bin's share follows from the window's sum."""
    bank = LogFilterBank(log=False)
    centre = bank.corners[9]
    tone = np.rint(8000 * np.sin(2 * np.pi * centre / 16000 * np.arange(16000))).astype(np.int16)
    assert (bank(tone).argmax(axis=1) == 8).all()
    flat = LogFilterBank(n_filt=1, freq_low=2000, freq_high=6000, nfft=262, log=False)
    bin_frequency = 16000 * 66 / 262  # exactly on bin 66 of 262; the triangle's peak is elsewhere
    tone = np.rint(20000 * np.cos(2 * np.pi * bin_frequency / 16000 * np.arange(16000))).astype(np.int16)
    expected = sum(
        float(flat.triangles[k, 0]) * 65536 * 20000 / 2 * share / 262
        for k, share in ((65, 0.23 * 261.5), (66, 0.54 * 262), (67, 0.23 * 261.5))
    )
    np.testing.assert_allclose(flat(tone)[:, 0], expected, rtol=0.01)


def test_digital_silence_gives_the_floor():
    for bank in (LogFilterBank(), LogFilterBank(gain_ctrl=True)):
        np.testing.assert_allclose(bank(np.zeros(16000, np.int16)), 20 * np.log10(np.finfo(float).eps))
    assert (LogFilterBank(floor=80)(np.zeros(16000, np.int16)) == 80).all()


def test_iir_channel_passes_its_own_tone():
    bank = IIRFilterBank(full_scale=20000)
    tone = np.rint(20000 * np.sin(2 * np.pi * bank.centres[7] / 16000 * np.arange(16000))).astype(np.int16)
    settled = bank(tone)[20:]
    assert (settled.argmax(axis=1) == 7).all()
    np.testing.assert_allclose(settled[:, 7], 2048 * 2 / np.pi, rtol=0.03)  # mean of |sin|, unit gain at the centre


def test_microphone_clips_and_subtracts():
    bank = IIRFilterBank(mean=100, full_scale=1000, mic_res=4)
    np.testing.assert_allclose(bank.microphone(np.array([100, 600, 32000, -32000], np.int16)), [0, 4, 8, -8])


def test_spacing():
    np.testing.assert_allclose(spaced_frequencies(4, 100, 100000, "log"), [100, 1000, 10000, 100000])
    golden = np.load(GOLDEN[0])["iir_centers"]
    np.testing.assert_allclose(spaced_frequencies(18, 100, 6500), golden, rtol=1e-12)
    explicit = LogFilterBank(f_spacing=list(LogFilterBank().corners))
    audio = speechlike(0, 4000)[0]
    np.testing.assert_array_equal(explicit(audio), LogFilterBank()(audio))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogFilterBank(nfft=256), "nfft=256: a frame has 262 samples"),
        (lambda: LogFilterBank(freq_high=9000), r"freq_high=9000: must rise, above 0, up to 8000"),
        (lambda: LogFilterBank(f_spacing="bark"), "f_spacing='bark': must be 'mel', 'log'"),
        (lambda: LogFilterBank(f_spacing=[100, 90, 200]), "needs n_filt . 2 = 18, rising"),
        (lambda: LogFilterBank(mfcc=True), "n_filt=16"),
        (lambda: LogFilterBank(n_filt=0), "n_filt=0"),
        (lambda: IIRFilterBank(n_filt=2.5), "n_filt=2.5: needs a whole number"),
        (lambda: IIRFilterBank(q_factors=0), "q_factors=0 of the channel at"),
        (lambda: IIRFilterBank(full_scale=float("nan")), "full_scale=nan"),
        (lambda: IIRFilterBank(mean=float("nan")), "mean=nan"),
        (lambda: IIRFilterBank(mic_res=2.5), "mic_res=2.5"),
        (lambda: LogFilterBank(floor=float("nan")), "floor=nan"),
        (lambda: LogFilterBank(n_filt=1, f_spacing=[100, float("nan"), 200]), "f_spacing has 3 frequencies"),
        (lambda: IIRFilterBank(ch_orders=2.5), "ch_orders=2.5: must be whole"),
        (lambda: LogFilterBank(sample_rate=0), "sample_rate=0"),
        (lambda: LogFilterBank(frame_stride=1e-6), "frame_stride=1e-06"),
        (lambda: IIRFilterBank(f_centers=[100, 200]), "f_centers has 2 values: needs n_filt=16"),
        (lambda: IIRFilterBank(n_filt=1, f_centers=[7900]), "channel at 7900 Hz"),
        (lambda: IIRFilterBank(full_scale=0), "full_scale=0"),
        (lambda: LogFilterBank()(np.zeros(100)), "audio of type float64 and shape .100,.: needs int16"),
        (lambda: LogFilterBank()(np.zeros((2, 0), np.int16)), "N > 0"),
        (lambda: LogFilterBank(gradient=True)(np.zeros(600, np.int16)), "at least 3 frames, this clip has 2"),
    ],
)
def test_errors_name_the_thing(make, message):
    with pytest.raises(ValueError, match=message):
        make()
