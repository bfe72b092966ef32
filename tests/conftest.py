"""Shared fixtures: where the real material lies, and the rules that keep tests offline."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time where a chance failure would cost work; elsewhere they are drawn anew.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Set before any import of a library that would look at them: nothing may reach for the network in tests.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# And what happens to lie in this machine's cache is no input of a test: "auto" would choose it.
os.environ["HF_HUB_CACHE"] = os.path.join(tempfile.gettempdir(), "tracklearn-tests-have-no-hub-cache")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of real videos, tracker results and weights; the test is skipped where it is absent."""
    folder = Path(os.environ.get("TRACKLEARN_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real material not found at {folder}: set TRACKLEARN_TEST_DATA")
    return folder
