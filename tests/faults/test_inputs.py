"""A sample of bad files of every kind among good ones; `make test-faults` takes them all."""

import pytest

from tests.faults import inputs
from tests.faults.table import table

PARTS = [inputs.pictures, inputs.videos, inputs.tracks, inputs.weights, inputs.networks]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_a_bad_file_stops_nothing_or_is_refused_in_one_line(children, tmp_path, part):
    row = part(children, tmp_path, inputs.SAMPLE)
    assert row.tried >= inputs.SAMPLE - 1
    assert not row.failed, table([row])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_bad_files_stop_nothing_or_are_refused(children):
    rows = inputs.main(children=children)
    assert sum(row.tried for row in rows) >= 1000
    assert not any(row.failed for row in rows), table(rows)
