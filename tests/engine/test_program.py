"""Programs of the native core: products on every instruction set, places, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.cases import ISAS, isa

from deltarnn import DeltaGRU
from deltarnn.engine import Engine
from deltarnn.engine.program import ProgramBuilder


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(ISAS),
    rows=st.integers(1, 21),
    inner=st.integers(1, 200),
    n=st.integers(1, 100),
    seed=st.integers(0, 99),
)
def test_products_equal_numpy(name: str, rows: int, inner: int, n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, weight, bias = (random.normal(size=shape).astype(np.float32) for shape in ((rows, inner), (inner, n), (n,)))
    b = ProgramBuilder()
    places = b.room(rows, inner)
    with isa(name):
        program = b.build([places], [b.linear(places, weight, bias)])
    y = np.full((rows, n), np.nan, np.float32)
    program.state([]).call([x], [y])
    np.testing.assert_allclose(y, x.astype(np.float64) @ weight + bias, rtol=0, atol=2e-6 * inner**0.5 + 1e-6)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_elementwise_functions_do_not_care_where_their_operands_are(data: st.DataObject, seed: int) -> None:
    b = ProgramBuilder()
    x = np.random.default_rng(seed).normal(size=(3, 4, 5)).astype(np.float32)
    value, places = x, b.room(3, 4, 5)
    inputs = places
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["transpose", "slice", "relu", "add", "constant", "sum"]))
        if kind == "transpose":
            order = data.draw(st.permutations(range(3)))
            places, value = places.transpose(order), value.transpose(order)
        elif kind == "slice":
            places, value = places[..., ::-1], value[..., ::-1]
        elif kind == "relu":
            places, value = b.apply("relu", places), np.maximum(value, 0)
        elif kind == "add":
            places, value = b.combine("add", places, places[:1]), value + value[:1]
        elif kind == "constant":
            c = np.arange(value.shape[2], dtype=np.float32)
            places, value = b.combine("multiply", b.constant(c), places), c * value
        else:
            places, value = b.reduce("mean", places, [1], keep=True), value.mean(axis=1, keepdims=True)
    y = np.empty(value.shape, np.float32)
    b.build([inputs], [places]).state([]).call([x], [y])
    np.testing.assert_allclose(y, value, rtol=1e-5, atol=1e-5)


def test_a_recurrent_instruction_goes_on_where_its_state_enters() -> None:
    engine = Engine.compile(DeltaGRU(3, 5, thx=0.1, thh=0.1))
    b = ProgramBuilder()
    x, h = b.room(4, 3), b.room(5)
    y, next_h, _ = b.step("key", x, 5, h, None, held=False)
    program = b.build([x, h], [y, next_h])
    stream = engine.stream()
    state = program.state([stream.native_stream])
    frames = np.random.default_rng(0).normal(0, 0.2, (12, 3)).cumsum(0).astype(np.float32)
    out, carried = np.empty((4, 5), np.float32), np.zeros(5, np.float32)
    got = []
    for chunk in np.split(frames, 3):
        state.call([chunk, carried], [out, carried])
        got.append(out.copy())
    np.testing.assert_array_equal(np.concatenate(got), engine.run(frames))
    assert stream.activity == engine.activity
    with pytest.raises(ValueError, match="does not fit its instruction"):
        program.state([Engine.compile(DeltaGRU(4, 5)).native_stream])
    with pytest.raises(ValueError, match="one stream for each"):
        program.state([])


def test_enter_goes_on_with_the_present_state_only() -> None:
    engine = Engine.compile(DeltaGRU(3, 5, thx=0.1, thh=0.1))
    h = np.zeros(5, np.float32)
    assert not engine.enter(h)
    frames = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    engine.run(frames)
    engine.hidden(h)
    np.testing.assert_array_equal(h, engine.state[0]["h"].astype(np.float32))
    assert engine.enter(h)
    held = engine.state
    assert engine.enter(h + 1, None, True)
    np.testing.assert_array_equal(engine.state[0]["x_hat"], held[0]["x_hat"])
    assert not engine.enter(h + 1)
    np.testing.assert_array_equal(engine.state[0]["x_hat"], 0)
    np.testing.assert_array_equal(engine.state[0]["h"].astype(np.float32), h + 1)
    assert engine.activity.per_layer[0].steps == 6
    with pytest.raises(ValueError, match="one row per layer"):
        engine.enter(np.zeros(4, np.float32))


def test_int8_states_enter_on_their_grid() -> None:
    engine = Engine.compile(DeltaGRU(3, 5), precision="int8")
    assert not engine.enter(np.full(5, 0.3, np.float32))
    h = np.empty(5, np.float32)
    engine.hidden(h)
    np.testing.assert_array_equal(h, np.float32(np.round(0.3 * 256) / 256))
    with pytest.raises(ValueError, match="the initial state holds NaN"):
        engine.enter(np.full(5, np.nan, np.float32))


def test_programs_that_point_outside_of_the_arena_are_refused() -> None:
    core = pytest.importorskip("deltarnn._native")
    arena = np.zeros(8, np.float32)

    def make(**fields: object) -> None:
        core.Program(arena, [fields], [np.array([7, 8], np.int32)], [], [], [], [])

    with pytest.raises(ValueError, match="outside of the arena"):
        make(operation="relu", to=4, a=0, n=5)
    core_list = np.array([7, 1], np.int32)
    with pytest.raises(ValueError, match="outside of the arena"):
        core.Program(arena, [{"operation": "gather", "to": 7, "resource": 0}], [core_list], [], [], [], [])
    with pytest.raises(ValueError, match="no such resource"):
        core.Program(arena, [{"operation": "linear", "to": 0, "n": 1, "rows": 1, "inner": 1}], [], [], [], [], [])
    with pytest.raises(ValueError, match="no operation is called swim"):
        core.Program(arena, [{"operation": "swim"}], [], [], [], [], [])
