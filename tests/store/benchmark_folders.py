"""What tests of the benchmark readers share: small images and scores to judge them by."""

import numpy as np

from tracklearn.core import rank
from tracklearn.store.picture.crops import encode_jpeg

COLOURS = np.random.default_rng(0).integers(0, 256, (64, 3))


def picture(seed):
    return np.broadcast_to(COLOURS[seed % 64], (16, 8, 3)).astype(np.uint8)


def touch(root, names):
    """A small JPEG under each name, of another colour each."""
    for i, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_jpeg(picture(i)))


def random_scores(benchmark, protocol, d=8, seed=0):
    features = np.random.default_rng(seed).normal(size=(len(benchmark.test.tracklets), d)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return score(benchmark, features, protocol)


def score(benchmark, features, protocol=None):
    query, gallery, test = benchmark.query, benchmark.gallery, benchmark.test
    return rank.evaluate(
        (features[query], features[gallery]),
        test.pid[query],
        test.pid[gallery],
        test.camid[query],
        test.camid[gallery],
        protocol=benchmark.protocol(protocol),
        query_row=benchmark.query_row,
    )


def perfect_features(benchmark):
    """One direction a person: what a model that knows everybody would give."""
    people, code = np.unique(benchmark.test.pid, return_inverse=True)
    return np.eye(len(people), dtype=np.float32)[code]


def images_of(part):
    """Paths of each item's images, and who the truth says is in them."""
    tracklets = part.tracklets
    paths = part.images.paths.to_pylist()
    rows = [tracklets.crop[a:b] for a, b in zip(tracklets.start[:-1], tracklets.start[1:], strict=True)]
    return [[paths[row] for row in own] for own in rows], [part.truth.pid[own].tolist() for own in rows]


# MARS


MARKET = {
    "bounding_box_train": [
        "0002_c1s2_000100_01.jpg",
        "0002_c1s1_000200_01.jpg",
        "0002_c3s1_000050_02.jpg",
        "0007_c3s1_000010_01.jpg",
    ],
    "query": ["0001_c1s1_000001_00.jpg", "0003_c3s1_000001_00.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000005_01.jpg",
        "0000_c6s1_000005_01.jpg",
        "0001_c1s1_000009_01.jpg",
        "0001_c3s1_000009_01.jpg",
        "0003_c1s1_000009_01.jpg",
        "Thumbs.db",
    ],
}


def make_market(root, layout=MARKET):
    touch(root, [f"{folder}/{name}" for folder, names in layout.items() for name in names])
    return root
