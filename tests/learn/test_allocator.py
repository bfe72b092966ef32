"""Keeping freed memory: what glibc is asked for, and that it does it."""

import ctypes
import platform
import subprocess
import sys

import pytest

from tracklearn.learn import allocator

MB = 1 << 20


class Library:
    """A C library that takes pieces up to `largest` from the heap, and notes what it is asked."""

    def __init__(self, largest):
        self.largest, self.asked = largest, []

    def mallopt(self, parameter, value):
        self.asked.append((parameter, value))
        return parameter == -1 or value <= self.largest


@pytest.fixture
def asked(monkeypatch):
    """The function that runs `keep_freed` on a library and returns what was asked of it."""
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)

    def run(library):
        monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
        allocator.keep_freed.__wrapped__()
        return getattr(library, "asked", None)

    return run


def test_new_and_old_glibc(asked):
    assert asked(Library(1 << 40)) == [(-1, 1024 * MB), (-3, 256 * MB)]
    assert asked(Library(32 * MB)) == [(-1, 1024 * MB), (-3, 256 * MB), (-3, 32 * MB)]


def test_another_c_library_is_left_alone(asked):
    assert asked(object()) is None


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_the_users_own_setting_stays(asked, monkeypatch, name):
    monkeypatch.setenv(name, "131072")
    assert asked(Library(1 << 40)) == []


def test_other_systems_are_left_alone(asked, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert asked(Library(1 << 40)) == []


FAULTS = """
import resource, sys
import numpy as np
from tracklearn.learn import allocator
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(24 << 20, np.uint8), np.ones(24 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
allocator.keep_freed()
faults()
print(first, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc is meant")
def test_memory_is_used_again_without_page_faults(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < 20
    assert before > after
