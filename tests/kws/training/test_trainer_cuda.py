"""Training on a GPU (pytest -m cuda): as on the CPU, and without waiting for the GPU within an epoch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from deltarnn.adapt.checkpoint import cpu_generator
from deltarnn.kws.features.masking import Mask
from deltarnn.kws.features.sequences import Sequences, Version
from deltarnn.kws.features.versions import VersionedClips
from deltarnn.kws.network.losses import LossOptions
from deltarnn.kws.network.model import Architecture, KeywordModel
from deltarnn.kws.training.finishing import Finisher
from deltarnn.kws.training.schedule import LearningRate
from deltarnn.kws.training.trainer import Plan, Trainer, TrainingSet

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

ARCHITECTURE = Architecture(input_size=6, classes=4, hidden_size=20, num_layers=2)


def clips() -> VersionedClips:
    versions, taught = torch.randn(2, 64, 30, 6, dtype=torch.float32), torch.randn(2, 64, 4)
    return VersionedClips(versions, torch.arange(64) % 4, Mask(3, 2), taught)


def sequences() -> Sequences:
    targets = torch.randint(-1, 4, (90, 16)).to(torch.int8)
    return Sequences([Version(torch.randn(90, 16, 6), targets, torch.randn(90, 16, 4))], 30, Mask(3, 2))


def trainer(folder: Path, device: str, material: TrainingSet, delta: bool) -> Trainer:
    torch.manual_seed(0)
    model = KeywordModel(ARCHITECTURE).to_delta() if delta else KeywordModel(ARCHITECTURE)
    fabric = Fabric(accelerator=device, devices=1)
    fabric.launch()
    streams = isinstance(material, Sequences)
    plan = Plan(
        epochs=1,
        batch_size=16,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        rate=lambda steps: LearningRate(0.01, 0.001, steps, "cosine"),
        loss=LossOptions(target="word" if streams else "clip", teacher_weight=0.5, focus=1.0, tell_silence=0.3),
        class_weights=None if streams else torch.ones(4),
        beta=0.01 if delta else 0.0,
        gradient_limit=1.0,
        average=0.9,
        thx=(0.3,),
        thh=(0.1,),
        threshold_warmup=0.5,
        carry_state=0.0 if streams else 0.5,
        stream_fresh=0.3 if streams else 0.0,
    )
    return Trainer(fabric, model, material.to(fabric.device), plan, lambda _: {}, Finisher(), folder / device, "",
                   lambda *_: None)  # fmt: skip


@pytest.mark.parametrize("material", [clips, sequences])
@pytest.mark.parametrize("delta", [False, True])
def test_no_step_waits_for_the_gpu(tmp_path, monkeypatch, material, delta):
    run = trainer(tmp_path, "cuda", material(), delta)
    step = run._step

    def watched(*arguments):
        torch.cuda.set_sync_debug_mode("error" if arguments[0] else "default")  # kernels are compiled in the first
        try:
            return step(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(run, "_step", watched)
    run.fit()
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())


@pytest.mark.parametrize("material", [clips, sequences])
def test_a_step_is_what_it_is_on_the_cpu(tmp_path, material):
    """One step on the same batch, but for rounding."""
    made, weights = material(), []
    for device in ("cpu", "cuda"):
        run = trainer(tmp_path, device, made, delta=True)
        batch = next(iter(made.batches(16, cpu_generator(1), cpu_generator(2))))
        tensors = {name: part.to(device) for name, part in vars(batch).items() if isinstance(part, torch.Tensor)}
        run.plan = replace(run.plan, threshold_warmup=0.0)
        run._step(0, replace(batch, **tensors), torch.Generator(device).manual_seed(0))
        weights.append(torch.nn.utils.parameters_to_vector(run.model.parameters()).cpu())
    assert torch.allclose(*weights, atol=2e-4)
