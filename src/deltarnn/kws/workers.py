"""Processes that share work in numpy."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from threadpoolctl import threadpool_limits


def processes(count: int) -> ProcessPoolExecutor:
    """A pool of `count` processes of one BLAS thread each: threads of its own in each would wait for one another."""
    return ProcessPoolExecutor(count, get_context("spawn"), initializer=_one_thread)


def _one_thread() -> None:
    import numpy  # noqa: F401, the limit is set to the libraries that are loaded

    threadpool_limits(1)
