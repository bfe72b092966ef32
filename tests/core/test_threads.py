"""Work on several threads, with one BLAS thread in each."""

import os
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tracklearn.core.threads import SPIN, each, each_span, limit, n_threads, wait_briefly


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


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPIN)}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
    ],
)
def test_threads_wait_briefly_unless_the_user_says_otherwise(monkeypatch, given, found):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    for name in names:
        monkeypatch.setenv(name, "")  # so that what the call sets is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    assert {name: os.environ[name] for name in names if name in os.environ} == found


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 4, 11])
def test_spans_make_up_the_range(threads, n):
    found = []
    with limit(threads):
        each_span(lambda first, end: found.append((first, end)), n)
    assert len(found) == min(threads, n)
    assert sorted(i for first, end in found for i in range(first, end)) == list(range(n))


@pytest.mark.parametrize(("n", "lengths"), [(0, []), (5, [5]), (19, [9, 10]), (64, [16, 16, 16, 16])])
def test_no_span_is_shorter_than_the_least(n, lengths):
    found = []
    with limit(4):
        each_span(lambda first, end: found.append(end - first), n, least=8 if n < 64 else 16)
    assert sorted(found) == lengths


def test_spans_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    with limit(2):
        each_span(lambda first, end: meeting.wait(), 7)


@pytest.mark.parametrize("bad", [0, 2])
def test_an_error_in_a_span_is_raised_after_all_are_done(bad):
    done = []

    def work(first, end):
        if first == bad:
            raise ValueError("broken")
        done.append(first)

    with limit(3), pytest.raises(ValueError, match="broken"):
        each_span(work, 3)
    assert sorted(done) == [i for i in range(3) if i != bad]
