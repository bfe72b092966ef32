"""A few damages of every file; `make test-faults` does them all."""

import pytest

from tests.faults import corruption
from tests.faults.table import table

# What only the demo writes takes a demo to make.
TARGETS = [t for t in corruption.TARGETS if not t.pattern.startswith("demo/")]


@pytest.fixture(scope="module")
def made(children, tmp_path_factory):
    return corruption.make(children, tmp_path_factory.mktemp("corruption") / "made", demo=False)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.pattern)
def test_a_damaged_file_is_refused_by_name_or_read_the_same(children, made, target):
    assert list(made.glob(target.pattern))
    row = corruption.by_reading(children, made, target, corruption.PLACES[True])
    assert row.tried >= 4
    assert not row.failed, table([row])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_file_damaged_at_150_places_and_through_whole_commands(children):
    rows = corruption.main(children=children)
    assert sum(row.tried for row in rows) >= 5000
    assert not any(row.failed for row in rows), table(rows)
