"""stream.html: a spotter on a long recording, in one self-contained page to look along and listen to."""

import base64
import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from deltarnn.files import write_text
from deltarnn.kws.data.audio import wav_bytes
from deltarnn.kws.evaluation.detection import Outcome
from deltarnn.kws.evaluation.streaming import StreamEvaluation, percent
from deltarnn.kws.report import charts
from deltarnn.kws.report.charts import Series
from deltarnn.kws.report.document import asset, document, pair, tiles

STREAM_REPORT = "stream.html"
WORST = 8
"""Misses and false alarms to listen to, of each."""

CLIP = (1.2, 0.6)
"""Seconds before and after the end of a word, or a false alarm, that are to be heard."""

POINTS = 400_000
"""The most points of the timeline's curve; longer recordings show the maximum of several frames."""

COLOURS = ("var(--blue)", "var(--green)", "var(--warm)", "var(--red)")


def write_stream_report(path: Path, result: StreamEvaluation) -> Path:
    """Write the page."""
    lead = (
        f"{result.recording.hours:.2f} hours without a break, {len(result.recording.words)} times one of "
        f"{html.escape(', '.join(result.keywords))}; the state is never reset."
    )
    sections = [_curve(result), _timeline(result), pair(_misses(result), _false_alarms(result)), _activity(result)]
    content = f"{_tiles(result)}{''.join(sections)}"
    page = document("Keywords in a stream", "Keywords in an endless stream", lead, content, asset("timeline.js"))
    write_text(path, page)
    return path


def _tiles(result: StreamEvaluation) -> str:
    chosen, hours = result.chosen, result.recording.hours
    late = chosen.latencies(result.recording.words, result.timing)
    return tiles(
        [
            (percent(chosen.miss_rate), "of the keywords missed at the model's threshold"),
            (f"{len(chosen.false_alarms) / hours:.1f}", "false alarms an hour there"),
            (
                f"{1000 * float(np.median(late)):.0f} ms" if len(late) else "–",
                "from the end of a word to its detection",
            ),
        ]
    )


def _curve(result: StreamEvaluation) -> str:
    rates, words = list(result.curve), len(result.recording.words)
    by = {rate: outcome.misses_by(result.recording.words) for rate, (_, outcome) in result.curve.items()}
    conditions = list(dict.fromkeys(word.condition for word in result.recording.words))
    if not conditions:
        return ""
    series = [
        Series(
            rates, [len(outcome.misses) / words for _, outcome in result.curve.values()], "var(--ink)", "all", dots=True
        )
    ]
    series += [
        Series(rates, [by[rate][name] for rate in rates], COLOURS[i % len(COLOURS)], name)
        for i, name in enumerate(conditions)
    ]
    chart = charts.at_both_widths(
        lambda width: charts.line_chart(series, "false alarms an hour", "missed", width=width, height=320)
    )
    text = "; ".join(["Each point a threshold", *result.notes])
    return f"<section><h2>Misses against false alarms</h2><p>{text}.</p>{chart}</section>"


def _timeline(result: StreamEvaluation) -> str:
    """The score of the loudest keyword over time, what was said, and what was detected."""
    return (
        "<section><h2>Along the stream</h2><p>The largest score of each moment, and the threshold. Shaded: keywords "
        "that were spoken, green where they were detected, red where they were missed; dots: detections, red where "
        "nobody said that word. Drag or use the arrow keys to move, the wheel or + and − to zoom.</p>"
        '<canvas id="timeline" tabindex="0"></canvas><p id="timeline-note"></p>'
        f'<script type="application/json" id="timeline-data">{_json(timeline(result))}</script></section>'
    )


def timeline(result: StreamEvaluation) -> dict[str, Any]:
    """What timeline.js draws. scores: one byte a point, from `low` to `high`, base64."""
    rate, recording, outcome = result.recording.sample_rate, result.recording, result.chosen
    best = result.scores.max(axis=1) if len(result.scores) else np.zeros(1, np.float32)
    together = -(-len(best) // POINTS)
    padded = np.pad(best, (0, -len(best) % together), mode="edge").reshape(-1, together).max(axis=1)
    low, high = -result.rule.limit, result.rule.limit
    levels = np.clip(np.rint((padded - low) / (high - low) * 255), 0, 255).astype(np.uint8)
    found = {number for number, _ in outcome.hits}
    events = [(peak, True) for _, peak in outcome.hits] + [(peak, False) for peak in outcome.false_alarms]
    return {
        "seconds": len(recording.audio) / rate, "stride": result.timing.stride * together,
        "low": low, "high": high, "threshold": result.rule.threshold,
        "scores": base64.b64encode(levels.tobytes()).decode(),
        "sections": [{"kind": s.kind, "start": s.start / rate, "end": s.end / rate} for s in recording.sections],
        "words": [
            {"word": result.keywords[w.keyword], "start": round(w.start / rate, 3), "end": round(w.end / rate, 3),
             "hit": number in found}
            for number, w in enumerate(recording.words)
        ],
        "events": [
            {"word": result.keywords[p.keyword], "time": round(result.timing.sample(p.frame) / rate, 3),
             "score": round(p.score, 3), "right": right}
            for p, right in sorted(events)
        ],
    }  # fmt: skip


def worst_misses(result: StreamEvaluation, outcome: Outcome) -> list[tuple[int, float]]:
    """(number of the word, its keyword's largest score from its beginning until half a second after its end) of those
    missed by the most, the worst first."""
    frames = np.arange(len(result.scores)) * result.timing.hop + result.timing.length
    reach = result.recording.sample_rate // 2
    scored = []
    for number in outcome.misses:
        word = result.recording.words[number]
        first, last = np.searchsorted(frames, [word.start, word.end + reach])
        around = result.scores[first:last, word.keyword]
        scored.append((number, float(around.max()) if len(around) else -result.rule.limit))
    return sorted(scored, key=lambda pair: pair[1])[:WORST]


def _misses(result: StreamEvaluation) -> str:
    rows = []
    for number, score in worst_misses(result, result.chosen):
        word = result.recording.words[number]
        rows.append(_heard(result, word.end, f"{result.keywords[word.keyword]}, {word.condition}", score))
    return _listing("Worst misses", "Keywords whose score stayed lowest.", rows)


def _false_alarms(result: StreamEvaluation) -> str:
    pairs = sorted(
        zip(result.chosen.false_alarms, result.chosen.answered, strict=True), key=lambda pair: -pair[0].score
    )
    rows = []
    for peak, said in pairs[:WORST]:
        instead = "nobody spoke a keyword" if said is None else f"said was {result.keywords[said]}"
        text = f"{result.keywords[peak.keyword]}; {instead}"
        rows.append(_heard(result, result.timing.sample(peak.frame), text, peak.score))
    return _listing("Worst false alarms", "Detections of what nobody said, the surest first.", rows)


def _heard(result: StreamEvaluation, end: int, text: str, score: float) -> str:
    """A row with a player of the sound around the sample `end`."""
    rate = result.recording.sample_rate
    before, after = (round(seconds * rate) for seconds in CLIP)
    clip = result.recording.audio[max(0, end - before) : end + after]
    sound = base64.b64encode(wav_bytes(clip, rate)).decode()
    return (
        f'<tr><td><button data-time="{end / rate:.2f}">{end / rate:.1f} s</button></td><td>{html.escape(text)}</td>'
        f"<td>{score:.2f}</td>"
        f'<td><audio controls preload="none" src="data:audio/wav;base64,{sound}"></audio></td></tr>'
    )


def _listing(title: str, text: str, rows: list[str]) -> str:
    table = f"<table>{''.join(rows)}</table>" if rows else "<p>None.</p>"
    return f"<section><h2>{title}</h2><p>{text}</p>{table}</section>"


def _activity(result: StreamEvaluation) -> str:
    """Zero deltas by kind of section, and where the false alarms are."""
    alarms = Counter(result.false_alarms_by_section(result.chosen))
    counted = ", ".join(f"{kind} {count}" for kind, count in alarms.items() if count) or "none"
    chart = charts.at_both_widths(lambda width: charts.bars(result.sparsity, "var(--green)", width=width))
    return f"<section><h2>Deltas that are zero</h2><p>False alarms: {html.escape(counted)}.</p>{chart}</section>"


def _json(value: dict[str, Any]) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
