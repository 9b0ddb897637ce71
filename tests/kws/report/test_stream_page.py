"""The page about a stream: its timeline, misses and false alarms against a result made by hand."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from deltarnn.kws.data.stream import Recording, Section, Word
from deltarnn.kws.evaluation.detection import Timing, at_threshold
from deltarnn.kws.evaluation.streaming import StreamEvaluation
from deltarnn.kws.report.document import asset
from deltarnn.kws.report.stream_page import timeline, worst_misses, write_stream_report
from deltarnn.kws.spotter.rule import StreamRule

TIMING = Timing(160, 160, 16000)


@pytest.fixture
def result() -> StreamEvaluation:
    """Ten seconds: "yes" heard at 2 s, "yes" and "no" missed at 4 and 6 s, a false "no" at 8 s."""
    scores = np.full((1000, 2), -6.0, np.float32)
    scores[200, 0] = 5.0
    scores[400, 0], scores[600, 1] = 1.0, -2.0
    scores[800, 1] = 4.0
    spoken = ((0, 2, "clean"), (0, 4, "clean"), (1, 6, "5 dB"))
    words = [Word(k, round(16000 * (s - 0.5)), 16000 * s, c, f"{s}.wav") for k, s, c in spoken]
    audio = np.arange(160_000).astype(np.int16)
    recording = Recording(audio, words, [Section("keywords", 0, 112_000), Section("<noise>", 112_000, 160_000)], 16000)
    rule = StreamRule(smoothing=1, threshold=3.0)
    chosen = at_threshold(scores, words, rule, TIMING, 3.0)
    curve = dict.fromkeys((1.0, 10.0), (3.0, chosen))
    return StreamEvaluation(recording, ("yes", "no"), rule, TIMING, scores, curve, chosen, {"keywords": 0.9}, 4e-6)


def test_the_timeline_holds_scores_words_and_events(result):
    data = timeline(result)
    levels = np.frombuffer(base64.b64decode(data["scores"]), np.uint8) / 255 * 16 - 8
    np.testing.assert_allclose(levels, result.scores.max(axis=1), atol=16 / 255 / 2 + 1e-9)
    assert [(w["word"], w["end"], w["hit"]) for w in data["words"]] == [
        ("yes", 2, True),
        ("yes", 4, False),
        ("no", 6, False),
    ]
    assert [(e["word"], e["time"], e["score"], e["right"]) for e in data["events"]] == [
        ("yes", 2.01, 5.0, True), ("no", 8.01, 4.0, False)]  # fmt: skip


def test_long_curves_keep_their_peaks(monkeypatch, result):
    monkeypatch.setattr("deltarnn.kws.report.stream_page.POINTS", 90)
    data = timeline(result)
    levels = np.frombuffer(base64.b64decode(data["scores"]), np.uint8)
    assert len(levels) == 84
    assert data["stride"] == pytest.approx(0.12)
    assert levels[200 // 12] == round(13 / 16 * 255)


def test_the_worst_misses_come_first(result):
    assert worst_misses(result, result.chosen) == [(2, -2.0), (1, 1.0)]


def test_the_page_can_be_looked_along_and_listened_to(result, tmp_path):
    page = write_stream_report(tmp_path / "stream.html", result).read_text()
    data = re.search(r'<script type="application/json" id="timeline-data">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1]) == timeline(result)
    assert "<noise>" not in page
    assert f"<script>{asset('timeline.js')}</script>" in page
    assert page.count('<div class="narrow">') == page.count('<div class="wide">') == 2
    sounds = [base64.b64decode(s) for s in re.findall(r"data:audio/wav;base64,([^\"]+)", page)]
    ends = [96_000, 64_000, 128_160]  # misses, the worst first; the false alarm
    assert len(sounds) == 3
    for sound, end in zip(sounds, ends, strict=True):
        first = end - round(1.2 * 16000)
        np.testing.assert_array_equal(np.frombuffer(sound[44:], "<i2"), result.recording.audio[first : end + 9600])
    assert "66.7%" in page  # missed
    assert "no; nobody spoke a keyword" in page


def test_names_are_text_and_no_markup(result, tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>"
    words = [word._replace(condition=hostile) for word in result.recording.words]
    recording = replace(result.recording, words=words)
    renamed = replace(result, recording=recording, keywords=(hostile, "no"), sparsity={hostile: 0.9})
    plain = write_stream_report(tmp_path / "plain.html", result).read_text()
    page = write_stream_report(tmp_path / "stream.html", renamed).read_text()
    assert page.count("</script>") == plain.count("</script>")
    assert "<img" not in page
