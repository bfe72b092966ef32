"""Bounds on smaller material than that of `make test-faults`."""

import pytest

from tests.faults import bounds
from tests.faults.table import table


@pytest.mark.long
def test_memory_does_not_grow_with_the_film(children, tmp_path):
    row = bounds.ingest_by_length(children, tmp_path, *bounds.SIZES[True])
    assert not row.failed, table([row])


@pytest.mark.long
def test_very_many_tracks_are_read_in_bounds(children, tmp_path):
    row = bounds.many_tracks(children, tmp_path, bounds.IDS[True])
    assert not row.failed, table([row])


def test_training_without_enough_memory_says_so(children, tmp_path):
    row = bounds.training_in(children, tmp_path, (1.5,))
    assert not row.failed, table([row])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_time_and_memory_keep_to_their_bounds(children):
    rows = bounds.main(children=children)
    assert not any(row.failed for row in rows), table(rows)
