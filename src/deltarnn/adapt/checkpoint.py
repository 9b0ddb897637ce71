"""Checkpoints of training: safetensors, JSON and a checksum, from which a killed run goes on exactly.

Every random choice of an epoch is drawn from generators seeded by (seed, epoch), so no generator's state is part of a
checkpoint: parameters, averaged parameters, optimiser, schedule, history and the best epoch so far are all there is.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deltarnn.stored import DamagedFileError, load_stored, save_stored

_KEY = "training"
_UNSIGNED = ("identity", "epoch", "groups", "numbers", "schedule", "history", "best_epoch")
"""Fields of files of version 0.1.0, which had no checksum."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, with the reason and the remedy."""


@dataclass
class Checkpoint:
    """State after `epoch` whole epochs.

    tensors: named groups of tensors ("model", "averaged", "best"). optimizer: as of Optimizer.state_dict. schedule:
    JSON values. history: one row per epoch. best_epoch: index of the best row, −1 for none yet.
    """

    epoch: int = 0
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1

    def save(self, path: Path, identity: str) -> None:
        """Write to `path`; `identity` stands for the settings that must be the same to go on."""
        flat = {
            f"{group}/{name}": t.detach().cpu().contiguous()
            for group, g in self.tensors.items()
            for name, t in g.items()
        }
        numbers: dict[str, dict[str, Any]] = {}
        for index, entry in self.optimizer.get("state", {}).items():
            for name, value in entry.items():
                if isinstance(value, Tensor):
                    flat[f"optimizer/{index}/{name}"] = value.detach().cpu().contiguous()
                elif value is not None:
                    numbers.setdefault(str(index), {})[name] = value
        record = {
            "identity": identity,
            "epoch": self.epoch,
            "groups": self.optimizer.get("param_groups", []),
            "numbers": numbers,
            "schedule": self.schedule,
            "history": self.history,
            "best_epoch": self.best_epoch,
        }
        save_stored(path, _KEY, {name: tensor.numpy() for name, tensor in flat.items()}, record)

    @classmethod
    def load(cls, path: Path, identity: str) -> "Checkpoint":
        """Read `path`. CheckpointError if it is damaged or belongs to other settings."""
        remedy = f"delete {path.parent} to train anew"
        try:
            arrays, record = load_stored(path, _KEY, _UNSIGNED)
            if record["identity"] != identity:
                raise CheckpointError(f"{path}: made with other settings or features; {remedy}")
            return cls._from(record, {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
        except DamagedFileError as error:
            raise CheckpointError(f"{error}; {remedy}") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged ({error!r} in its record); {remedy}") from None

    @classmethod
    def _from(cls, record: dict[str, Any], flat: dict[str, Tensor]) -> "Checkpoint":
        tensors: dict[str, dict[str, Tensor]] = {}
        state: dict[int, dict[str, Any]] = {int(index): dict(v) for index, v in record["numbers"].items()}
        for key, tensor in flat.items():
            group, _, name = key.partition("/")
            if group == "optimizer":
                index, _, name = name.partition("/")
                state.setdefault(int(index), {})[name] = tensor
            else:
                tensors.setdefault(group, {})[name] = tensor
        return cls(
            record["epoch"],
            tensors,
            {"state": state, "param_groups": record["groups"]},
            record["schedule"],
            record["history"],
            record["best_epoch"],
        )


def cpu_generator(*keys: int) -> torch.Generator:
    """A generator for one purpose of one epoch, from whole numbers such as (seed, epoch, rank)."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1))
