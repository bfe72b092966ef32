"""One degenerate set; `make test-faults` gives every method all of them."""

import pytest

from tests.faults import degenerate
from tests.faults.table import table


def test_a_set_that_hardly_is_one_gets_a_diagnosis_and_blocks_nothing(children):
    rows = degenerate.main(quick=True, children=children)
    assert sum(row.tried for row in rows) == len(degenerate.QUICK_CASES)
    assert not any(row.failed for row in rows), table(rows)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_method_trains_on_or_refuses_every_degenerate_set(children):
    rows = degenerate.main(children=children)
    assert sum(row.tried for row in rows) == 5 * len(degenerate.SETS)
    assert not any(row.failed for row in rows), table(rows)
