"""Tasks in other processes: on this machine and on a Dask cluster, one of whose workers is killed in the middle."""

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from deltarnn.cli import main
from deltarnn.kws.commands.processes import on_cluster, on_this_machine, run_apart


class Task(NamedTuple):
    number: int
    folder: Path
    deadly: bool = False


def work(task: Task) -> None:
    """Leave a file that counts the runs of this task; of a deadly one, the first run kills its worker."""
    runs = task.folder / f"{task.number}.runs"
    with runs.open("a") as file:
        file.write("run\n")
    if task.deadly and len(runs.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    (task.folder / f"{task.number}.done").write_text("done")


def fail(task: Task) -> None:
    raise ValueError(f"task {task.number} cannot be done")


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread each, in processes of their own."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as local:
        yield local


def test_a_killed_worker_costs_no_point_and_repeats_none(cluster, tmp_path):
    tasks = [Task(number, tmp_path, deadly=number == 3) for number in range(8)]
    assert len(list(on_cluster(work, tasks, cluster.scheduler_address))) == 8
    assert {path.stem for path in tmp_path.glob("*.done")} == set(map(str, range(8)))
    runs = {number: len((tmp_path / f"{number}.runs").read_text().splitlines()) for number in range(8)}
    assert runs.pop(3) == 2
    assert max(runs.values()) <= 2  # one that was under way on the other worker's connection may run again
    assert sum(runs.values()) <= 8


def test_an_error_on_a_worker_is_the_users(cluster, tmp_path):
    with pytest.raises(ValueError, match=r"^task 0 cannot be done$"):
        list(on_cluster(fail, [Task(0, tmp_path)], cluster.scheduler_address))


def test_no_scheduler_is_one_sentence():
    pytest.importorskip("distributed")
    with pytest.raises(ConnectionError, match=r"--cluster nowhere: no Dask scheduler answers there .*dask scheduler"):
        list(on_cluster(work, [], "nowhere"))


def test_this_machine_does_every_task(tmp_path):
    assert len(list(on_this_machine(work, [Task(number, tmp_path) for number in range(5)], 2))) == 5
    assert len(list(tmp_path.glob("*.done"))) == 5


def test_a_command_apart_gives_its_error():
    with pytest.raises(ValueError, match=r"^'swep' is no command"):
        run_apart(["swep"])


def test_workers_and_cluster_exclude_each_other(capsys):
    assert main(["sweep", "model.safetensors", "--cluster", "tcp://127.0.0.1:1", "--workers", "1"]) == 1
    assert "--workers does nothing beside --cluster" in capsys.readouterr().err
