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
