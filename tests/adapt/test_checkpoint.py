"""Checkpoints of training: what a killed or damaged file gives."""

import pytest
import torch

from deltarnn.adapt.checkpoint import Checkpoint, CheckpointError


def test_one_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint(3, {"model": {"w": torch.randn(5, 3), "step": torch.tensor(2.0)}}, history=[{"loss": 0.5}]).save(
        path, "a"
    )
    assert Checkpoint.load(path, "a").history == [{"loss": 0.5}]
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"damaged \(its checksum differs\); delete"):
        Checkpoint.load(path, "a")


def test_one_that_is_cut_off_is_noticed(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint(3, {"model": {"w": torch.ones(2)}}).save(path, "a")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="damaged"):
        Checkpoint.load(path, "a")


def test_one_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": []}
    Checkpoint(3, {"model": {"w": torch.ones(2)}}, optimizer).save(path, "a")
    assert Checkpoint.load(path, "a").optimizer["state"][0]["step"] == 3
    with pytest.raises(CheckpointError, match="other settings"):
        Checkpoint.load(path, "b")
