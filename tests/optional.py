"""Optional libraries in tests: skipped where they are absent, imported by the door that keeps them quiet."""

import importlib.util
from typing import Any

import pytest

from tracklearn.store import runtimes


def needs(name: str) -> Any:
    """The module `name`, its telemetry off; the test is skipped without it."""
    root = name.partition(".")[0]
    if importlib.util.find_spec(root) is None:
        pytest.skip(f"{root} is not installed")
    return runtimes.load(name)
