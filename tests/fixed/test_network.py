"""Whole quantised models: reading, rounding, the dense head, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from deltarnn import DeltaGRU, DeltaLSTM, QFormat, Quantization
from deltarnn.fixed.network import IntegerDense, IntegerNetwork, fitting_format
from deltarnn.fixed.parameters import DenseWeights, NetworkParameters, UnsupportedModelError


class Classifier(nn.Module):
    """What a keyword model looks like: a delta layer and a dense head."""

    def __init__(self, cell=DeltaGRU, **options):
        super().__init__()
        torch.manual_seed(0)
        self.rnn = cell(5, 16, 2, **{"thx": 0.125, "thh": 0.0625} | options)
        self.head = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 4))

    def forward(self, x):
        return self.head(self.rnn(x)[0])


@pytest.mark.parametrize("cell", [DeltaGRU, DeltaLSTM])
def test_layers_stack_as_in_the_torch_module(cell):
    module = cell(5, 16, 3, thx=0.125, thh=(0.0, 0.0625, 0.25), quantization=Quantization(), backend="eager").eval()
    x = torch.randn(30, 4, 5)
    with torch.no_grad():
        expected = module(x)[0].numpy()
    network = IntegerNetwork.convert(module)
    run = network.run(x.numpy())
    assert np.array_equal(network.to_float(run.output), expected)
    assert np.array_equal(network.run(x.numpy()[:, 2]).output, run.output[:, 2:3])


def test_scores_approach_those_of_the_float_model_as_bits_are_added():
    model = Classifier(thx=0, thh=0).eval()  # near a threshold two roundings may decide differently
    x = torch.randn(40, 3, 5)
    with torch.no_grad():
        expected = model(x).numpy()
    errors = []
    for bits in (5, 8, 11):
        formats = Quantization(QFormat(4, bits), QFormat(1, bits + 2), QFormat(2, bits + 1))
        network = IntegerNetwork.convert(model, formats)
        errors.append(np.abs(network.to_float(network.run(x.numpy()).output) - expected).max())
    assert errors[0] > 3 * errors[1]
    assert errors[1] > 3 * errors[2]
    assert errors[2] < 2e-3


def test_the_dense_layer_is_exact():
    rng = np.random.default_rng(0)
    q = Quantization()
    dense = DenseWeights(rng.normal(size=(3, 7)), rng.normal(size=3), "relu")
    integer = IntegerDense.quantize(dense, q)
    a = rng.integers(-128, 128, (10, 7))
    weight, bias = integer.weight_format.quantize(dense.weight), np.rint(dense.bias * 2.0**integer.fraction_bits)
    real = np.maximum(q.activation.to_float(a) @ weight.T + bias * 2.0**-integer.fraction_bits, 0)
    assert np.array_equal(q.activation.to_float(integer(a)), q.activation.quantize(real))


def test_notes_say_what_was_rounded():
    notes = IntegerNetwork.convert(Classifier(thx=0.1)).notes
    assert notes == tuple(f"thx of layer {layer} rounded from 0.1 to 0.09375 (Q3.5)" for layer in (0, 1))


def test_saturated_inputs_are_counted():
    x = np.zeros((10, 5))
    x[0, 0], x[1, 1] = 4.0, -5.0  # Q3.5 holds −4 to 3.97
    assert IntegerNetwork.convert(Classifier()).run(x).saturated_inputs == 2 / 50


def test_a_model_without_bias_starts_its_memories_at_zero():
    module = DeltaGRU(3, 4, bias=False, quantization=Quantization(), backend="eager").eval()
    network = IntegerNetwork.convert(module)
    assert not network.layers[0].memory.any()
    x = torch.randn(5, 1, 3)
    assert np.array_equal(network.to_float(network.run(x.numpy()).output), module(x)[0].detach().numpy())


def test_weights_that_the_format_cannot_hold_are_refused():
    module = DeltaGRU(2, 3, thx=0.125)
    with torch.no_grad():
        module.weight_hh_l0[4, 1] = -1.75
    with pytest.raises(UnsupportedModelError, match=r"weight_hh_l0 reaches -1.75: Q1.7 holds -1 to 0.992188"):
        IntegerNetwork.convert(module)
    IntegerNetwork.convert(module, Quantization(weight=QFormat(2, 6)))
    module.quantization = Quantization()  # trained with clipped weights: clipping is the model's own function
    assert IntegerNetwork.convert(module).layers[0].weight_hh.min() == -128
    with torch.no_grad():
        module.quantization = None
        module.weight_hh_l0[4, 1] = 0
        module.bias_ih_l0[0] = module.bias_hh_l0[0] = 0.75
    with pytest.raises(UnsupportedModelError, match=r"b_ih \+ b_hh\) of layer 0 reaches 1.5"):
        IntegerNetwork.convert(module)


def test_accumulators_that_could_overflow_are_refused():
    module = DeltaGRU(1100, 4, quantization=Quantization(QFormat(8, 8), QFormat(1, 7), QFormat(2, 4)))
    with torch.no_grad():
        module.weight_ih_l0.fill_(-1)
    with pytest.raises(
        UnsupportedModelError, match=r"accumulators of layer 0 can reach 46\d+: 32 bits hold 2147483647"
    ):
        IntegerNetwork.convert(module)


def test_models_that_are_no_delta_networks_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"GRU has no thresholds: convert it first"):
        NetworkParameters.of(nn.GRU(2, 3))
    with pytest.raises(UnsupportedModelError, match="Linear is not a delta layer"):
        NetworkParameters.of(nn.Linear(2, 3))
    with pytest.raises(UnsupportedModelError, match="bidirectional"):
        NetworkParameters.of(DeltaGRU(2, 3, bidirectional=True))
    with pytest.raises(UnsupportedModelError, match="proj_size=2"):
        NetworkParameters.of(DeltaLSTM(2, 3, proj_size=2))
    model = Classifier()
    model.head.append(nn.Sigmoid())
    with pytest.raises(UnsupportedModelError, match="Sigmoid"):
        NetworkParameters.of(model)


@pytest.mark.parametrize("quantization", [None, Quantization(rounding="floor")])
def test_a_model_file_reads_as_the_module_does(tmp_path, quantization):
    from deltarnn.engine.model_file import load_model, read_quantization, save_model, write_quantization

    model = Classifier(DeltaLSTM, quantization=quantization)
    head = [{"in": 16, "out": 8, "activation": "relu"}, {"in": 8, "out": 4, "activation": None}]
    sizes = {"cell": "LSTM", "input_size": 5, "hidden_size": 16, "num_layers": 2, "proj_size": 0}
    options = {"bias": True, "bidirectional": False, "hard_activations": False, "head": head}
    header = {"format": 1, "architecture": sizes | options, "thx": [0.125] * 2, "thh": [0.0625] * 2}
    header["quantization"] = write_quantization(quantization)
    save_model(tmp_path / "model", {k: v.detach().numpy() for k, v in model.state_dict().items()}, header)
    tensors, header = load_model(tmp_path / "model")
    read = NetworkParameters.from_model_file(tensors, header, read_quantization(header))
    x = np.random.default_rng(0).normal(size=(20, 5))
    assert np.array_equal(IntegerNetwork.convert(read).run(x).output, IntegerNetwork.convert(model).run(x).output)


def test_fitting_formats_hold_their_values():
    assert fitting_format(np.array([0.99, -1.0]), 8) == QFormat(1, 7)
    assert fitting_format(np.array([1.2]), 8) == QFormat(2, 6)
    assert fitting_format(np.array([-9.0]), 8) == QFormat(5, 3)
    with pytest.raises(UnsupportedModelError, match="reach 1000"):
        fitting_format(np.array([1000.0]), 8)
