"""Many clients of one gallery at once, counted by what they ask, not by time: nothing wrong, nothing lost."""

import numpy as np
import pytest
from benchmarks.gallery import K, content, like_a_network
from benchmarks.gallery_load import Told, mixed, searching

from tracklearn.store.gallery import segment
from tracklearn.store.gallery.folder import FolderGallery
from tracklearn.store.gallery.open import create_gallery

pytestmark = pytest.mark.slow


@pytest.fixture
def material(tmp_path):
    features, queries = like_a_network(6000, 32, 12)
    assert len(features) > segment.CODED, "8-bit rows are read"
    create_gallery(tmp_path / "gallery", [content(features)], origin={}).close()
    return tmp_path / "gallery", features, queries


def test_twenty_clients_find_what_brute_force_finds(material):
    path, features, queries = material
    with FolderGallery(path) as opened:
        told = searching(opened, features, queries, 20, lambda done: done < 40)
    assert told.hits == 800 * K
    assert (told.wrong, told.failed, len(told.waits["search"])) == (0, [], 800)


def test_fifty_clients_lose_no_decision(material):
    path, features, queries = material
    told = mixed(path, features, queries, lambda done: done < 24)
    assert (told.wrong, told.lost, told.failed) == (0, 0, [])
    assert {kind: len(own) for kind, own in told.waits.items()} == {
        "search": 41 * 18,
        "who is who": 41 * 6,
        "review": 8 * 24,
        "write": 24,
    }
    with FolderGallery(path) as after:
        assert len(after) == len(features)
        assert after.damages() == []
        assert len(after.people.steps()) == 8 * 24


def test_what_is_wrong_is_counted(material):
    path, features, queries = material
    other = np.roll(features, 1, axis=0)
    with FolderGallery(path) as opened:
        assert searching(opened, other, queries, 2, lambda done: done < 2).wrong == 4
    told = Told()
    told.took("search", 0.1, right=False)
    assert told.rows() == [["search", 1, "100.0", "100.0", "100.0"]]
