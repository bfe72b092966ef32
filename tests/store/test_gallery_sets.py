"""Galleries of several sets: 8-bit scans that find what brute force finds, filters, deletion, older forms."""

import json

import numpy as np
import pytest
from tests.store.test_gallery import brute, nearest_of_each, tracklets_of, unit

from tracklearn.core import heads
from tracklearn.core.heads import Directions, directions
from tracklearn.core.scan import Scan, quantise
from tracklearn.store.files import DamagedError
from tracklearn.store.gallery import nearest, segment
from tracklearn.store.gallery.entries import Content, PartKey
from tracklearn.store.gallery.open import create_gallery, gallery_of, note_gallery, open_gallery
from tracklearn.types import Tracklets


@pytest.fixture(params=["8 bits", "heads"])
def coded(monkeypatch, request):
    """Every set has 8-bit rows, in blocks of a few; every set has heads of a few numbers too."""
    monkeypatch.setattr(segment, "CODED", 1)
    monkeypatch.setattr(nearest, "_CODED_ROWS", 37)
    if request.param == "heads":
        some = lambda rows, n: Directions.of(directions(rows, max(1, min(rows.shape) // 2)))  # noqa: E731
        monkeypatch.setattr(segment, "HEADED", 1)
        monkeypatch.setattr(heads, "choose", some)
        monkeypatch.setattr(nearest, "_HEADS", 41)
        monkeypatch.setattr(nearest, "_TOGETHER", 3)


def content(features, *, digest="a", camid=None, cameras=("hall", "stairs"), track=None, score=None):
    t = len(features)
    camid = np.arange(t) % len(cameras) if camid is None else np.asarray(camid)
    tracklets = tracklets_of([3] * t, camid, track=track)
    if score is not None:
        arrays = tracklets.arrays()
        arrays["score"] = np.repeat(np.asarray(score, np.float32), 3)
        tracklets = Tracklets(**arrays)
    return Content(features, tracklets, cameras, digest=digest, path=f"../{digest}")


def made(path, *contents, **options):
    return create_gallery(path, contents, origin={"run": "abc"}, **options)


# ------------------------------------------------------------------------------------------ 8-bit rows


def test_the_bound_of_what_is_rounded_away_holds(tmp_path):
    rng = np.random.default_rng(0)
    rows = unit(rng, 500, 48) * rng.uniform(0.9991, 1.0009, (500, 1)).astype(np.float32)
    rows[0] = np.eye(48)[3]  # one number carries all
    rows[1, 5:] = 0
    rows[1] /= np.linalg.norm(rows[1])
    code, bound = quantise(rows)
    off = np.linalg.norm(rows - code * bound[:, :1].astype(np.float64), axis=1)
    assert (off <= bound[:, 1]).all()
    assert off.max() < 0.02  # and is worth something
    assert np.allclose(bound[:, 2], (rows.astype(np.float64) ** 2).sum(1) / 2, atol=1e-7)
    assert code.dtype == np.int8
    assert np.abs(code.astype(int)).max() <= 127


@pytest.mark.parametrize("width", [1, 2, 64, 512, 2048])
def test_the_products_of_8_bits_do_not_run_over(width):
    """The largest sums that there can be: all numbers of row and query as large as one another."""
    row = np.full((1, width), 1 / np.sqrt(width), np.float32)
    code, bound = quantise(row)
    scan = Scan(row[0], 1)
    assert np.abs(scan.code.astype(np.int64)).sum() * 127 < 2**31
    scan.block(code, bound, lambda near: row[near], 0)
    assert scan.index.tolist() == [0]
    assert scan.distance[0] == 0


@pytest.mark.parametrize(("t", "d", "k"), [(1, 4, 1), (7, 3, 10), (300, 16, 10), (301, 8, 301)])
def test_a_scan_of_8_bits_equals_brute_force(tmp_path, coded, t, d, k):
    rng = np.random.default_rng(t)
    features, query = unit(rng, t, d), unit(rng, 4, d)
    opened = made(tmp_path / "g", content(features))
    assert opened.segments[0].code.dtype == np.int8
    found = opened.search(query, k)
    index, distance = brute(features, query, k)
    assert np.array_equal(found.index, index)
    assert np.allclose(found.distance, distance, atol=1e-7)


def test_near_doubles_and_rows_of_uneven_length_are_told_apart_by_8_bits_too(tmp_path, coded):
    rng = np.random.default_rng(2)
    near = unit(rng, 1, 64) + 1e-4 / 8 * rng.normal(size=(400, 64))
    length = rng.uniform(0.9991, 1.0009, (400, 1))
    features = (near / np.linalg.norm(near, axis=1, keepdims=True) * length).astype(np.float32)
    features[100] = features[300]
    opened = made(tmp_path / "g", content(features))
    for query in features[[0, 100, 300]]:
        found = opened.search(query, 5)
        index, distance = brute(features, query[None], 5)
        assert np.array_equal(found.index, index)
        assert np.array_equal(found.distance, distance.astype(np.float32))
    assert opened.search(features[300], 2).index.tolist() == [[100, 300]]  # of equals the lower row


@pytest.mark.parametrize("k", [1, 4, 30])
def test_8_bits_one_a_track_with_rows_left_out(tmp_path, coded, k):
    rng = np.random.default_rng(k)
    query = unit(rng, 1, 8) + 0.3 * rng.normal(size=(3, 8))
    query = (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32)
    near = query[0] + 0.01 * rng.normal(size=(200, 8))
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    features = np.concatenate([near[:120], unit(rng, 150, 8), near[120:]])
    track = np.r_[np.zeros(120, int), rng.integers(1, 40, 150), np.zeros(80, int)]
    opened = made(tmp_path / "g", content(features, track=track))
    exclude = rng.integers(-1, 350, (3, 9))
    allowed = np.tile(np.arange(350) % 2 == 0, (3, 1))
    for line, gone in zip(allowed, exclude, strict=True):
        line[gone[gone >= 0]] = False
    found = opened.search(query, k, exclude=exclude, camera="hall", one_a_track=True)
    assert np.array_equal(found.index, nearest_of_each(features, query, k, track, allowed))


def test_many_queries_and_few_find_the_same(tmp_path, coded):
    rng = np.random.default_rng(8)
    opened = made(tmp_path / "g", content(unit(rng, 200, 16)))
    query = unit(rng, 9, 16)
    many = opened.search(query, 7)
    few = [opened.search(one, 7) for one in query]
    assert np.array_equal(many.index, np.concatenate([f.index for f in few]))
    assert np.array_equal(many.distance, np.concatenate([f.distance for f in few]))


@pytest.mark.parametrize("kind", ["int8", "bounds", "heads", "head_bounds", "axes"])
def test_damage_to_8_bit_rows_is_named(tmp_path, coded, kind):
    features = unit(np.random.default_rng(0), 50, 8)
    opened = made(tmp_path / "g", content(features))
    if kind not in opened.manifest["sets"][0]:
        assert kind not in ("int8", "bounds")
        return
    file = tmp_path / "g" / opened.manifest["sets"][0][kind]["name"]
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    with pytest.raises(DamagedError, match=rf"{file.name} is damaged .*index the run again"):
        open_gallery(tmp_path / "g").search(features[0], 50)  # of 8-bit rows it looks only at some


def test_a_large_set_has_heads_where_they_pay(tmp_path):
    rng = np.random.default_rng(1)
    flat = unit(rng, 400, 128)[rng.integers(0, 400, segment.HEADED)]
    flat = (flat + 0.01 * rng.normal(size=flat.shape)) * np.arange(1, 129) ** -1.5
    flat = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)
    opened = made(tmp_path / "g", content(flat))
    record = opened.manifest["sets"][0]
    assert record["directions"] == 32
    assert len(list((tmp_path / "g").iterdir())) == 8
    found = open_gallery(tmp_path / "g").search(flat[:3], 10)
    assert np.array_equal(found.index, brute(flat, flat[:3], 10)[0])
    even = made(tmp_path / "even", content(unit(rng, segment.HEADED, 128)))
    assert "heads" not in even.manifest["sets"][0]


def test_small_sets_have_no_8_bit_rows(tmp_path):
    opened = made(tmp_path / "g", content(unit(np.random.default_rng(0), 50, 8)))
    assert opened.segments[0].code is None
    assert len(list((tmp_path / "g").iterdir())) == 3


# ---------------------------------------------------------------------------------------- several sets


def test_sets_are_one_gallery_with_cameras_by_name(tmp_path):
    rng = np.random.default_rng(1)
    a, b = unit(rng, 5, 8), unit(rng, 4, 8)
    opened = made(
        tmp_path / "g",
        content(a, digest="a", track=[0, 0, 1, 2, 2]),
        content(b, digest="b", cameras=("yard", "hall"), track=[0, 1, 1, 2]),
    )
    assert opened.cameras == ("hall", "stairs", "yard")
    assert [(s.digest, s.path, s.n_entries) for s in opened.sets] == [("a", "../a", 5), ("b", "../b", 4)]
    entries = opened.entries
    assert entries.camera[5:] == ("yard", "hall", "yard", "hall")
    assert entries.camid.tolist() == [0, 1, 0, 1, 0, 2, 0, 2, 0]
    assert entries.set.tolist() == [0] * 5 + [1] * 4
    assert entries.part.tolist() == [1, 2, 1, 1, 2, 1, 1, 2, 1]
    assert entries.keys()[6] == PartKey("b", 1, 100, 102)
    assert opened.rows_of(1, set=1).tolist() == [6, 7]
    both = np.concatenate([a, b])
    query = unit(rng, 6, 8)
    assert np.array_equal(opened.search(query, 9).index, brute(both, query, 9)[0])
    assert np.array_equal(opened.rows(3, 7), both[3:7])
    # Track 0 of one set is not track 0 of the other.
    tracks = opened.search(query, 9, one_a_track=True).index
    group = np.array([0, 0, 1, 2, 2, 3, 4, 4, 5])
    assert np.array_equal(tracks, nearest_of_each(both, query, 9, group, np.ones((6, 9), bool)))
    hall = opened.search(query, 9, camera="hall").index
    assert {row for row in hall[0].tolist() if row >= 0} == {0, 2, 4, 6, 8}
    assert set(opened.search(query[0], 9, sets=[1]).index[0].tolist()) == {5, 6, 7, 8, -1}
    with pytest.raises(ValueError, match=r"sets holds 2, expected numbers in 0\.\.1"):
        opened.search(query, 1, sets=[2])


def test_a_set_is_taken_in_or_replaced_by_its_digest(tmp_path):
    rng = np.random.default_rng(1)
    a, b, c = unit(rng, 3, 8), unit(rng, 4, 8), unit(rng, 2, 8)
    opened = made(tmp_path / "g", content(a, digest="a"))
    opened.add([content(b, digest="b")])
    assert np.array_equal(opened.rows(0, 7), np.concatenate([a, b]))
    opened.add([content(c, digest="a")])
    assert np.array_equal(opened.rows(0, 6), np.concatenate([c, b]))
    again = open_gallery(tmp_path / "g")
    assert [s.n_entries for s in again.sets] == [2, 4]
    assert again.damages() == []
    assert len(list((tmp_path / "g").iterdir())) == 5  # nothing is left of what was replaced
    with pytest.raises(ValueError, match=r"features have 4 numbers, those of .* 8: another network"):
        opened.add([content(unit(rng, 2, 4), digest="d")])
    with pytest.raises(ValueError, match="one width, of one set at least"):
        made(tmp_path / "h", content(a), content(unit(rng, 2, 4)))


def test_quality_and_identity_are_filters(tmp_path):
    rng = np.random.default_rng(1)
    a = unit(rng, 4, 8)
    opened = made(tmp_path / "g", content(a, score=[0.2, 0.9, 0.5, 0.7]))
    assert np.allclose(opened.entries.quality, [0.2, 0.9, 0.5, 0.7])

    def found(**options):
        return sorted(row for row in opened.search(a[0], 4, **options).index[0].tolist() if row >= 0)

    assert found(min_quality=0.6) == [1, 3]
    with pytest.raises(ValueError, match=r"min_quality is 7, expected a detection score in 0\.\.1"):
        found(min_quality=7)
    assert found(identity=5) == []
    rows = [
        {"set_digest": "a", "track": t, "first_frame": 100 * t, "last_frame": 100 * t + 2, "identity": person}
        | {"probability": 0.9, "how": "compared"}
        for t, person in enumerate([5, 6, 5, None])
    ]
    opened.people.adopt(rows, source="s")
    assert found(identity=5) == [0, 2]
    assert opened.persons(np.arange(4)).tolist() == [5, 6, 5, -1]
    opened.close()


def test_deleted_rows_are_found_no_more_and_leave_the_disk(tmp_path, coded):
    rng = np.random.default_rng(1)
    a, b = unit(rng, 40, 8), unit(rng, 30, 8)
    opened = made(tmp_path / "g", content(a, digest="a"), content(b, digest="b"))
    gone = np.array([3, 39, 40, 69])
    assert opened.delete(gone) == 4
    assert (len(opened), [s.n_entries for s in opened.sets]) == (66, [38, 28])
    both = np.concatenate([a, b])
    query = both[gone]
    allowed = np.tile(~np.isin(np.arange(70), gone), (4, 1))
    assert np.array_equal(opened.search(query, 70).index, brute(both, query, 70, allowed=allowed)[0])
    assert not set(gone.tolist()) & set(opened.entries.row.tolist())
    assert opened.rows_of(3).tolist() == []
    other = open_gallery(tmp_path / "g")
    before = [segment.along for segment in opened.segments if segment.along is not None]
    assert opened.compact() == "4 entries of 70 taken from the disk".replace(
        "4 entries of 70", "4 of 70 entries"
    )
    assert other.stale
    assert not opened.stale
    left = both[allowed[0]]
    assert np.array_equal(opened.rows(0, 66), left)
    assert np.array_equal(opened.search(query, 66).index, brute(left, query, 66)[0])
    whole = b"".join(file.read_bytes() for file in (tmp_path / "g").iterdir())
    for row in gone:
        assert both[row].tobytes() not in whole
        assert quantise(both[row : row + 1])[0].tobytes() not in whole
        for along in before:
            assert heads.encode(both[row : row + 1], along)[0].tobytes() not in whole
    assert both[0].tobytes() in whole
    with pytest.raises(ValueError, match="has changed since it was opened"):
        other.delete([0])
    with pytest.raises(ValueError, match=r"rows holds 66\.\.66, expected gallery rows in 0\.\.65"):
        opened.delete([66])


def test_a_gallery_of_the_second_form_is_read_added_to_and_cut(tmp_path):
    rng = np.random.default_rng(0)
    features = unit(rng, 6, 4)
    path = tmp_path / "g"
    opened = made(path, content(features, digest="a"))
    (record,) = opened.manifest["sets"]
    manifest = {
        "kind": "gallery",
        "schema": "tracklearn.gallery/2",
        "entries": 6,
        "width": 4,
        "cameras": ["hall", "stairs"],
        "features": {key: record["features"][key] for key in ("name", "sha256")},
        "table": record["table"],
        "crc32": record["features"]["crc32"],
        "origin": {"run": "abc", "set": {"path": "../a", "digest": "a"}},
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    found = open_gallery(path)
    assert np.array_equal(found.search(features, 2).index, opened.search(features, 2).index)
    assert [(s.digest, s.path) for s in found.sets] == [("a", "../a")]
    more = unit(rng, 2, 4)
    found.add([content(more, digest="b")])
    found.delete([1])
    found.compact()
    assert np.array_equal(found.rows(0, 7), np.concatenate([features[:1], features[2:], more]))
    assert open_gallery(path).damages() == []


def test_where_a_runs_gallery_is(tmp_path):
    assert gallery_of(tmp_path) == str(tmp_path / "gallery")
    note_gallery(tmp_path, "postgresql://me:secret@host:5/db?sslmode=require&password=x#hall")
    assert gallery_of(tmp_path) == "postgresql://me@host:5/db?sslmode=require#hall"
    assert b"secret" not in (tmp_path / "gallery.json").read_bytes()
    note_gallery(tmp_path, tmp_path / "gallery")
    assert gallery_of(tmp_path) == str(tmp_path / "gallery")
    with pytest.raises(FileNotFoundError, match="tracklearn index"):
        open_gallery(tmp_path / "gallery")
