"""
From nothing to a deployed delta network
========================================

Four words in synthetic voices, a small GRU, its delta network, and what each of its neurons does.
"""

# %%
# Train
# -----
# Each step is a command, as one types it in a shell: ``deltarnn prepare --dataset synth …``

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt

from deltarnn import convert, record_activity
from deltarnn.engine import Engine
from deltarnn.kws.features.store import load_features
from deltarnn.kws.network.decision import DecisionRule
from deltarnn.kws.network.model import load_keyword_model

work = Path(tempfile.mkdtemp())


def deltarnn(command: str) -> None:
    print(f"$ deltarnn {command}")
    done = subprocess.run([sys.executable, "-m", "deltarnn", *command.split()], capture_output=True, text=True)
    print(done.stdout or done.stderr)
    done.check_returncode()


common = f"--dataset synth --work_dir {work}"
training = f"{common} --preset demo --rnn_size 32"
dense_file, delta_file = work / "dense.safetensors", work / "delta.safetensors"

deltarnn(f"prepare {common} --keywords yes,no,stop,go --synth_scale 0.6")
deltarnn(f"feature {common} --cfg_feat feat_speech")
deltarnn(f"pretrain {training} --model_path {dense_file}")
deltarnn(f"retrain {training} --path_net_pretrain {dense_file} --model_path {delta_file}")

# %%
# Look
# ----
# One test clip through the network: a dot is a weight column that had to be read. Silence costs next to nothing.

model, header = load_keyword_model(delta_file)
features = next(work.glob("feat/synth/*/test.safetensors"))
test = load_features(features)
clip = int(np.flatnonzero(test.labels == test.class_names.index("yes"))[0])
frames = torch.from_numpy(test.normalised[clip][:, None].astype(np.float32))

with record_activity(model, events=True) as activity:
    model(frames)
fired_x, fired_h = (fired[:, 0].numpy() for fired in activity.events[0])

figure, (spectrum, inputs, hidden) = plt.subplots(3, 1, sharex=True, figsize=(7, 6), layout="constrained")
spectrum.imshow(test.normalised[clip].T, aspect="auto", origin="lower", interpolation="nearest")
spectrum.set(ylabel="filter", title=f"“yes”: {activity.sparsity:.0%} of all updates skipped")
for axes, fired, name in ((inputs, fired_x, "input"), (hidden, fired_h, "hidden unit")):
    step, unit = np.nonzero(fired)
    axes.plot(step, unit, ".", markersize=3, color="#0b6e99")
    axes.set(ylabel=name)
hidden.set_xlabel("frame of 16 ms")
plt.show()

# %%
# Thresholds trade accuracy for sparsity, without retraining as far as they go:

rule = DecisionRule(**header["decision"])
clips = torch.from_numpy(test.normalised.astype(np.float32)).transpose(0, 1)
points = []
for theta in (0.0, 0.1, 0.2, 0.3, 0.5, 0.8):
    model.to_delta((theta,), (theta,))
    with torch.no_grad(), record_activity(model) as activity:
        decided = rule(model(clips)[0]).numpy()
    points.append((activity.sparsity, float((decided == test.labels).mean()), theta))

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.plot([p[0] for p in points], [p[1] for p in points], "-o", color="#0b6e99")
for sparsity, accuracy, theta in points:
    axes.annotate(f"θ {theta:g}", (sparsity, accuracy), xytext=(4, 6), textcoords="offset points")
axes.set(xlabel="temporal sparsity", ylabel="accuracy on unheard voices")
plt.show()

# %%
# Convert a network of your own
# -----------------------------
# Every ``nn.GRU`` and ``nn.LSTM`` inside is replaced, the weights stay.

own = torch.nn.ModuleDict({"rnn": torch.nn.GRU(16, 64), "head": torch.nn.Linear(64, 3)})
slow = torch.randn(200, 1, 16).cumsum(0) * 0.05
before = own["head"](own["rnn"](slow)[0])
own = convert(own, thx=0.05, thh=0.05)
with torch.no_grad(), record_activity(own) as activity:
    after = own["head"](own["rnn"](slow)[0])
print(f"{activity.sparsity:.0%} skipped; the outputs moved by {(after - before).abs().max():.3f} at most")

# %%
# Deploy
# ------
# The model file is all that the engine needs; it does not import torch.

engine = Engine.load(delta_file)
for frame in test.normalised[clip].astype(np.float32):
    scores = engine.step(frame)
print(f"decided after the last frame: {header['labels'][int(np.argmax(scores))]}")

# %%
# The same clip on an accelerator, event by event, and as C for a microcontroller:

deltarnn(f"estimate {delta_file} --target deltarnn --features {features} --clips 20")
deltarnn(f"export {delta_file} --format c --features {features} --out {work / 'c'} --choose_formats 0.01")
