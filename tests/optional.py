"""Optional libraries in tests: skipped where they are absent, imported by the door that keeps them quiet."""

import importlib.util
from typing import Any

import pytest

from tracklearn import runtimes


def has(name: str) -> None:
    """Skip the test without the library `name`, and leave its import to the program."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def needs(name: str) -> Any:
    """The module `name`, its telemetry off; the test is skipped without it."""
    has(name.partition(".")[0])
    return runtimes.load(name)
