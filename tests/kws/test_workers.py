"""Processes of the pool have one BLAS thread each, and end on Ctrl-C without a word."""

import os
import signal
import subprocess
import sys

import pytest
from threadpoolctl import threadpool_info

from deltarnn.kws.workers import processes, quiet_start


def blas_threads(_: int) -> list[int]:
    import numpy  # noqa: F401, its BLAS is what is asked for

    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_one_blas_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a process would take by itself, on any machine
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with processes(2) as pool:
        found = list(pool.map(blas_threads, range(2)))
    assert found == [[1]] * 2


WAITING = """
import os, signal, time
from deltarnn.kws.workers import processes, quiet_start
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in a shell's background lacks
    try:
        with processes(2) as pool:
            list(pool.map(time.sleep, [0.1] * 4))
            os.killpg(0, signal.SIGINT)  # as a terminal does
            time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
"""
BLOCKED = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
STARTING = f"""
from multiprocessing import resource_tracker
from deltarnn.kws.workers import quiet_start
with quiet_start():
    resource_tracker.ensure_running()  # as the first process does
    {BLOCKED}
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="a terminal sends no signals here")
def test_ctrl_c_ends_all_processes_without_a_word(tmp_path):
    (tmp_path / "work.py").write_text(WAITING)
    done = subprocess.run(
        [sys.executable, "work.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("interrupted\n", 0)
    assert "Traceback" not in done.stderr
    with quiet_start():
        assert subprocess.check_output([sys.executable, "-c", BLOCKED]) == b"True\n"
    assert subprocess.check_output([sys.executable, "-c", BLOCKED]) == b"False\n"
    assert subprocess.check_output([sys.executable, "-c", STARTING]) == b"True\n"
