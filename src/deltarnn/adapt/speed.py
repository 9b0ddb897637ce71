"""How long a network takes on this machine, before and after its thresholds were set."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROUNDS = 7
SECONDS = 2.0
"""Rounds, at most; no further one begins after this time."""


@dataclass(frozen=True)
class Speed:
    """Seconds for one item of the data, the quickest of several rounds, of the dense and of the tuned network."""

    dense_seconds: float
    seconds: float

    @property
    def ratio(self) -> float:
        """How many times as fast the tuned network is."""
        return self.dense_seconds / self.seconds

    def __str__(self) -> str:
        return (
            f"on this machine one item takes {1e3 * self.seconds:.3g} ms, dense {1e3 * self.dense_seconds:.3g} ms: "
            f"{self.ratio:.2f} times as fast"
        )


def compare(dense: Callable[[], Any], tuned: Callable[[], Any], prepare: Callable[[bool], None]) -> Speed:
    """Time both in turn, so that whatever else the machine does meets both.

    prepare: called before each run, untimed, with whether the tuned network is next.
    """
    best = {False: math.inf, True: math.inf}
    start = time.perf_counter()
    for number in range(ROUNDS + 1):
        for is_tuned, function in ((False, dense), (True, tuned)):
            prepare(is_tuned)
            begin = time.perf_counter()
            function()
            if number:  # the first round fills caches
                best[is_tuned] = min(best[is_tuned], time.perf_counter() - begin)
        if number and time.perf_counter() - start > SECONDS:
            break
    return Speed(best[False], best[True])
