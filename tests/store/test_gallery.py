"""The gallery: exact against brute force, whole or absent on disk, refusals that say what to do."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tracklearn.core.shown import representative
from tracklearn.store.files import DamagedError
from tracklearn.store.gallery import folder as gallery
from tracklearn.store.gallery import nearest, segment
from tracklearn.store.sealed import write_sealed
from tracklearn.types import Tracklets


def unit(rng, n, d):
    rows = rng.normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tracklets_of(lengths, camid, *, first_frame=0, track=None):
    tracklet = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.concatenate([first_frame + 100 * i + np.arange(m) for i, m in enumerate(lengths)])
    n = len(tracklet)
    box = np.tile([10, 10, 30, 60], (n, 1))
    track = np.arange(len(lengths)) if track is None else track
    return Tracklets(tracklet, frame, frame / 10, box, np.full(n, 0.8), 1000 + np.arange(n), camid, track)


def make(path, features, camid=None, cameras=("hall", "stairs"), track=None):
    t = len(features)
    camid = np.arange(t) % len(cameras) if camid is None else camid
    tracklets = tracklets_of([3] * t, camid, track=track)
    gallery.build(path, features, tracklets, cameras, manifest={"run": "abc"})
    return gallery.FolderGallery(path)


def brute(features, query, k, *, allowed=None):
    """The textbook search in float64: all distances, sorted by (distance, row)."""
    index = np.full((len(query), k), -1)
    distance = np.full((len(query), k), np.inf)
    for i, q in enumerate(query.astype(np.float64)):
        d = np.sqrt(((features.astype(np.float64) - q) ** 2).sum(1))
        rows = np.arange(len(features)) if allowed is None else np.flatnonzero(allowed[i])
        order = rows[np.lexsort((rows, d[rows]))][:k]
        index[i, : len(order)], distance[i, : len(order)] = order, d[order]
    return index, distance


@pytest.mark.parametrize(("t", "d", "k"), [(1, 4, 1), (7, 3, 10), (300, 16, 10), (301, 8, 301)])
def test_search_equals_brute_force(tmp_path, t, d, k):
    rng = np.random.default_rng(t)
    features, query = unit(rng, t, d), unit(rng, 9, d)
    found = make(tmp_path / "g", features).search(query, k)
    index, distance = brute(features, query, k)
    assert np.array_equal(found.index, index)
    assert np.allclose(found.distance, distance, atol=1e-7)
    assert found.distance.dtype == np.float32
    assert found.index.dtype == np.int64


def test_what_json_lacks_is_null_in_the_manifest(tmp_path):
    rng = np.random.default_rng(0)
    origin = {"mAP": float("nan"), "path": "caf\udce9", "n": np.int64(3)}
    gallery.build(tmp_path / "g", unit(rng, 2, 4), tracklets_of([3, 3], [0, 1]), ["a", "b"], manifest=origin)
    text = (tmp_path / "g" / "manifest.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    found = gallery.FolderGallery(tmp_path / "g").manifest["origin"]
    assert (found["mAP"], found["path"], found["n"]) == (None, "caf?", 3)


def test_blocks_do_not_change_the_result(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    features, query = unit(rng, 500, 8), unit(rng, 20, 8)
    opened = make(tmp_path / "g", features)
    whole = opened.search(query, 12)
    monkeypatch.setattr(nearest, "_BLOCK_VALUES", 8 * 37)
    monkeypatch.setattr(nearest, "_QUERIES", 3)
    blocks = opened.search(query, 12)
    assert np.array_equal(whole.index, blocks.index)
    assert np.array_equal(whole.distance, blocks.distance)


@pytest.mark.parametrize("block", [8, 40, 10_000])
def test_ties_go_to_the_lower_row(tmp_path, monkeypatch, block):
    """A collapsed model: every row the same, and copies of a nearer one far apart."""
    monkeypatch.setattr(nearest, "_BLOCK_VALUES", block)
    features = np.tile(unit(np.random.default_rng(0), 1, 4), (50, 1))
    opened = make(tmp_path / "g", features)
    found = opened.search(features[:1], 6)
    assert found.index.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert found.distance.tolist() == [[0.0] * 6]
    near = unit(np.random.default_rng(1), 1, 4)
    copies = features.copy()
    copies[[13, 29, 41]] = near
    found = make(tmp_path / "h", copies).search(near, 4)
    assert found.index.tolist() == [[13, 29, 41, 0]]


def test_nearly_equal_rows_are_told_apart(tmp_path):
    """Distances far below the rounding error of float32 inner products still order the results."""
    base = np.zeros((40, 64), np.float32)
    base[:, 0] = 1
    base[np.arange(40), 1] = np.float32(1e-5) * np.arange(40, 0, -1)
    found = make(tmp_path / "g", base).search(base[-1], 40)
    assert found.index[0].tolist() == list(range(39, -1, -1))
    assert found.distance[0, 0] == 0


def test_the_nearer_row_is_found_whatever_its_length(tmp_path):
    """Rows are unit to 1e-3 only: the largest product is not always the smallest distance."""
    opened = make(tmp_path / "g", np.array([[0.9995, 0], [1.0009, 0]], np.float32))
    assert opened.search(np.array([1, 0], np.float32), 1).index.tolist() == [[0]]


@pytest.mark.parametrize("d", [2, 64, 2048])
def test_candidates_are_enough_at_every_width(tmp_path, d):
    rng = np.random.default_rng(d)
    near = unit(rng, 1, d) + 1e-4 / np.sqrt(d) * rng.normal(size=(400, d))
    length = rng.uniform(0.9991, 1.0009, (400, 1))
    features = (near / np.linalg.norm(near, axis=1, keepdims=True) * length).astype(np.float32)
    found = make(tmp_path / "g", features).search(features[:40], 5)
    index, distance = brute(features, features[:40], 5)
    assert np.array_equal(found.index, index)
    assert np.allclose(found.distance, distance, atol=1e-7)


def test_only_what_is_in_view_between_two_times_is_found(tmp_path):
    opened = make(tmp_path / "g", unit(np.random.default_rng(0), 6, 8))
    start, end = opened.entries.start, opened.entries.end

    def found(**between):
        return sorted(opened.search(opened.feature(0), 6, **between).index[0].tolist())

    assert found(since=float(end[2])) == [-1, -1, 2, 3, 4, 5]
    assert found(until=float(start[2])) == [-1, -1, -1, 0, 1, 2]
    assert found(since=float(end[1]) + 0.01, until=float(start[2])) == [-1] * 5 + [2]
    assert found(since=float(end[1]), until=float(start[4]), camera="hall") == [-1] * 4 + [2, 4]
    with pytest.raises(ValueError, match="since 5 s is after until 4 s"):
        found(since=5.0, until=4.0)


def test_rows_and_other_cameras_are_left_out(tmp_path):
    rng = np.random.default_rng(5)
    features = unit(rng, 60, 8)
    opened = make(tmp_path / "g", features)
    own = np.arange(60)
    found = opened.search(features, 5, exclude=own)
    allowed = ~np.eye(60, dtype=bool)
    assert np.array_equal(found.index, brute(features, features, 5, allowed=allowed)[0])
    several = np.stack([own, (own + 1) % 60, np.full(60, -1)], 1)
    allowed[own, (own + 1) % 60] = False
    found = opened.search(features, 5, exclude=several, camera="stairs")
    allowed &= opened.entries.camid == 1
    assert np.array_equal(found.index, brute(features, features, 5, allowed=allowed)[0])
    same = opened.search(features, 5, exclude=several, camera=1)
    assert np.array_equal(same.index, found.index)


def nearest_of_each(features, query, k, track, allowed):
    """The textbook in float64: every row in order of distance, of each track the first."""
    index, _ = brute(features, query, len(features), allowed=allowed)
    out = np.full((len(query), k), -1)
    for i, line in enumerate(index):
        line = line[line >= 0]
        _, first = np.unique(track[line], return_index=True)
        found = line[np.sort(first)][:k]
        out[i, : len(found)] = found
    return out


@pytest.mark.parametrize("block", [8 * 11, 8 * 64, 2**22])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_one_a_track_equals_brute_force_in_blocks_of_any_size(tmp_path, monkeypatch, block, k):
    """A giant of 200 parts nearest to every query, tracks in pieces over all blocks, rows left out."""
    monkeypatch.setattr(nearest, "_BLOCK_VALUES", block)
    rng = np.random.default_rng(k)
    query = unit(rng, 1, 8) + 0.3 * rng.normal(size=(6, 8))
    query = (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32)
    near = query[0] + 0.01 * rng.normal(size=(200, 8))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    features = np.concatenate([near[:120], unit(rng, 150, 8), near[120:]])
    track = np.r_[np.zeros(120, int), rng.integers(1, 40, 150), np.zeros(80, int)]
    opened = make(tmp_path / "g", features, track=track)
    exclude = rng.integers(-1, 350, (6, 9))
    allowed = np.tile(np.arange(350) % 2 == 0, (6, 1))
    for line, gone in zip(allowed, exclude, strict=True):
        line[gone[gone >= 0]] = False
    found = opened.search(query, k, exclude=exclude, camera="hall", one_a_track=True)
    assert np.array_equal(found.index, nearest_of_each(features, query, k, track, allowed))
    every = opened.search(query, 350, exclude=exclude, camera="hall")
    kept = np.isin(every.index[0], found.index[0]) & (every.index[0] >= 0)
    assert np.array_equal(every.distance[0][kept], found.distance[0][found.index[0] >= 0])


def test_parts_are_numbered_in_their_track(tmp_path):
    opened = make(tmp_path / "g", unit(np.random.default_rng(0), 6, 4), track=[1, 4, 4, 7, 7, 7])
    assert opened.entries.part.tolist() == [1, 1, 2, 1, 2, 3]
    assert opened.entries.n_parts.tolist() == [1, 2, 2, 3, 3, 3]


def test_fewer_than_k_are_filled_up(tmp_path):
    features = unit(np.random.default_rng(6), 3, 4)
    found = make(tmp_path / "g", features).search(features[:1], 5, exclude=np.array([0]), camera="hall")
    assert found.index.tolist() == [[2, -1, -1, -1, -1]]
    assert np.isinf(found.distance[0, 1:]).all()


def test_entries_say_where_and_when(tmp_path):
    lengths, camid = [4, 1, 9], [1, 0, 1]
    tracklets = tracklets_of(lengths, camid)
    features = unit(np.random.default_rng(0), 3, 4)
    path = gallery.build(tmp_path / "g", features, tracklets, ["hall", "stairs"], manifest={"run": "abc"})
    opened = gallery.FolderGallery(path)
    entries = opened.entries
    assert entries.camera == ("stairs", "hall", "stairs")
    assert entries.first_frame.tolist() == [0, 100, 200]
    assert entries.last_frame.tolist() == [3, 100, 208]
    assert entries.start.tolist() == [0.0, 10.0, 20.0]
    assert entries.end.tolist() == [0.3, 10.0, 20.8]
    assert entries.n_crops.tolist() == lengths
    assert entries.crop.tolist() == [1001, 1004, 1009]
    assert len(entries) == len(opened) == 3
    assert opened.manifest["origin"] == {"run": "abc"}
    assert isinstance(opened.segments[0].mapped, np.memmap)
    assert np.array_equal(opened.rows(0, 3), features)


def test_representative_is_the_best_of_the_middle():
    n = 16
    box = np.tile([0, 0, 10, 20], (n, 1)).astype(float)
    score = np.full(n, 0.5)
    score[[0, 15]] = 1.0  # best of all, but at the ends
    score[6] = 0.6
    box[9] = [0, 0, 14, 20]  # area × score 0.7 of the unit: above row 6
    frame = np.arange(n)
    one = Tracklets(np.zeros(n), frame, frame, box, score, frame, [0], [0])
    assert representative(one).tolist() == [9]
    box[9] = np.nan
    assert representative(Tracklets(np.zeros(n), frame, frame, box, score, frame, [0], [0])) == [6]
    two = Tracklets([1], [0], [0], [[0, 0, 1, 1]], [1], [0], [0, 0], [0, 1])
    assert representative(two).tolist() == [-1, 0]


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    features = unit(np.random.default_rng(0), 3, 4)

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space"):
        make(tmp_path / "g", features)
    assert not (tmp_path / "g").exists()


def test_replacing(tmp_path):
    rng = np.random.default_rng(0)
    make(tmp_path / "g", unit(rng, 3, 4))
    with pytest.raises(FileExistsError, match="exists already"):
        make(tmp_path / "g", unit(rng, 5, 4))
    tracklets = tracklets_of([1] * 5, [0] * 5)
    gallery.build(tmp_path / "g", unit(rng, 5, 4), tracklets, ["hall"], manifest={}, replace=True)
    assert len(gallery.FolderGallery(tmp_path / "g")) == 5
    assert [f.name for f in tmp_path.iterdir()] == ["g"]


def test_inputs_are_not_modified(tmp_path):
    rng = np.random.default_rng(0)
    features, query, exclude = unit(rng, 9, 4), unit(rng, 2, 4), np.array([0, 1])
    kept = features.copy(), query.copy(), exclude.copy()
    make(tmp_path / "g", features).search(query, 3, exclude=exclude)
    assert all(np.array_equal(a, b) for a, b in zip(kept, (features, query, exclude), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.ones((1, 5), np.float32)}, r"query has shape \(1, 5\), expected \(any, 4\)"),
        ({"query": np.full((1, 4), 3, np.float32)}, "query row 0 has length 6, expected 1: normalise"),
        ({"query": np.full((1, 4), np.nan, np.float32)}, "query row 0 has length nan"),
        ({"k": 0}, "k is 0, expected 1 or more"),
        ({"camera": "cellar"}, "no camera named 'cellar' in the gallery, expected one of: hall, stairs"),
        ({"camera": 2}, r"camera is 2, expected a camid in 0\.\.1"),
        ({"exclude": np.array([1, 2])}, r"exclude has shape \(2,\), expected \(1,\) or \(1, e\)"),
        ({"exclude": np.array([9])}, r"exclude holds 9\.\.9, expected gallery rows in 0\.\.5 or -1"),
    ],
)
def test_bad_searches(tmp_path, change, message):
    features = unit(np.random.default_rng(0), 6, 4)
    opened = make(tmp_path / "g", features)
    arguments = {"query": features[:1], "k": 3, **change}
    with pytest.raises(ValueError, match=message):
        opened.search(arguments.pop("query"), arguments.pop("k"), **arguments)


def test_bad_contents(tmp_path):
    features = unit(np.random.default_rng(0), 3, 4)
    tracklets = tracklets_of([2, 2, 2], [0, 1, 0])
    out, names = tmp_path / "g", ["hall", "stairs"]
    with pytest.raises(ValueError, match=r"features has shape \(2, 4\), expected \(3, d\)"):
        gallery.build(out, features[:2], tracklets, names, manifest={})
    with pytest.raises(ValueError, match="features row 0 has length 2, expected 1"):
        gallery.build(out, features * 2, tracklets, names, manifest={})
    with pytest.raises(ValueError, match="cameras has 1 names, expected 2"):
        gallery.build(out, features, tracklets, ["hall"], manifest={})
    with pytest.raises(ValueError, match="tracklet 1 has no crops"):
        gallery.build(out, features, tracklets_of([2, 0, 2], [0, 1, 0]), names, manifest={})
    none = np.zeros(0)
    empty = Tracklets(none, none, none, np.zeros((0, 4)), none, none, none, none)
    with pytest.raises(ValueError, match="nothing to index"):
        gallery.build(out, np.zeros((0, 4)), empty, names, manifest={})
    assert not out.exists()


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="tracklearn index"):
        gallery.FolderGallery(tmp_path / "nowhere")
    opened = make(tmp_path / "g", unit(np.random.default_rng(0), 3, 4))
    file, manifest = tmp_path / "g" / "manifest.json", dict(opened.manifest)
    (record,) = manifest["sets"]
    for change, message in (
        ({"sets": [record | {"entries": 4}]}, r"\(3, 4\) float32, not \(4, 4\)"),
        ({"schema": "tracklearn.gallery/9"}, "schema"),
        ({"sets": []}, "it names no files"),
        ({"sets": [record | {"features": {"sha256": "0"}}]}, "it names no files"),
        (
            {"sets": [record | {"features": {"name": "features-0.npy", "sha256": "0"}}]},
            r"features-0\.npy is missing",
        ),
    ):
        write_sealed(file, manifest | change)
        with pytest.raises(ValueError, match=rf"{message}.*index the run again"):
            gallery.FolderGallery(tmp_path / "g")
    for text in ("{", "[]", "null", file.read_text().replace('"width": 4', '"width": 5')):
        file.write_text(text)
        with pytest.raises(DamagedError, match=r"manifest\.json is damaged .*index the run again"):
            gallery.FolderGallery(tmp_path / "g")


def test_a_damaged_block_is_named_when_it_is_read_and_not_before(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "SUMMED_BYTES", 8 * 4 * 10)  # ten rows
    features = unit(np.random.default_rng(0), 35, 8)
    opened = make(tmp_path / "g", features)
    (record,) = opened.manifest["sets"]
    name = record["features"]["name"]
    assert len(record["features"]["crc32"]) == 4
    data = bytearray((tmp_path / "g" / name).read_bytes())
    data[-8 * 4 * 7] ^= 1  # in row 28
    (tmp_path / "g" / name).write_bytes(data)
    opened = gallery.FolderGallery(tmp_path / "g")
    assert np.array_equal(opened.rows(0, 20), features[:20])
    with pytest.raises(DamagedError, match=rf"{name} is damaged \(block 2 .*index the run again"):
        opened.search(features[:1], 3)
    assert opened.damages() == [f"{tmp_path / 'g' / name} is damaged (its content is not what was written)"]


@pytest.mark.filterwarnings("ignore")  # numpy warns of heads that it mistakes for its older ones
def test_every_damage_to_the_head_of_the_features_is_named(tmp_path):
    opened = make(tmp_path / "g", unit(np.random.default_rng(0), 5, 4))
    file = tmp_path / "g" / opened.manifest["sets"][0]["features"]["name"]
    whole = file.read_bytes()
    said = []
    for place in range(128):
        for value in (0, 1, 39, 44, 66, 123, 255):
            damaged = bytearray(whole)
            if damaged[place] == value:
                continue
            damaged[place] = value
            file.write_bytes(damaged)
            try:
                gallery.FolderGallery(tmp_path / "g")
            except DamagedError as error:
                said.append(str(error))
    assert len(said) > 800
    assert all(f"{file} is damaged" in text for text in said)


def test_a_gallery_of_an_older_program_is_read(tmp_path):
    features = unit(np.random.default_rng(0), 6, 4)
    path = tmp_path / "g"
    opened = make(path, features, track=[0, 0, 0, 1, 1, 1])
    (record,) = opened.manifest["sets"]
    names = {"features": "features.npy", "table": "entries.parquet"}
    for what, old in names.items():
        (path / record[what]["name"]).rename(path / old)
    manifest = {
        "schema": "tracklearn.gallery/1",
        "entries": 6,
        "width": 4,
        "cameras": ["hall", "stairs"],
        "sha256": {old: record[what]["sha256"] for what, old in names.items()},
        "origin": {"run": "abc"},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    found = gallery.FolderGallery(path)
    assert np.array_equal(found.search(features, 2).index, opened.search(features, 2).index)
    tracks = found.search(features, 3, one_a_track=True).index
    assert np.array_equal(tracks, opened.search(features, 3, one_a_track=True).index)
    assert set(tracks[:, -1]) == {-1}  # it knows that the six are parts of two tracks
    assert found.damages() == []
    tracklets = tracklets_of([3] * 6, np.arange(6) % 2, track=[0, 0, 0, 1, 1, 1])
    gallery.build(path, features, tracklets, ["hall", "stairs"], manifest={"run": "abc"}, replace=True)
    assert {p.name for p in path.iterdir()} == {"manifest.json", *(record[w]["name"] for w in names)}
