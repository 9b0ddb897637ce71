"""The options of training on made-up recordings instead of single clips."""

from dataclasses import dataclass
from typing import Any

from deltarnn.kws.config.option import TRAIN, option


def _streams(config: Any) -> bool:
    return bool(config.stream.stream_minutes > 0)


def _stream() -> dict[str, Any]:
    return {"steps": TRAIN, "needs": ("--stream_minutes above 0", _streams)}


@dataclass(frozen=True)
class StreamConfig:
    """Made-up recordings of training clips, sentences and noise (docs/streams.md)."""

    stream_minutes: float = option(
        0.0,
        "train on made-up recordings, state carried, of this many minutes in all for each of --aug_versions; 0: on "
        "single clips",
        minimum=0,
        maximum=10000,
        steps=TRAIN,
    )
    stream_chunk: int = option(125, "frames between two training steps", minimum=2, maximum=10000, **_stream())
    stream_fresh: float = option(
        0.0, "share of the recordings that begin from a fresh state at every training step, as single clips do",
        minimum=0, maximum=1, **_stream(),
    )  # fmt: skip
    stream_readings: int = option(
        120,
        "half minutes of sentences without a keyword, read by synthetic voices",
        minimum=0,
        maximum=10000,
        **_stream(),
    )
