"""Work on several threads, with one BLAS thread in each."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tracklearn.core.threads import each, limit, n_threads


def blas_threads():
    """Threads of the BLAS that numpy multiplies with; other libraries bring their own."""
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in pools if "numpy" in pool["filepath"] or len(pools) == 1}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_the_order_of_the_items(threads):
    with limit(threads):
        assert each(lambda i: i * i, range(20)) == [i * i for i in range(20)]
        assert each(lambda i: i, []) == []


def test_items_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    with limit(2):
        assert sorted(each(lambda _: meeting.wait(), range(2))) == [0, 1]


@pytest.mark.parametrize("threads", [1, 2])
def test_blas_works_on_one_thread_meanwhile(threads):
    np.ones((2, 2)) @ np.ones((2, 2))  # loaded by now
    before = blas_threads()
    assert before
    with limit(threads):
        assert each(lambda _: blas_threads(), range(3)) == [{1}] * 3
    assert blas_threads() == before


def test_the_first_error_comes_out_and_the_rest_is_left(monkeypatch):
    done = []

    def work(i):
        if i == 1:
            raise KeyError("one")
        done.append(i)

    before = blas_threads()
    with limit(1), pytest.raises(KeyError, match="one"):
        each(work, range(9))
    assert done == [0]
    with limit(2), pytest.raises(KeyError, match="one"):
        each(work, range(9))
    assert blas_threads() == before


def test_number_of_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert n_threads() == 3
    with limit(7):
        assert n_threads() == 7
        with limit(2):
            assert n_threads() == 2
    assert n_threads() == 3
    for unusable in ("", "0", "many"):
        monkeypatch.setenv("OMP_NUM_THREADS", unusable)
        assert n_threads() >= 1
    with pytest.raises(ValueError, match="n is 0"), limit(0):
        pass
