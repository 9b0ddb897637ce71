"""Every golden run of a layer: outputs, states, regulariser, counts and gradients."""

from pathlib import Path

import pytest
import torch
from tests.layers import golden_files, golden_layer, relative_error

from deltarnn import record_activity

FILES = golden_files()


def test_the_golden_files_are_there():
    assert len(FILES) == 30


@pytest.mark.parametrize("backend", ["eager", "auto"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path, backend: str):
    layer, arrays, meta = golden_layer(path, backend=backend)
    tolerance = 0 if meta["qa"] else 1e-5
    x = torch.from_numpy(arrays["x"]).requires_grad_("grad_y" in arrays)
    with record_activity(layer) as activity:
        y, states = layer(x, layer.initial_state(meta["B"]))

    assert relative_error(y, arrays["y"]) <= tolerance
    assert relative_error(activity.l1_delta_h, arrays["reg"]) <= tolerance
    for index, state in enumerate(states):
        hidden = meta["hidden_size"]
        expected = {name: arrays[f"state.{name}"][index] for name in ("h", "h_hat")}
        expected["x_hat"] = arrays["state.x_hat"][index][:, : state.x_hat.shape[1]]
        parts = state._asdict()
        if meta["kind"] == "GRU":
            parts["m"], parts["m_nh"] = state.m[:, : 3 * hidden], state.m[:, 3 * hidden :]
            expected["m_nh"] = arrays["state.m_nh"][index]
        else:
            expected["c"] = arrays["state.c"][index]
        expected["m"] = arrays["state.m"][index]
        assert parts.keys() == expected.keys()
        for name, value in expected.items():
            assert relative_error(parts[name], value) <= tolerance, (index, name)

    calls = [call for entry in activity.per_layer for call in entry.calls]
    counts = sum(call.counts for call in calls).tolist()
    assert counts == [meta[f"num_d{name}"] for name in ("x_zeros", "h_zeros", "x_numel", "h_numel")]
    assert activity.sparsity_h == meta["num_dh_zeros"] / meta["num_dh_numel"]

    if "grad_y" in arrays:
        loss = (y * torch.from_numpy(arrays["grad_y"])).sum() + meta["beta"] * activity.l1_delta_h
        loss.backward()
        tolerance *= 2  # their long sums are in the order of the machine's BLAS
        assert relative_error(x.grad, arrays["grad.x"]) <= tolerance
        for name, parameter in layer.named_parameters():
            assert relative_error(parameter.grad, arrays[f"grad.param.{name}"]) <= tolerance, name
