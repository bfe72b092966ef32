"""The losses of training, and what they share; pure functions of tensors.

Every loss is a mean over the batch, weighted where `weight` is given. Distances are Euclidean, not squared,
between un-normalised features (METHODS: pre-BN); their gradient at distance zero is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tracklearn.types import Refusal

TRIPLET_FORMS = ("margin", "softplus")


class Mined(NamedTuple):
    """Indices into the batch of each row's hardest positive and hardest negative, (b,) int64 each."""

    positive: Tensor
    negative: Tensor


def pairwise(feature: Tensor) -> Tensor:
    """The (b, b) Euclidean distances between the rows of `feature` (b, d).

    Differences are squared one by one: the shorter |x|² + |y|² − 2xy loses, in float32, the digits that
    tell the hardest positive from its neighbour once feature norms are large. Memory O(b²).
    """
    return torch.cdist(feature, feature, compute_mode="donot_use_mm_for_euclid_dist")


def mine(distance: Tensor, label: Tensor) -> Mined:
    """Each row's farthest row of the same label and nearest row of another.

    Args:
        distance: (b, b).
        label: (b,) int64, at least two different ones (`sample.batches` sees to it; asking here would make
            a GPU wait). A row that is alone with its label is its own positive.

    Source: TMC eq. 3 (batch-hard mining, Hermans et al. 2017).
    """
    same = label[:, None] == label[None, :]
    distance = distance.detach()
    positive = distance.masked_fill(~same, float("-inf")).argmax(1)
    negative = distance.masked_fill(same, float("inf")).argmin(1)
    return Mined(positive, negative)


def gap(distance: Tensor, mined: Mined) -> Tensor:
    """(b,) d_ap − d_an: how much farther than the hardest negative the hardest positive is.

    Args:
        distance: (b, b), of the student or, at the student's indices, of the teacher.
        mined: from `mine` on the student's distances.
    """
    positive, negative = distance.gather(1, torch.stack(mined, 1)).unbind(1)
    return positive - negative


def _mean(loss: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return loss.mean()
    return (loss * weight).sum() / weight.sum()


def identity(
    logits: Tensor, label: Tensor, *, smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """L_id: cross-entropy of `logits` (b, c) with hard pseudo-labels (b,).

    Args:
        logits: (b, c).
        label: (b,) int64 in 0..c − 1.
        smoothing: share of the target spread evenly over all c classes.
        weight: (b,) or None.

    Source: TMC eq. 2; smoothing as in MMT's code.
    """
    return _mean(F.cross_entropy(logits, label, reduction="none", label_smoothing=smoothing), weight)


def triplet(
    gap: Tensor, *, margin: float = 0.5, form: str = "margin", weight: Tensor | None = None
) -> Tensor:
    """L_tri: batch-hard triplet loss, max(0, margin + d_ap − d_an) or softplus(d_ap − d_an).

    Args:
        gap: (b,) of the student.
        margin: for the form "margin".
        form: "margin" or "softplus".
        weight: (b,) or None.

    Raises:
        ValueError: unknown form.

    Source: TMC eq. 3; the softplus form from MMT's code.
    """
    if form == "margin":
        return _mean(F.relu(margin + gap), weight)
    if form == "softplus":
        return _mean(F.softplus(gap), weight)
    raise Refusal(f"form is {form!r}, expected one of {', '.join(TRIPLET_FORMS)}")


def centre(feature: Tensor, centre: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """L_cen: the mean squared Euclidean distance of each feature to the centre of its class.

    Args:
        feature: (b, d).
        centre: (b, d), of each row's class; takes a gradient too.
        weight: (b,) or None.

    Source: Wen et al., "A Discriminative Feature Learning Approach for Deep Face Recognition", ECCV 2016,
    eq. 2, without its ½ as in the code that re-ID took it from (Luo et al., "Bag of Tricks and a Strong
    Baseline for Deep Person Re-identification", CVPRW 2019).
    """
    return _mean((feature - centre).square().sum(1), weight)


def soft_identity(logits: Tensor, teacher_logits: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """L_sid: −Σ softmax(teacher) · log softmax(student); the teacher's side carries no gradient.

    Args:
        logits: (b, c) of the student.
        teacher_logits: (b, c).
        weight: (b,) or None.

    Source: TMC eq. 4.
    """
    target = teacher_logits.detach().softmax(1)
    return _mean(-(target * logits.log_softmax(1)).sum(1), weight)


def soft_triplet(gap: Tensor, teacher_gap: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """L_stri: binary cross-entropy between the student's and the teacher's T = e^d_an / (e^d_ap + e^d_an).

    Args:
        gap: (b,) of the student.
        teacher_gap: (b,) of the teacher, at the student's mined indices; carries no gradient.
        weight: (b,) or None.

    Source: TMC eq. 5-6; METHODS 2.4.
    """
    # T = sigmoid(−gap); its entropy is computed from the gap, finite where exp(d) would overflow.
    target = torch.sigmoid(-teacher_gap.detach())
    return _mean(F.binary_cross_entropy_with_logits(-gap, target, reduction="none"), weight)
