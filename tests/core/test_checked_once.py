"""Features are looked at once, where they come in: a second look costs time, and on a device a copy."""

import numpy as np
import pytest
import torch

from tracklearn.core import cluster, features, jaccard, neighbors


@pytest.mark.parametrize("mode", jaccard.MODES)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_an_association_checks_its_features_once(monkeypatch, mode, kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 8)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    looked, check = [], features.check_unit

    def counted(value, name="features"):
        looked.append(name)
        return check(value, name)

    for module in (features, cluster, jaccard, neighbors):
        monkeypatch.setattr(module, "check_unit", counted)
    want = cluster.associate(x, mode=mode).label
    looked.clear()
    np.testing.assert_array_equal(cluster.associate(kind(x), mode=mode).label, want)
    assert looked == ["features"]
    looked.clear()
    jaccard.jaccard_distance(kind(x), 5, 2, mode=mode)
    assert looked == ["features"]
    bad = x.copy()
    bad[3] *= 2
    with pytest.raises(ValueError, match="must have rows of unit length"):
        cluster.associate(kind(bad), mode=mode)
