"""The losses against a slow float64 reference written from the equations, and by finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tracklearn.learn import losses

B, D, C = 12, 7, 5


def batch(seed):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(4), 3)
    rng.shuffle(label)
    return {
        "feature": rng.normal(size=(B, D)) * 5,
        "teacher_feature": rng.normal(size=(B, D)) * 5,
        "logits": rng.normal(size=(B, C)) * 3,
        "teacher_logits": rng.normal(size=(B, C)) * 3,
        "label": label,
        "weight": rng.uniform(0.2, 2, B),
    }


def reference(b, margin=0.5, form="margin", smoothing=0.0):
    """The four losses for each row, in plain Python from TMC eq. 2-6."""
    rows = range(len(b["label"]))

    def dist(f, i, j):
        return math.sqrt(sum((f[i][k] - f[j][k]) ** 2 for k in range(len(f[i]))))

    def probabilities(z):
        e = [math.exp(v - max(z)) for v in z]
        return [v / sum(e) for v in e]

    out = {"id": [], "sid": [], "tri": [], "stri": []}
    for i in rows:
        p, q = probabilities(b["logits"][i]), probabilities(b["teacher_logits"][i])
        n = len(p)
        want = [smoothing / n + (1 - smoothing) * (c == b["label"][i]) for c in range(n)]
        out["id"].append(-sum(w * math.log(v) for w, v in zip(want, p, strict=True)))
        out["sid"].append(-sum(w * math.log(v) for w, v in zip(q, p, strict=True)))
        pos = max((j for j in rows if b["label"][j] == b["label"][i]), key=lambda j: dist(b["feature"], i, j))
        neg = min((j for j in rows if b["label"][j] != b["label"][i]), key=lambda j: dist(b["feature"], i, j))
        ap, an = dist(b["feature"], i, pos), dist(b["feature"], i, neg)
        tap, tan = dist(b["teacher_feature"], i, pos), dist(b["teacher_feature"], i, neg)
        out["tri"].append(max(0.0, margin + ap - an) if form == "margin" else math.log1p(math.exp(ap - an)))
        t = math.exp(an) / (math.exp(ap) + math.exp(an))
        tt = math.exp(tan) / (math.exp(tap) + math.exp(tan))
        out["stri"].append(-(tt * math.log(t) + (1 - tt) * math.log(1 - t)))
    return {name: np.array(v) for name, v in out.items()}


def gaps(feature, teacher_feature, label):
    """The student's gaps and the teacher's, at what the student mined."""
    distance = losses.pairwise(feature)
    mined = losses.mine(distance, label)
    return losses.gap(distance, mined), losses.gap(losses.pairwise(teacher_feature), mined)


def computed(b, weight=None, **kw):
    t = {k: torch.from_numpy(v) for k, v in b.items()}
    w = t["weight"] if weight else None
    gap, teacher_gap = gaps(t["feature"], t["teacher_feature"], t["label"])
    return {
        "id": losses.identity(t["logits"], t["label"], smoothing=kw.get("smoothing", 0.0), weight=w),
        "sid": losses.soft_identity(t["logits"], t["teacher_logits"], weight=w),
        "tri": losses.triplet(gap, margin=kw.get("margin", 0.5), form=kw.get("form", "margin"), weight=w),
        "stri": losses.soft_triplet(gap, teacher_gap, weight=w),
    }


@given(
    seed=st.integers(0, 10_000),
    form=st.sampled_from(losses.TRIPLET_FORMS),
    smoothing=st.sampled_from([0, 0.1]),
)
@settings(max_examples=25, deadline=None)
def test_losses_equal_the_reference(seed, form, smoothing):
    b = batch(seed)
    want = reference(b, form=form, smoothing=smoothing)
    for name, value in computed(b, form=form, smoothing=smoothing).items():
        assert value.item() == pytest.approx(want[name].mean(), rel=1e-9, abs=1e-9), name
    for name, value in computed(b, weight=True, form=form, smoothing=smoothing).items():
        mean = (want[name] * b["weight"]).sum() / b["weight"].sum()
        assert value.item() == pytest.approx(mean, rel=1e-9, abs=1e-9), name


@pytest.mark.parametrize("form", losses.TRIPLET_FORMS)
def test_gradients_by_finite_differences(form):
    b = {k: torch.from_numpy(v) for k, v in batch(3).items()}
    feature, logits = b["feature"].requires_grad_(), b["logits"].requires_grad_()

    def total(feature, logits):
        gap, teacher_gap = gaps(feature, b["teacher_feature"], b["label"])
        return (
            losses.identity(logits, b["label"], smoothing=0.1)
            + losses.soft_identity(logits, b["teacher_logits"])
            + losses.triplet(gap, form=form)
            + losses.soft_triplet(gap, teacher_gap)
        )

    assert torch.autograd.gradcheck(total, (feature, logits))


def test_mining_by_hand():
    x = torch.tensor([[0.0], [1.0], [4.0], [2.0], [10.0]])
    mined = losses.mine(losses.pairwise(x), torch.tensor([0, 0, 0, 1, 2]))
    assert mined.positive.tolist() == [2, 2, 0, 3, 4]
    assert mined.negative.tolist() == [3, 3, 3, 1, 2]


def test_triplet_by_hand():
    distance = torch.tensor([[0.0, 3.0, 1.0], [3.0, 0.0, 2.0], [1.0, 2.0, 0.0]], dtype=torch.float64)
    gap = losses.gap(distance, losses.mine(distance, torch.tensor([0, 0, 1])))
    assert gap.tolist() == [2, 1, -1]
    # rows: 0.5 + 3 − 1, 0.5 + 3 − 2, max(0, 0.5 + 0 − 1)
    assert losses.triplet(gap, margin=0.5).item() == pytest.approx((2.5 + 1.5 + 0) / 3)
    want = (math.log1p(math.exp(2)) + math.log1p(math.exp(1)) + math.log1p(math.exp(-1))) / 3
    assert losses.triplet(gap, form="softplus").item() == pytest.approx(want)


def test_teacher_side_carries_no_gradient():
    b = {k: torch.from_numpy(v) for k, v in batch(0).items()}
    teacher_feature = b["teacher_feature"].requires_grad_()
    teacher_logits = b["teacher_logits"].requires_grad_()
    feature, logits = b["feature"].requires_grad_(), b["logits"].requires_grad_()
    gap, teacher_gap = gaps(feature, teacher_feature, b["label"])
    loss = losses.soft_identity(logits, teacher_logits) + losses.soft_triplet(gap, teacher_gap)
    loss.backward()
    assert teacher_feature.grad is None
    assert teacher_logits.grad is None
    assert feature.grad.abs().sum() > 0
    assert logits.grad.abs().sum() > 0


def test_identical_rows_give_finite_gradients():
    x = torch.ones(4, 3, requires_grad=True)
    gap, _ = gaps(x, x, torch.tensor([0, 0, 1, 1]))
    (losses.triplet(gap) + losses.soft_triplet(gap, gap)).backward()
    assert torch.isfinite(x.grad).all()


def test_far_features_do_not_overflow():
    x = torch.tensor([[0.0], [1e4], [2e4], [5e4]], requires_grad=True)
    gap, _ = gaps(x, x, torch.tensor([0, 0, 1, 1]))
    loss = losses.soft_triplet(gap, gap) + losses.triplet(gap, form="softplus")
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_order_of_the_batch_does_not_matter(seed):
    b = batch(seed)
    order = np.random.default_rng(seed).permutation(B)
    shuffled = {k: v[order] for k, v in b.items()}
    for name, value in computed(b).items():
        assert computed(shuffled)[name].item() == pytest.approx(value.item(), rel=1e-12), name


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="margin, softplus"):
        losses.triplet(torch.zeros(2), form="hinge")
