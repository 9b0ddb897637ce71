"""Processes of the pool have one BLAS thread each."""

from threadpoolctl import threadpool_info

from deltarnn.kws.workers import processes


def blas_threads(_: int) -> list[int]:
    import numpy  # noqa: F401, its BLAS is what is asked for

    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_one_blas_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a process would take by itself, on any machine
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    with processes(2) as pool:
        found = list(pool.map(blas_threads, range(2)))
    assert found == [[1]] * 2
