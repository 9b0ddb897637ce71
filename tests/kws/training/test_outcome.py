"""What a training step reports of its model."""

import torch

from deltarnn.fixed import QFormat, Quantization
from deltarnn.kws.network.model import Architecture, KeywordModel
from deltarnn.kws.training.outcome import accumulator_bits


def test_accumulator_bits_hold_the_worst_case():
    """|M| ≤ 1.5·4 + 0.25 at inputs in [−4, 4): 6.25·2⁵·2⁷ = 25600 takes 15 bits and a sign."""
    formats = Quantization(QFormat(3, 5), QFormat(1, 7), QFormat(2, 6))
    model = KeywordModel(Architecture(1, 3, hidden_size=1)).to_delta(quantization=formats)
    with torch.no_grad():
        for parameter in model.rnn.parameters():
            parameter.zero_()
        model.rnn.weight_ih_l0[1] = -0.75
        model.rnn.weight_hh_l0[1] = 0.75
        model.rnn.bias_ih_l0[1] = 0.25
    assert accumulator_bits(model) == 16
