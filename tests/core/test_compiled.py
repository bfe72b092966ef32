"""Kernels where nothing can be kept: a read-only package, no home, a full disk."""

import errno
import os
import warnings

import numpy as np
import pytest

from tracklearn.core.kernels import compiled


def add(a, b):
    return a + b


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    monkeypatch.setattr(compiled, "_told", False)


def test_without_a_place_kernels_work_and_that_is_said_once(monkeypatch):
    from numba.core import caching

    def none(*_):
        return None

    for locator in caching.CacheImpl._locator_classes:
        monkeypatch.setattr(locator, "from_function", none)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kernel = compiled.kernel()(add)
        compiled.kernel()(lambda a: a)
    assert ["NUMBA_CACHE_DIR" in str(each.message) for each in told] == [True]
    assert kernel(np.int64(2), np.int64(3)) == 5


def test_a_full_disk_costs_what_was_to_be_kept_and_nothing_else(monkeypatch, tmp_path):
    from numba.core import caching

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    kernel = compiled.kernel()(add)
    with pytest.warns(RuntimeWarning, match=r"No space left.*NUMBA_CACHE_DIR"):
        assert kernel(2.0, 3.0) == 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel(np.float32(2), np.float32(3)) == 5


def test_other_refusals_of_the_compiler_are_not_hidden(monkeypatch):
    def refuse(**_):
        raise RuntimeError("no such target")

    monkeypatch.setattr(compiled, "njit", refuse)
    with pytest.raises(RuntimeError, match="no such target"):
        compiled.kernel()(add)
