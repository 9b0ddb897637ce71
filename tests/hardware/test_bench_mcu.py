"""`deltarnn bench --what mcu`: the same network at its thresholds and at 0, on every core."""

import numpy as np
import pytest

from deltarnn import cli
from deltarnn.bench import mcu
from deltarnn.bench.workload import random_changes
from deltarnn.fixed.parameters import NetworkParameters
from deltarnn.hardware import cortex_m
from deltarnn.nn import DeltaGRU

needs_embedded = pytest.mark.skipif(not cortex_m.available(), reason=cortex_m.MISSING)


@needs_embedded
def test_every_core_runs_both_and_the_table_says_what_they_took():
    model = NetworkParameters.of(DeltaGRU(16, 8, thx=0.25, thh=0.25))
    frames = random_changes(40, 16, 0.9).astype(np.float64)
    sparsity, compared = mcu.compare(model, frames)
    assert list(compared) == list(cortex_m.CPUS)
    assert 0.85 < sparsity < 1
    text = mcu.table(sparsity, compared)
    for cpu, both in compared.items():
        assert both.dense.instructions.std() < 0.01 * both.dense.mean  # the same work whatever moves
        assert both.ratio == both.dense.mean / both.delta.mean
        assert f"| {cpu} | its thresholds | {both.delta.flash} | {both.delta.state} + {both.delta.stack} |" in text
    assert compared["cortex-m4"].dense.mean < compared["cortex-m0plus"].dense.mean  # dual multiply-accumulates


def test_a_model_without_features_is_refused(tmp_path, capsys):
    assert cli.main(["bench", "--what", "mcu", "--model", "m.safetensors", "--output", str(tmp_path)]) == 1
    assert "--model and --data go together" in capsys.readouterr().err
