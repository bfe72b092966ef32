"""The benchmark of a new day: how footage is halved, and how its tables are counted, on made ones."""

from types import SimpleNamespace

import numpy as np

from benchmarks import new_day
from tracklearn.store.picture.crops import encode_jpeg
from tracklearn.store.sets.tracklets import SetWriter, open_set, read_truth


def test_films_are_halved_in_the_middle(tmp_path):
    """A track before the middle, one after it, one across it of which the second half is too short."""
    with SetWriter(tmp_path / "set") as writer:
        for key, camera in enumerate(("hall", "yard")):
            part = writer.part(f"{key:x}" * 64)
            for first, n in ((0, 6), (90, 11), (40, 13)):
                frame = first + np.arange(n)
                part.add(
                    [encode_jpeg(np.full((8, 4, 3), first + key, np.uint8))] * n,
                    camera=camera,
                    frame=frame,
                    time=frame / 10,
                    box=np.tile([0, 0, 4, 8], (n, 1)),
                    score=np.ones(n),
                )
            part.finish({"camera": camera, "status": "ok"})
        writer.finish({"stride": 2})
    pid = np.repeat([5, 6, 7, 5, 6, 7], [6, 11, 13] * 2)
    old, new = new_day.halves(tmp_path / "set", pid, tmp_path / "days")
    halves = [open_set(path) for path in (old, new)]
    assert [one.tracklets.length.tolist() for one in halves] == [[6, 11, 6, 11], [11, 11]]
    assert [one.cameras for one in halves] == [("hall", "yard")] * 2
    assert halves[0].tracklets.frame.max() == 50
    assert halves[1].tracklets.frame.min() == 90
    assert np.unique(read_truth(old).pid).tolist() == [5, 7]
    assert np.unique(read_truth(new).pid).tolist() == [6]
    assert new_day.halves(tmp_path / "set", pid, tmp_path / "days") == [old, new]


def row(track, identity, *, part=1, n_parts=1, frames=(0, 9), digest="old", how="compared", n_crops=10):
    names = {"track": track, "part": part, "n_parts": n_parts, "identity": identity, "how": how}
    return names | {
        "first_frame": frames[0],
        "last_frame": frames[1],
        "set_digest": digest,
        "n_crops": n_crops,
    }


def test_a_person_s_number_is_that_of_most_crops():
    rows = [row(0, 1, n_crops=4), row(1, 2, n_crops=9), row(2, 1), row(3, None)]
    assert new_day.numbers(rows, np.array([8, 8, 9, 8])) == {8: 2, 9: 1}


def test_decisions_are_the_first_mistakes_and_are_looked_up_by_frame():
    first = SimpleNamespace(rows=[row(0, 1), row(1, 2, part=2, n_parts=2), row(2, 1)])
    said = new_day.decisions(first, np.array([8, 8, 9]))
    assert [new_day.written(pair) for kind in said.values() for pair in kind] == ["1:0=1:1.2", "1:0=1:2"]
    good = SimpleNamespace(rows=[row(0, 1), row(1, 1, frames=(0, 6)), row(1, 3, frames=(7, 9)), row(2, 4)])
    assert new_day.followed(good, said) is True
    assert new_day.followed(first, said) is False
    assert new_day.followed(first, {"same": [], "different": []}) is None
