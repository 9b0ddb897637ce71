"""How a layer's recurrence is laid on a GPU: teams of blocks, the units and weights of each block, samples at a time.

The layout follows the layer and the GPU, so that a sample's sums have the same order whatever the batch is; how many
teams there are and how many samples each takes at a time follow the batch too, and change no result.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

Scope = Literal["block", "cluster", "grid"]
SCOPES: tuple[Scope, ...] = ("block", "cluster", "grid")
"""In the order of native/cuda/team.cuh."""

MOST_WARPS = 28
"""Of a block: with more, the kernels would have fewer registers than they need."""

MOST_CREWS = 15
"""Samples of a block, each with a barrier of its own: a block has 16, and one is for all."""

LIST_FLOATS = 72
"""Of a list of events, as in team.cuh."""

MOST_INPUTS = 64
"""That the forward kernel encodes and multiplies itself, a step ahead of the recurrence."""

CLUSTERS = (2, 4, 8)
"""Blocks of a cluster that every GPU of compute capability 9.0 and up can run."""


LEAST_SHARED = 1024
"""Bytes, for the sums that the last block of a pass makes."""


class GPU(NamedTuple):
    """What a plan depends on: multiprocessors, shared memory per block in bytes, 10 times the compute capability."""

    multiprocessors: int
    shared_bytes: int
    capability: int


class Plan(NamedTuple):
    """`teams` teams of `blocks` blocks, each with `units` of the units, `samples` at a time.

    parts: in which the columns are summed, on warps of their own if `spread`, else in turn. resident: the recurrent
    weights are in shared memory. input_parts: warps for the inputs, per 32 units; 0: the inputs are multiplied
    beforehand. inputs_resident: their weights are in shared memory too.
    """

    scope: Scope
    resident: bool
    blocks: int
    units: int
    samples: int
    parts: int
    spread: bool
    teams: int
    input_parts: int
    inputs_resident: bool
    shared_bytes: int

    @property
    def warps(self) -> int:
        """Of a block."""
        return _warps(self.units, self.samples, self.parts if self.spread else 0, self.input_parts)

    @property
    def description(self) -> str:
        """As `layer.backend_used` tells it."""
        if self.scope == "block":
            return "one block per sequence" if self.samples == 1 else f"one block per {self.samples} sequences"
        where = "" if self.resident else ", weights in memory"
        return f"{'clusters' if self.scope == 'cluster' else 'teams'} of {self.blocks} blocks{where}"

    def blocks_at_once(self, gpu: GPU) -> int:
        """Of one multiprocessor: as many as its shared memory holds, if that leaves a thread 56 registers."""
        by_memory = gpu.shared_bytes // (self.shared_bytes + 1024)
        return max(1, min(by_memory, 65536 // (56 * 32 * self.warps)))

    def blocks_together(self, gpu: GPU) -> int:
        """Of one multiprocessor: no more than there are, which then have more registers."""
        return min(self.blocks_at_once(gpu), -(-self.teams * self.blocks // gpu.multiprocessors))

    def load(self, gpu: GPU) -> tuple[int, int, int]:
        """What the time grows with: how many times over the blocks that run at once are needed, and how many samples
        the busiest multiprocessor then has; and if those are the same, how many copies of the weights."""
        turns = -(-self.teams // (self.blocks_at_once(gpu) * gpu.multiprocessors))
        return turns, -(-self.teams // gpu.multiprocessors) * self.samples, self.teams


@lru_cache(maxsize=1024)
def plan_for(gpu: GPU, backward: bool, gates: int, batch: int, inputs: int, hidden: int) -> Plan:
    """The layout of one pass over `batch` samples."""
    layer = _Layer(gpu, backward, gates, inputs, hidden)
    return layer.one_block(batch) or layer.cluster(batch) or layer.grid(batch)


def _chunks(units: int) -> int:
    return -(-units // 32)


def _warps(units: int, samples: int, helpers: int, input_parts: int) -> int:
    return _chunks(units) * samples * (1 + helpers + input_parts)


class _Layer(NamedTuple):
    gpu: GPU
    backward: bool
    gates: int
    inputs: int
    hidden: int

    def parts(self, scope: Scope) -> int:
        """Shares of the columns, whose sums are added up."""
        if scope == "grid":
            return 1
        if self.hidden > 128:
            return 8
        return 2 if scope == "block" and not self.backward else 4

    @property
    def input_parts(self) -> int:
        return _chunks(self.inputs) if self.inputs <= MOST_INPUTS and not self.backward else 0

    def one_block(self, batch: int) -> Plan | None:
        """Spread over many warps while every sample has a block running at once; else as many samples at once as
        there is room for."""
        alone = self._fitting("block", self.hidden, 1, batch, self.input_parts)
        if alone is None or batch <= self.gpu.multiprocessors * alone.blocks_at_once(self.gpu):
            return alone
        crowds = (self._crowd(samples, batch) for samples in range(1, MOST_CREWS + 1))
        return min((plan for plan in crowds if plan is not None), key=lambda plan: plan.load(self.gpu))

    def _crowd(self, samples: int, batch: int) -> Plan | None:
        if _warps(self.hidden, samples, 0, self.input_parts) > MOST_WARPS:
            return None
        for inputs_resident in (True, False) if self.input_parts else (False,):
            plan = self._plan(
                *("block", True, self.hidden, samples, -(-batch // samples), self.input_parts, inputs_resident, False)
            )
            if plan.shared_bytes <= self.gpu.shared_bytes:
                return plan
        return None

    def cluster(self, batch: int) -> Plan | None:
        if self.gpu.capability < 90:
            return None
        for size in CLUSTERS:
            units = 32 * _chunks(-(-self.hidden // size))
            if -(-self.hidden // units) != size:
                continue
            wanted = -(-batch // max(1, self.gpu.multiprocessors // size))
            plan = self._fitting("cluster", units, wanted, batch, self.input_parts)
            if plan is not None:
                return plan
        return None

    def grid(self, batch: int) -> Plan:
        """As many teams as the GPU has room for at once; where the weights do not fit at all, one that reads them from
        memory."""
        for least in range(1, min(self.gpu.multiprocessors, self.hidden) + 1):
            if self._plan("grid", True, -(-self.hidden // least), 1, 1).shared_bytes > self.gpu.shared_bytes:
                continue
            teams = min(batch, self.gpu.multiprocessors // least)
            units = -(-self.hidden // (self.gpu.multiprocessors // teams))
            plan = self._fitting("grid", units, -(-batch // teams), teams)
            if plan is not None:
                return plan
        units = 32 * _chunks(-(-self.hidden // self.gpu.multiprocessors))
        return self._plan("grid", False, units, max(1, self._most_samples("grid", units, batch)), 1)

    def _most_samples(self, scope: Scope, units: int, wanted: int, input_parts: int = 0) -> int:
        return min(wanted, MOST_WARPS // _warps(units, 1, self.parts(scope) if scope != "grid" else 0, input_parts))

    def _fitting(self, scope: Scope, units: int, wanted: int, teams: int, input_parts: int = 0) -> Plan | None:
        """The plan with the most samples at a time, up to those wanted, that fits; inputs' weights too if they do."""
        for inputs_resident in (True, False) if input_parts else (False,):
            for samples in range(self._most_samples(scope, units, wanted, input_parts), 0, -1):
                count = teams if scope == "grid" else -(-teams // samples)
                plan = self._plan(scope, True, units, samples, count, input_parts, inputs_resident)
                if plan.shared_bytes <= self.gpu.shared_bytes:
                    return plan
        return None

    def _plan(
        self,
        scope: Scope,
        resident: bool,
        units: int,
        samples: int,
        teams: int,
        input_parts: int = 0,
        inputs_resident: bool = False,
        spread: bool = True,
    ) -> Plan:
        width, odd, blocks = 32 * _chunks(units), self.gates * units | 1, -(-self.hidden // units)
        parts, rows = self.parts(scope), self.gates * self.hidden
        spread = spread and scope != "grid"
        alone = scope != "grid"  # what a team tells each other goes through shared memory
        if self.backward:
            floats = units * (rows | 1) * resident + 2 * samples * rows * alone + samples * (width + 33 * (width // 32))
        else:
            lists = 2 * samples * _chunks(self.hidden) if alone else samples * (width // 32)
            floats = _aligned(self.hidden * odd) * resident + _aligned(self.inputs * odd) * inputs_resident
            floats += LIST_FLOATS * (lists + input_parts * samples * (width // 32)) + lists * alone
            floats += samples * self.gates * width * (parts * spread + 2 * input_parts)
        shared = max(4 * floats, LEAST_SHARED)
        return Plan(scope, resident, blocks, units, samples, parts, spread, teams, input_parts, inputs_resident, shared)


def _aligned(floats: int) -> int:
    return -(-floats // 4) * 4
