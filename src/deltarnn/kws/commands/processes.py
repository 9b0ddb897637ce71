"""Commands in processes of their own: on this machine, or on the workers of a Dask cluster."""

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

RETRIES = 3
"""How often a task goes to another worker after one that died."""


def run_apart(arguments: list[str]) -> None:
    """Run `deltarnn` with these arguments in a new process. ValueError with the last line of its error."""
    command = [sys.executable, "-m", "deltarnn", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"its process ended with status {done.returncode}"]
        raise ValueError(lines[-1].removeprefix("error: "))


def on_this_machine(work: Callable[..., None], tasks: Iterable[Any], workers: int) -> Iterator[None]:
    """`work(task)` for every task, `workers` at a time; an item for each that is done."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(work, tasks)


def on_cluster(work: Callable[..., None], tasks: Iterable[Any], address: str) -> Iterator[None]:
    """`work(task)` for every task on the workers of a Dask scheduler; an item for each, as it is done.

    `work` and the tasks travel by pickle. A task whose worker dies is given to another.

    Raises
    ------
    ModuleNotFoundError, ConnectionError
        If dask.distributed is not installed; if no scheduler answers at `address`, or every worker died over a task.
    """
    try:
        from distributed import Client, KilledWorker, as_completed
    except ModuleNotFoundError:
        raise ModuleNotFoundError("--cluster needs dask.distributed: pip install 'deltarnn[cluster]'") from None
    try:
        client = Client(address, timeout="20s")
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"--cluster {address}: no Dask scheduler answers there ({type(error).__name__}); start one with "
            "`dask scheduler`, and `dask worker ADDRESS --nthreads 1` on every machine"
        ) from None
    with client:
        futures = client.map(work, list(tasks), pure=False, retries=RETRIES)
        try:
            for future in as_completed(futures):
                future.result()
                yield
        except KilledWorker as error:
            raise ConnectionError(f"--cluster {address}: {error}") from None
        finally:
            client.cancel(futures)
