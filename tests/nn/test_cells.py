"""DeltaGRUCell and DeltaLSTMCell: a step at a time, what a layer computes; and the dense cells' places in models."""

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from tests.layers import CELLS, guarded, smooth_input
from torch import nn

from deltarnn import DeltaGRUCell, DeltaGRUState, DeltaLSTMCell, Quantization, convert, record_activity
from deltarnn.engine import Engine

DELTA = {"GRU": DeltaGRUCell, "LSTM": DeltaLSTMCell}
DENSE = {"GRU": nn.GRUCell, "LSTM": nn.LSTMCell}
BOTH = pytest.mark.parametrize("kind", ["GRU", "LSTM"])
FORMS = [
    ("GRU", {}),
    ("LSTM", {}),
    ("GRU", {"reset_after": False, "candidate": "relu"}),
    ("GRU", {"hard_activations": True}),
    ("LSTM", {"bias": False}),
    ("LSTM", {"quantization": Quantization(), "thx": 0.25, "thh": 0.125}),
]


class Decoder(nn.Module):
    """A cell as models use it: dense states in the model's own hands."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.cell, self.head = kind, DENSE[kind](4, 6), nn.Linear(6, 2)

    def forward(self, x, reshape=lambda h: h):
        h = None
        outputs = []
        for frame in x:
            h = self.cell(frame, h)
            h = reshape(h) if self.kind == "GRU" else (reshape(h[0]), h[1])
            outputs.append(self.head(h if self.kind == "GRU" else h[0]))
        return torch.stack(outputs)


@pytest.mark.parametrize(("kind", "options"), FORMS)
def test_steps_are_the_layer(kind, options):
    torch.manual_seed(0)
    options = {"thx": 0.2, "thh": 0.1, "backend": "eager", **options}
    layer, cell = CELLS[kind](4, 6, **options).eval(), DELTA[kind](4, 6, **options).eval()
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = smooth_input(15, 3, 4, seed=1, dtype=torch.float32)
    assert options.keys() != {"thx", "thh", "backend"} or guarded(layer, x)
    with record_activity(nn.ModuleList([layer, cell]), events=True) as activity:
        y, (expected,) = layer(x, layer.initial_state(3))
        state = cell.initial_state(3)
        for frame, output in zip(x, y, strict=True):
            state = cell(frame, state)
            assert torch.allclose(state.h.float(), output, atol=1e-6)
    assert isinstance(state, layer.state_type)
    for actual, part in zip(state, expected, strict=True):
        assert torch.allclose(actual, part, atol=1e-5)
    of_layer, of_cell = activity.per_layer
    assert (of_layer.name, of_cell.name) == ("0.l0", "1")
    assert of_cell.effective_sparsity == of_layer.effective_sparsity > 0.1
    assert all(map(torch.equal, of_cell.events, of_layer.events))


@BOTH
def test_a_dense_state_or_none_starts_one(kind):
    torch.manual_seed(0)
    dense, cell = DENSE[kind](4, 6), DELTA[kind](4, 6)
    cell.load_state_dict(dense.state_dict())
    h, c = torch.randn(2, 3, 6)
    frame = torch.randn(3, 4)
    given = h if kind == "GRU" else (h, c)
    expected = dense(frame, given)
    state = cell(frame, given)
    assert isinstance(state, cell.state_type)
    assert torch.allclose(state.h, expected if kind == "GRU" else expected[0], atol=1e-6)
    expected = dense(frame) if kind == "GRU" else dense(frame)[0]
    for start in (cell(frame), cell(frame, cell.initial_state(3))):
        assert torch.allclose(start.h, expected, atol=1e-6)
    assert torch.allclose(cell(frame[0]).h, expected[0], atol=1e-6)
    single = cell(frame[0], cell(frame[0]))
    assert single.x_hat.shape == (4,)
    assert torch.allclose(single.h, cell(frame, cell(frame)).h[0], atol=1e-6)


@BOTH
def test_a_converted_cell_serves_the_models_own_code(kind):
    torch.manual_seed(0)
    dense = Decoder(kind)
    delta = convert(copy.deepcopy(dense))
    assert type(delta.cell) is DELTA[kind]
    x = smooth_input(20, 3, 4, dtype=torch.float32)
    assert torch.allclose(delta(x), dense(x), atol=1e-6)
    delta(x).sum().backward()
    dense(x).sum().backward()
    for actual, expected in zip(delta.parameters(), dense.parameters(), strict=True):
        assert torch.allclose(actual.grad, expected.grad, rtol=1e-4, atol=1e-5)
    copy.deepcopy(delta)


@BOTH
@pytest.mark.parametrize("reshape", [lambda h: h, torch.clone, torch.detach, lambda h: torch.stack([h, h])[1]])
def test_its_delta_memory_continues_whatever_became_of_the_tensor(kind, reshape):
    torch.manual_seed(0)
    model = convert(Decoder(kind), thx=0.2, thh=0.1)
    x = smooth_input(20, 3, 4, seed=2, dtype=torch.float32)
    with record_activity(model) as activity, warnings.catch_warnings():
        warnings.simplefilter("error")
        y = model(x, reshape)
    cell, state, expected = model.cell, None, []
    cell.dense_states = False
    with record_activity(model) as wanted:
        for frame in x:
            state = cell(frame, state)
            expected.append(model.head(state.h))
    assert torch.allclose(y, torch.stack(expected), atol=1e-6)
    assert activity.sparsity == pytest.approx(wanted.sparsity, abs=1e-3)
    y.sum().backward()


def test_a_state_of_unknown_origin_starts_anew_and_says_so():
    model = convert(Decoder("GRU"), thx=0.2, thh=0.1)
    with pytest.warns(UserWarning, match="DeltaGRUCell: h is not what the last step returned, again"):
        model(torch.randn(3, 1, 4), lambda h: h * 0.5)
    cell = convert(Decoder("GRU"), thx=0.2, thh=0.1).cell
    with warnings.catch_warnings():  # a decoder that begins with an encoder's h, and goes on from there
        warnings.simplefilter("error")
        for start in torch.randn(2, 2, 6):
            h = start
            for frame in torch.randn(3, 2, 4):
                h = cell(frame, h)
    dense = convert(Decoder("GRU"))  # θ = 0: nothing would be skipped anyway
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dense(torch.randn(3, 1, 4), lambda h: h * 0.5)


def test_a_compiled_cell_carries_its_state():
    cell = convert(nn.GRUCell(4, 6), thx=0.2)
    compiled = torch.compile(cell, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"cell.dense_states = False"):
        compiled(torch.zeros(1, 4), torch.zeros(1, 6))


def test_thresholds_by_name():
    model = nn.ModuleDict({"rnn": nn.LSTM(4, 4, 2), "cell": nn.GRUCell(4, 4), "other": nn.GRU(4, 4)})
    convert(model, thx=0.5, thresholds={"rnn": [(0.1, 0.2), (0.3, 0.4)], "cell": (0.1, 0.0)})
    assert (model["rnn"].thx, model["rnn"].thh) == ((0.1, 0.3), (0.2, 0.4))
    assert (model["cell"].thx, model["cell"].thh) == ((0.1,), (0.0,))
    assert (model["other"].thx, model["other"].thh) == ((0.5,), (0.0,))
    convert(model, thresholds={"rnn": 0.25, "other": [0.1, 0.2]})  # delta modules by now
    assert model["rnn"].thh == (0.25, 0.25)
    assert (model["cell"].thx, model["other"].thx) == ((0.1,), (0.1,))
    with pytest.raises(ValueError, match=r"thresholds names 'rn', which is no recurrent module: 'rnn'"):
        convert(nn.ModuleDict({"rnn": nn.GRU(2, 2)}), thresholds={"rn": 0.1})
    with pytest.raises(ValueError, match=r"thresholds\['rnn'\] is \(1, 2, 3\): must be a number, a pair"):
        convert(nn.ModuleDict({"rnn": nn.GRU(2, 2)}), thresholds={"rnn": (1, 2, 3)})


@BOTH
def test_the_engine_takes_a_cell(kind):
    torch.manual_seed(0)
    cell = DELTA[kind](4, 6, thx=0.2, thh=0.1, backend="eager")
    engine, state = Engine.compile(cell), None
    for frame in smooth_input(20, 1, 4, seed=5, dtype=torch.float32):
        with torch.no_grad():
            state = cell(frame, state)
        np.testing.assert_allclose(engine.step(frame[0]), state.h[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DeltaGRUCell(4, 6)(torch.zeros(2, 1, 4)), ValueError, r"input is \(2, 1, 4\): a cell takes one step"),
        (lambda: DeltaGRUCell(4, 6)(torch.zeros(1, 5)), ValueError, "input has 5 features: this cell takes"),
        (lambda: DeltaGRUCell(4, 6)(torch.zeros(1, 4), torch.zeros(1, 5)), ValueError, r"h has shape \(1, 5\)"),
        (lambda: DeltaLSTMCell(4, 6)(torch.zeros(1, 4), torch.zeros(1, 6)), TypeError, r"must be \(h, c\)"),
        (
            lambda: DeltaLSTMCell(4, 6)(torch.zeros(1, 4), DeltaGRUCell(4, 6).initial_state(1)),
            TypeError,
            "the state is a DeltaGRUState: must be DeltaLSTMState",
        ),
        (
            lambda: DeltaGRUCell(4, 6)(torch.zeros(2, 4), DeltaGRUCell(4, 6).initial_state(1)),
            ValueError,
            r"x_hat of the state has shape \(1, 4\): needs \(2, 4\)",
        ),
        (lambda: DeltaGRUCell(4, 6, thx=-1), ValueError, "thx=-1"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 5, 2, batch_first=True, bidirectional=True)
        self.cell = nn.LSTMCell(10, 4)

    def forward(self, x):
        return self.cell(self.rnn(x)[0][:, 0])[0]


def loaded(module):
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_modules_are_read():
    torch.manual_seed(0)
    holder = Holder().eval()
    x = torch.randn(2, 7, 3)
    script = loaded(torch.jit.script(holder))
    rebuilt = Holder()
    rebuilt.rnn, rebuilt.cell = (convert(dict(script.named_modules())[name]) for name in ("rnn", "cell"))
    assert torch.allclose(rebuilt(x), holder(x), atol=1e-6)
    assert rebuilt.rnn.weight_ih_l0.data_ptr() == script.rnn.weight_ih_l0.data_ptr()
    assert not rebuilt.rnn.training
    mixed = Holder()
    mixed.rnn, mixed.cell = torch.jit.script(holder.rnn), torch.jit.trace(holder.cell, torch.randn(2, 10))
    assert torch.allclose(convert(mixed)(x), holder(x), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("compiled", "message"),
    [
        (
            lambda m, x: nn.ModuleDict({"net": torch.jit.script(m)}),
            r"net \(Holder in TorchScript\).* net.rnn, net.cell",
        ),
        (lambda m, x: torch.jit.trace(m, x), r"the module \(Holder in TorchScript\) has recurrent modules inside, rnn"),
        (lambda m, x: torch.jit.freeze(torch.jit.script(m)), "weights are frozen into its code"),
        (lambda m, x: torch.jit.trace(m.rnn, x), r"nn.GRU\(input_size=3, .*bidirectional=True.* batch_first=…\)"),
    ],
)
def test_torchscript_that_cannot_be_changed_says_what_to_build(compiled, message):
    with pytest.raises(ValueError, match=message):
        convert(compiled(Holder().eval(), torch.randn(2, 7, 3)))


def test_a_state_is_plain_data():
    state = DeltaGRUCell(4, 6)(torch.zeros(2, 4))
    assert isinstance(state, DeltaGRUState)
    assert state._replace(h=state.h * 0).h.abs().max() == 0
