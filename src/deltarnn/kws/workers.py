"""Processes that share work in numpy, and end without a word when Ctrl-C ends the whole."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, resource_tracker
from typing import Any

from threadpoolctl import threadpool_limits


def processes(count: int) -> ProcessPoolExecutor:
    """A pool of `count` processes of one BLAS thread each: threads of its own in each would wait for one another."""
    return _Pool(count, get_context("spawn"), initializer=_one_thread)


@contextmanager
def quiet_start() -> Iterator[None]:
    """A process that is started in the block gets Ctrl-C, which a terminal sends to all, only when it has called
    `end_quietly`: before, and by itself, Python would print a traceback for each process."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else the first process starts it, and that lets signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_quietly() -> None:
    """Let Ctrl-C end this process as the system does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class _Pool(ProcessPoolExecutor):
    """It starts its processes as jobs come."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with quiet_start():
            return super().submit(fn, *args, **kwargs)


def _one_thread() -> None:
    end_quietly()
    import numpy  # noqa: F401, the limit is set to the libraries that are loaded

    threadpool_limits(1)
