"""Automatic choice of formats: it meets its budget, spends no bit it need not, and reports what is true."""

import numpy as np
import pytest
import torch
from torch import nn

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization
from deltarnn.fixed.choice import choose_formats
from deltarnn.fixed.float_network import run_float
from deltarnn.fixed.network import IntegerNetwork
from deltarnn.fixed.parameters import NetworkParameters, UnsupportedModelError


class Classifier(nn.Module):
    def __init__(self, cell):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = cell(4, 12, 2, thx=0.1, thh=0.1)
        self.head = nn.Sequential(nn.Linear(12, 3, bias=False))
        with torch.no_grad():
            for parameter in self.rnn.parameters():
                parameter.mul_(3)  # so that the classes really depend on the input


def calibration(steps=30, batch=8):
    return np.random.default_rng(0).normal(size=(steps, batch, 4)).cumsum(axis=0) * 0.3


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
def test_the_float_reference_is_the_torch_layer(cell, hard):
    module = cell(4, 12, 2, thx=0.1, thh=0.05, hard_activations=hard, dtype=torch.float64).eval()
    x = calibration()
    with torch.no_grad():
        expected = module(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(run_float(NetworkParameters.of(module), x).output, expected, atol=1e-12)


@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
def test_the_choice_meets_its_budget_and_a_larger_budget_costs_no_more_bits(cell):
    model, x = Classifier(cell), calibration()
    decided = run_float(NetworkParameters.of(model), x).output.argmax(axis=-1)
    bits = []
    for budget in (0.05, 0.1, 0.3):
        choice = choose_formats(model, x, budget=budget)
        output = IntegerNetwork.convert(model, choice.quantization).run(x).output
        assert (output.argmax(axis=-1) == decided).mean() == choice.score >= 1 - budget
        q = choice.quantization
        bits.append(q.activation.bits + q.weight.bits + q.gate.bits)
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[-1]


def test_every_format_is_as_narrow_as_its_budget_allows():
    """Where nothing had to be given back, one bit less of any format misses the budget."""
    model, x = Classifier(DeltaGRU), calibration()
    choice = choose_formats(model, x, budget=0.05)
    chosen = choice.quantization
    decided = run_float(NetworkParameters.of(model), x).output.argmax(axis=-1)

    def score(**change):
        formats = Quantization(**{n: getattr(chosen, n) for n in ("activation", "weight", "gate")} | change)
        return (IntegerNetwork.convert(model, formats).run(x).output.argmax(axis=-1) == decided).mean()

    assert score() >= 0.95
    for part in ("activation", "weight", "gate"):
        fmt = getattr(chosen, part)
        points = range(1, fmt.bits - 3) if part == "activation" else [fmt.integer_bits]  # θ takes 3 fraction bits
        assert max(score(**{part: QFormat(m, fmt.bits - 1 - m)}) for m in points) < 0.95


def test_a_given_score_is_what_counts():
    model, x = Classifier(DeltaGRU), calibration()
    seen = []

    def score(output):
        seen.append(output.shape)
        return 0.5  # whatever the formats: nothing is lost, so the narrowest of all will do

    choice = choose_formats(model, x, score=score, budget=0.0)
    assert set(seen) == {(30, 8, 3)}
    assert choice.score == choice.float_score == 0.5
    q = choice.quantization
    # θ = 0.1 must not round to 0, which takes 3 fraction bits; weights and gates are free.
    assert (q.activation.bits, q.weight.bits, q.gate.bits) == (4, 2, 2)
    assert q.activation.fraction_bits == 3


def test_the_report_gives_range_and_error_of_every_signal():
    model, x = Classifier(DeltaLSTM), calibration()
    choice = choose_formats(model, x, budget=0.05)
    signals = {s.name: s for s in choice.signals}
    assert len(signals) == 2 + 3 * 2  # input, weights; hidden state, cell state, pre-activations of each layer
    entry, fmt = signals["input"], choice.quantization.activation
    assert (entry.minimum, entry.maximum, entry.format) == (x.min(), x.max(), fmt)
    assert entry.rms_error == pytest.approx(np.sqrt(np.mean((fmt.quantize(x) - x) ** 2)))
    assert entry.saturated == np.mean((x < fmt.min - fmt.step) | (x > fmt.max + fmt.step))
    assert all(name in str(choice) for name in signals)
    assert str(choice.quantization.weight) in str(choice)


def test_a_bare_layer_is_scored_by_its_error():
    module = DeltaGRU(4, 12, thx=0.1, thh=0.1)
    choice = choose_formats(module, calibration(), budget=0.05)
    assert 0.95 <= choice.score < 1
    with torch.no_grad():
        module.weight_ih_l0[0, 0] = 3.0
    assert choose_formats(module, calibration(), budget=0.05).quantization.weight.integer_bits == 3


def test_impossible_requests_are_refused():
    model, x = Classifier(DeltaLSTM), calibration()
    with pytest.raises(UnsupportedModelError, match=r"best formats of up to 5 bits score 0.\d+.*budget than 0"):
        choose_formats(model, x, budget=0.0, max_bits=5)
    with pytest.raises(ValueError, match="max_bits=17: must lie between 4 and 16"):
        choose_formats(model, x, max_bits=17)
    with pytest.raises(ValueError, match="budget=-1"):
        choose_formats(model, x, budget=-1)
