"""The program's own folder below the home folder, and what libraries are made to keep in it."""

import os

import pytest

from tracklearn.store import cache


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """What a test sets goes with it."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    for variable in ("MPLCONFIGDIR", "NUMBA_CACHE_DIR"):
        os.environ.pop(variable, None)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path
    monkeypatch.delenv("TRACKLEARN_CACHE")
    for platform, part in (("linux", "xdg"), ("darwin", "Library"), ("win32", "appdata")):
        monkeypatch.setattr(cache.sys, "platform", platform)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "appdata"))
        assert part in str(cache.cache_folder())
        assert "tracklearn" in str(cache.cache_folder())


def test_drawing_keeps_its_fonts_in_the_programs_own_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path))
    cache.keep_home_clean()
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "matplotlib")
    assert list(tmp_path.iterdir()) == []


def test_what_the_user_chose_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("MPLCONFIGDIR", "mine")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "mine too")
    cache.keep_home_clean(tmp_path / "no such package")
    assert (os.environ["MPLCONFIGDIR"], os.environ["NUMBA_CACHE_DIR"]) == ("mine", "mine too")


def test_kernels_stay_beside_a_package_that_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("TRACKLEARN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "core" / "kernels").mkdir(parents=True)
    cache.keep_home_clean(tmp_path)
    assert "NUMBA_CACHE_DIR" not in os.environ
    # Root may write anywhere, so the package is not there instead of not to be written.
    cache.keep_home_clean(tmp_path / "elsewhere")
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "cache" / "numba")
