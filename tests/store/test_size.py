"""The law of size: lines recovered by consensus, what may not pull them, and where there is none."""

import json

import numpy as np
import pytest

from tracklearn.store.detect.size import PersonSize, SizeLaw, fit


def people(n, *, offset=12.0, slope=0.25, rows=(120, 340), spread=0.04, seed=0):
    """(n, 3) feet, heights and widths of whole people under a law."""
    rng = np.random.default_rng(seed)
    foot = rng.uniform(*rows, n)
    tall = (offset + slope * foot) * (1 + rng.normal(0, spread, n))
    return np.stack([foot, tall, tall * rng.uniform(0.34, 0.42, n)], 1)


def fragments(n, *, rows=(120, 340), tall=(10, 32), seed=1):
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(*rows, n), rng.uniform(*tall, n), rng.uniform(6, 14, n)], 1)


@pytest.mark.parametrize(("offset", "slope"), [(12, 0.25), (-280, 1.62), (-60, 0.6), (90, 0.02)])
@pytest.mark.parametrize("seen", [False, True])
def test_a_known_law_is_recovered_from_people_and_a_third_of_fragments(offset, slope, seen):
    rows = (220, 340) if slope > 1 else (120, 340)
    sample = np.concatenate(
        [people(200, offset=offset, slope=slope, rows=rows), fragments(100, rows=rows, tall=(5, 30))]
    )
    before = sample.copy()
    law = fit(sample, seen=seen)
    for foot in np.linspace(*rows, 5):
        assert law.at(foot)[0] == pytest.approx(offset + slope * foot, rel=0.04)
        assert law.at(foot)[1] == pytest.approx(0.38 * law.at(foot)[0], rel=0.03)
    assert law.share > (0.64 if seen else 0.85)
    assert (law.samples, law.seen) == (300, seen)
    assert fit(sample, seen=seen) == law
    np.testing.assert_array_equal(sample, before)


def test_the_consensus_is_nearly_the_best_of_all_pairs():
    """Written a second time from its definition, for every pair and every level line."""
    sample = np.concatenate([people(60, spread=0.08), fragments(30)])
    foot, tall, _ = sample.T
    lines = [(t, 0.0) for t in tall]
    for i in range(90):
        for j in range(i):
            if abs(foot[i] - foot[j]) >= 0.25 * np.median(tall):
                slope = (tall[i] - tall[j]) / (foot[i] - foot[j])
                if 0 <= slope <= 4:
                    lines.append((tall[i] - slope * foot[i], slope))

    def explained(offset, slope):
        error = (tall / np.maximum(offset + slope * foot, 1) - 1) / 0.15
        return np.maximum(1 - error**2, 0).sum()

    law = fit(sample, seen=True)
    assert explained(law.offset, law.slope) > 0.97 * max(explained(*line) for line in lines)


def test_people_on_one_row_make_a_level_law_that_is_known_nearby_alone():
    law = fit(people(50, offset=100, slope=0, rows=(200, 204)))
    assert (law.slope, law.offset) == (0, pytest.approx(100, rel=0.02))
    assert law.knows(190)
    assert law.knows(220)
    assert not law.knows(150)
    assert not law.knows(260)


def test_a_law_is_known_a_little_beyond_the_rows_that_were_seen_and_level_further_on():
    law = SizeLaw(-280, 1.6, 0.4, 0.9, 100, 220.0, 300.0, True)
    tall = -280 + 1.6 * 220
    assert -280 + 1.6 * law.far == pytest.approx(0.6 * tall)
    assert -280 + 1.6 * law.near == pytest.approx(1.6 * 200)
    assert law.at(100) == law.at(law.far)
    assert law.at(1000) == law.at(law.near) == (pytest.approx(320), pytest.approx(128))


def test_heights_that_fall_with_nearness_are_no_perspective():
    sample = people(100, offset=200, slope=-0.5, spread=0.01)
    law = fit(sample)
    assert law is None or law.slope == 0


def test_without_agreement_there_is_no_law():
    rng = np.random.default_rng(0)
    scattered = np.stack([rng.uniform(100, 300, 200), rng.uniform(20, 300, 200), np.full(200, 20.0)], 1)
    assert fit(scattered, seen=True) is None


def test_the_law_in_other_pixels_and_as_plain_values():
    law = fit(people(100), seen=True)
    large = law.zoomed(2)
    assert large.at(400)[0] == pytest.approx(2 * law.at(200)[0])
    assert large.slope == law.slope
    found = json.loads(json.dumps(large.to_dict()))
    assert set(found) == {"offset", "slope", "ratio", "share", "samples", "lowest", "highest", "seen"}
    assert found["offset"] == pytest.approx(24, abs=4)


# --- evidence as it comes -----------------------------------------------------------------------------


def add(size, sample, *, seen):
    for foot, tall, wide in sample:
        size.add(foot, tall, wide, seen=seen)


def test_a_law_needs_twenty_people():
    size = PersonSize()
    add(size, people(19), seen=False)
    assert (size.law, size.n_evidence) == (None, 19)
    add(size, people(1, seed=3), seen=False)
    assert size.law.samples == 20


def test_no_storm_of_fragments_pulls_a_law_down_that_a_detector_vouches_for():
    size = PersonSize()
    add(size, people(40), seen=True)
    law = size.law
    add(size, fragments(3000), seen=False)
    assert size.law == law or size.law.at(200)[0] == pytest.approx(law.at(200)[0], rel=0.03)
    assert size.law.at(200)[0] == pytest.approx(62, rel=0.05)


def test_without_a_detector_as_many_fragments_as_people_do_not_pull_it_either():
    size = PersonSize()
    for i in range(30):
        add(size, people(10, seed=i), seen=False)
        add(size, fragments(20, seed=i), seen=False)
        if i > 2:
            assert size.law.at(200)[0] == pytest.approx(62, rel=0.08)


def test_people_that_a_detector_saw_replace_a_law_of_mere_shapes():
    size = PersonSize()
    add(size, fragments(500, tall=(19, 21)), seen=False)
    assert size.law.at(200)[0] == pytest.approx(20, rel=0.05)
    add(size, people(20), seen=True)
    assert size.law.seen
    assert size.law.at(200)[0] == pytest.approx(62, rel=0.05)


def test_another_view_is_learned_soon_after_the_picture_has_changed():
    size = PersonSize()
    add(size, people(1000), seen=True)
    size.moved()
    assert size.n_evidence == 50
    add(size, people(120, offset=60, slope=0.5, seed=5), seen=True)
    assert size.law.at(200)[0] == pytest.approx(160, rel=0.05)


def test_looks_tell_where_the_detector_mostly_knows_those_who_agree_with_the_law():
    size = PersonSize()
    add(size, people(19), seen=True)
    assert not size.looks_tell
    add(size, fragments(500), seen=False)  # nobody whom it should have known
    add(size, people(20, seed=2), seen=False)
    add(size, people(11, seed=3), seen=True)
    assert size.law.seen
    assert size.looks_tell
    other = PersonSize()
    add(other, people(60, seed=4), seen=False)
    add(other, people(25, seed=5), seen=True)
    assert other.law.seen
    assert not other.looks_tell


def test_a_fragment_that_agrees_by_chance_does_not_widen_the_rows_that_are_known():
    by_chance = np.array([[30.0, 19.0, 7.0]])  # on the line, far above everybody
    law = fit(np.concatenate([people(300), by_chance]))
    assert law.lowest > 100
    assert not law.knows(30)
