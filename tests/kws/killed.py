"""A training run that is killed and started again, beside one that is left alone."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import torch

from deltarnn.kws.network.model import load_keyword_model


def check_it_goes_on(folder: Path, work: Path, arguments: list[str]) -> None:
    """`deltarnn ARGUMENTS` in copies of a work folder: killed after its second epoch and run again, it gives the same
    model and the same history as in one go, and does not begin anew."""
    command = [sys.executable, "-c", "import sys; from deltarnn.cli import main; sys.exit(main())", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONUNBUFFERED", None)  # a line is to be there when its epoch ends, in a pipe too
    results = []
    for name in ("whole", "killed"):
        here = [*command, "--work_dir", str(shutil.copytree(work, folder / name))]
        if name == "killed":
            process = subprocess.Popen(here, stdout=subprocess.PIPE, text=True, env=environment)
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("epoch 2/"):
                    process.send_signal(signal.SIGKILL)
                    break
            assert process.wait() == -signal.SIGKILL
        done = subprocess.run(here, capture_output=True, text=True, env=environment, check=True)
        assert ("epoch 1/" in done.stdout) == (name == "whole")
        path = Path(done.stdout.strip().splitlines()[-1])
        history = path.parents[3] / "log" / path.parents[1].name / path.parent.name / "history.csv"
        rows = [row.rsplit(",", 1)[0] for row in history.read_text().splitlines()]  # all but the seconds
        results.append((load_keyword_model(path.with_name("model.safetensors"))[0].state_dict(), rows))
    (whole, rows), (killed, other_rows) = results
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert rows == other_rows
