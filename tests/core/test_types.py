"""The shared nouns: frozen and validated, whatever their caller does with what was given."""

import numpy as np
import pytest

from tracklearn.types import PseudoLabels, Refusal, Tracklets, Truth


def fields(**changed):
    given = {
        "tracklet": np.array([0, 0, 1]),
        "frame": np.array([3, 4, 0]),
        "time": np.array([0.3, 0.4, 0.0]),
        "box": np.zeros((3, 4), np.float32),
        "score": np.ones(3, np.float32),
        "crop": np.arange(3),
        "camid": np.array([0, 1]),
        "source": np.array([0, 1]),
    }
    return given | changed


def test_what_the_caller_changes_later_changes_nothing():
    given = fields()
    views = fields(frame=np.array([9, 3, 4, 0])[1:])
    base = views["frame"].base
    locked = fields()
    for value in locked.values():
        value.flags.writeable = False
    made = [Tracklets(**given), Tracklets(**views), Tracklets(**locked)]
    for value in (*given.values(), base):
        value[...] = 1
    for value in locked.values():
        value.flags.writeable = True
        value[...] = 1
    for tracklets in made:
        assert tracklets.frame.tolist() == [3, 4, 0]
        assert tracklets.camid.tolist() == [0, 1]
        with pytest.raises(ValueError, match="read-only"):
            tracklets.frame[0] = 7
    person = np.array([4, -1])
    truth, labels = Truth(person), PseudoLabels.of(person)
    person[:] = 0
    assert truth.pid.tolist() == [4, -1]
    assert labels.label.tolist() == [4, -1]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("camid", [-1, 0], "camid holds -1, expected numbers from 0"),
        ("crop", [0, 1, -5], "crop holds -5, expected numbers from 0"),
        ("frame", [-2, 0, 0], "frame holds -2, expected numbers from 0"),
        ("frame", [0.9, 1, 0], "frame holds 0.9, expected whole numbers"),
        ("crop", [0, np.nan, 1], "crop holds nan, expected whole numbers"),
        ("camid", ["0", "1"], "camid has dtype <U1, expected whole numbers"),
        ("source", [0, 1e300], "source holds 1e\\+300, expected whole numbers of 64 bits"),
    ],
)
def test_numbers_that_cannot_be_are_refused(name, value, message):
    with pytest.raises(Refusal, match=message):
        Tracklets(**fields(**{name: np.array(value)}))


def test_whole_numbers_of_any_kind_are_taken():
    made = Tracklets(
        **fields(frame=[3.0, 4.0, 0.0], camid=np.array([0, 1], np.uint8), crop=[True, False, True])
    )
    assert (made.frame.dtype, made.camid.dtype, made.crop.tolist()) == (np.int64, np.int64, [1, 0, 1])
