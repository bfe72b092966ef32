"""One warmed-up process for all tests of faults."""

import sys

import pytest

from tests.faults.children import Children


@pytest.fixture(scope="session")
def children():
    if not sys.platform.startswith("linux"):
        pytest.skip("children are bounded and watched by Linux's means")
    with Children() as warm:
        yield warm
