"""The detector "auto": a trained one of free use that the hub's cache has whole, else motion."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.optional import needs
from tests.store.test_detect import _hub_model

from tracklearn import runtimes
from tracklearn.store.detect import hub_cache
from tracklearn.store.detect.detector import open_detector, resolve
from tracklearn.store.detect.motion import MotionDetector
from tracklearn.store.film.video_writer import VideoWriter
from tracklearn.store.ingest.ingest import Config, ingest
from tracklearn.store.ingest.request import Request
from tracklearn.store.sets.tracklets import open_set

FREE = "PekingU/rtdetr_v2_r18vd"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and transformers as if it were installed."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(runtimes, "installed", lambda name: True)
    return tmp_path / "hub"


def put(cache, name, files=("config.json", "preprocessor_config.json", "model.safetensors"), revision="abc"):
    """A repository in the cache as the hub's library lays it out: files are links to blobs."""
    folder = cache / "--".join(["models", *name.split("/")])
    for part in ("refs", "blobs", f"snapshots/{revision}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    for file in files:
        (folder / "blobs" / file).write_text("{}")
        (folder / "snapshots" / revision / file).symlink_to(Path("..") / ".." / "blobs" / file)
    return folder / "snapshots" / revision


def test_without_a_cache_it_is_motion(cache):
    assert resolve("auto")[0] == "motion"
    assert "no trained detector" in resolve("auto")[1]
    assert isinstance(open_detector("auto"), MotionDetector)
    assert resolve("hog") == ("hog", "")


def test_a_free_detector_that_is_cached_is_taken_and_the_first_of_several(cache):
    found = put(cache, FREE)
    assert hub_cache.snapshot(FREE) == found
    assert resolve("auto") == (f"hub:{FREE}", "cached on this machine; --detector motion goes without")
    put(cache, "facebook/detr-resnet-50")
    assert resolve("auto")[0] == f"hub:{FREE}"
    put(cache, "ustc-community/dfine-small-coco")
    assert resolve("auto")[0] == "hub:ustc-community/dfine-small-coco"


def test_what_is_not_known_to_be_free_is_left_alone(cache):
    put(cache, "somebody/agpl-detector")
    put(cache, "google/owlv2-base-patch16")
    assert resolve("auto")[0] == "motion"


def test_names_of_free_detectors_are_repositories_and_each_once():
    assert len(set(hub_cache.PERMISSIVE)) == len(hub_cache.PERMISSIVE) > 20
    assert all(name.count("/") == 1 and name.isascii() for name in hub_cache.PERMISSIVE)


@pytest.mark.parametrize("harm", ["a file is missing", "a link leads nowhere", "no main", "main is no name"])
def test_an_interrupted_download_is_none(cache, harm):
    snapshot = put(cache, FREE)
    folder = snapshot.parent.parent
    if harm == "a file is missing":
        (snapshot / "preprocessor_config.json").unlink()
    elif harm == "a link leads nowhere":
        (folder / "blobs" / "model.safetensors").unlink()
    elif harm == "no main":
        (folder / "refs" / "main").unlink()
    else:
        (folder / "refs" / "main").write_bytes(b"\xff\xfe")
    assert hub_cache.snapshot(FREE) is None
    assert resolve("auto")[0] == "motion"


def test_names_that_no_file_could_have_are_not_cached(cache):
    assert hub_cache.snapshot("a\0b") is None
    assert hub_cache.snapshot("/" + 400 * "x") is None


def test_where_its_library_is_missing_it_says_what_to_install(cache, monkeypatch):
    put(cache, FREE)
    monkeypatch.setattr(runtimes, "installed", lambda name: False)
    spec, why = resolve("auto")
    assert spec == "motion"
    assert why == f'{FREE} is cached, but what runs it is not installed: pip install "tracklearn[hub]"'


def test_the_cache_lies_where_the_hubs_library_has_it(tmp_path, monkeypatch):
    names = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hub_cache.cache_folder() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub_cache.cache_folder() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "~/h")
    assert hub_cache.cache_folder() == tmp_path / "h" / "hub"
    monkeypatch.setenv("HUGGINGFACE_HUB_CACHE", "$HOME/old")
    assert hub_cache.cache_folder() == tmp_path / "old"
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert hub_cache.cache_folder() == Path("/c")


def test_looking_loads_no_library_whatever_it_finds(cache):
    put(cache, FREE)
    code = (
        "import sys\nfrom tracklearn.store.detect.detector import resolve\nresolve('auto')\n"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_library_is_installed_or_not_without_being_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not runtimes.installed("openvino")
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.delitem(sys.modules, "ray", raising=False)  # another test may have loaded it
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()
    assert not runtimes.installed("ray")


def test_a_cached_detector_is_opened_from_the_cache_without_a_network(cache):
    needs("transformers")
    _hub_model(put(cache, FREE, files=()), "rt_detr_v2")
    detector = open_detector("auto", threshold=0.1)
    assert detector.name == f"hub:{FREE}"
    assert len(detector(np.zeros((64, 96, 3), np.uint8), 0)[0]) > 0


# --- ingest -------------------------------------------------------------------------------------------


@pytest.fixture
def film(tmp_path):
    """A person who walks before a grey wall."""
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "hall.mp4", width=160, height=120, fps=10) as writer:
        for i in range(60):
            image = np.full((120, 160, 3), 120, np.uint8) + rng.integers(0, 4, (120, 160, 1), np.uint8)
            if i > 12:
                x = 2 * (i - 12)
                image[30:45, x + 8 : x + 16] = (200, 160, 140)
                image[45:70, x : x + 24] = (220, 30, 30)
                image[70:100, x + 3 : x + 21] = (30, 30, 60)
            writer.write(image)
    return tmp_path / "hall.mp4"


def test_a_set_names_the_detector_that_was_chosen(cache, film, tmp_path):
    told = []
    path = ingest([film], tmp_path / "set", tell=told.append)
    assert told == ["detector motion ({})".format(resolve("auto")[1])]
    manifest = open_set(path).manifest
    assert manifest["settings"]["detector"] == "motion"
    assert manifest["sources"][0]["detector"] == "motion"
    named = Request([film], Config(detector="motion"))
    assert Request([film]).digest == named.digest
    assert (named.chosen, named.config.detector) == ("", "motion")
    assert ingest([film], path, resume=True) == path
    # What has come into the cache since makes another set of the same call, and that is said.
    put(cache, FREE)
    with pytest.raises(FileExistsError, match="was not made from these sources and settings"):
        ingest([film], path, resume=True)
    assert ingest([film], path, config=Config(detector="motion"), resume=True) == path


def test_where_nobody_is_to_be_found_nothing_is_chosen(cache, film, tmp_path):
    results = tmp_path / "r.txt"
    results.write_text("".join(f"{i},1,{2 * i},30,24,70,1\n" for i in range(1, 40)))
    source = f"{results}+{film}"
    before = Request([source])
    put(cache, FREE)
    after = Request([source])
    assert (before.digest, before.chosen) == (after.digest, "")
    assert after.config.detector == "auto"


def test_a_set_tells_how_tall_people_are_or_that_it_is_not_known(cache, film, tmp_path):
    source = open_set(ingest([film], tmp_path / "set")).manifest["sources"][0]
    law = source["size_law"]
    assert law["offset"] + law["slope"] * 100 == pytest.approx(70, rel=0.08)
    assert law["share"] > 0.9
    assert "warnings" not in source
    short = open_set(ingest([film], tmp_path / "short", config=Config(stride=4, min_length=3)))
    source = short.manifest["sources"][0]
    assert source["size_law"] is None
    assert "could not learn how tall people are" in source["warnings"][0]
