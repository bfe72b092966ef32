"""Inner loops of `core.rank`."""

from __future__ import annotations

import numpy as np

from tracklearn.core.kernels.compiled import kernel

_BLOCK = 4096  # distances compared with all matches in turn, while they are in the nearest cache
_MANY = 512  # matches from which one binary search per distance is cheaper than one pass per match


@kernel(fastmath={"reassoc"})
def _load(row, hide, out):
    """Writes row + hide to `out`; whether the row holds NaN."""
    # Counts are of the type that is compared, so that they add up in as many lanes; a block's are exact.
    one, none = out.dtype.type(1), out.dtype.type(0)
    bad = none
    for j in range(row.shape[0]):
        out[j] = row[j] + hide[j]
        bad += one if row[j] != row[j] else none
    return bad > none


@kernel(fastmath={"reassoc"})
def _count(values, limit):
    """Values at or below the limit; NaN is not."""
    one, none = values.dtype.type(1), values.dtype.type(0)
    total = none
    for j in range(values.shape[0]):  # by index: over an iterator the compiler does not vectorise
        total += one if values[j] <= limit else none
    return np.int64(total)


@kernel()
def _count_each(wrong, hit, before):
    """before[j] = entries of `wrong` at or below hit[j], which are ascending."""
    before[:] = 0
    if len(hit) > _MANY:
        for value in wrong:
            if value <= hit[-1]:
                before[np.searchsorted(hit, value)] += 1
        for j in range(1, len(hit)):
            before[j] += before[j - 1]
        return
    for low in range(0, len(wrong), _BLOCK):
        block = wrong[low : low + _BLOCK]
        for j in range(len(hit) - 1, -1, -1):
            count = _count(block, hit[j])
            if count == 0:
                break  # nothing is nearer than the nearer matches either
            before[j] += count


@kernel()
def _average_precision(hit, before, variant):
    """From the distances of the true matches, ascending, and the wrong entries at or before each."""
    n = len(hit)
    total = 0.0
    tied = n  # matches up to and with those at the distance of this one
    for j in range(n - 1, -1, -1):
        if j + 1 < n and hit[j] != hit[j + 1]:
            tied = j + 1
        found = tied if variant == 2 else j + 1
        precision = found / (found + before[j])
        if variant == 1:
            earlier = j + before[j]
            precision = (precision + (j / earlier if earlier else 1.0)) / 2
        total += precision
    return total / n


@kernel()
def score_counted(n, hit, before, variant, ap, ahead):
    """What `score` writes, from what is already counted.

    Args:
        n: (b,) true matches of each query, −2 where NaN was found.
        hit: (b, m) their distances, ascending. before: (b, m) wrong entries at or before each.
        variant, ap, ahead: as for `score`.
    """
    for i in range(n.shape[0]):
        if n[i] <= 0:
            ahead[i] = min(n[i], -1)
            continue
        ahead[i] = before[i, 0]
        ap[i] = _average_precision(hit[i, : n[i]], before[i, : n[i]], variant)


@kernel()
def score(
    distance, hide, member, gallery_camid, first, last, query_camid, own, same_camera, variant, ap, ahead
):
    """Average precision of each row of `distance`, and the wrong entries that stand before its first match.

    Args:
        distance: (b, g) float32 or float64.
        hide: (g,) of the same type, NaN for rows that are in no query's gallery, else 0.
        member: rows that are not hidden, by person. gallery_camid: (g,).
        first, last: (b,) where in `member` each query's person lies. query_camid: (b,).
        own: (b,) row left out of this query's gallery, −1 for none.
        same_camera: whether matches in the query's camera count.
        variant: 0 precision at the hits, 1 trapezoid, 2 scikit-learn's.
        ap: (b,) float64, written. ahead: (b,) int64, written: −1 without a match, −2 where NaN was found.
    """
    wrong = np.empty(distance.shape[1], distance.dtype)
    most = 0
    for i in range(distance.shape[0]):
        most = max(most, last[i] - first[i])
    hits = np.empty(most, distance.dtype)
    counts = np.empty(most, np.int64)
    for i in range(distance.shape[0]):
        row = distance[i]
        if _load(row, hide, wrong):
            ahead[i] = -2
            continue
        if own[i] >= 0:
            wrong[own[i]] = np.nan
        n = 0
        for m in range(first[i], last[i]):
            j = member[m]
            wrong[j] = np.nan
            if j != own[i] and (same_camera or gallery_camid[j] != query_camid[i]):
                hits[n] = row[j]
                n += 1
        if n == 0:
            ahead[i] = -1
            continue
        hit, before = hits[:n], counts[:n]
        hit.sort()
        _count_each(wrong, hit, before)
        ahead[i] = before[0]
        ap[i] = _average_precision(hit, before, variant)


@kernel(fastmath={"reassoc", "contract"})
def _squared_difference(x, y):
    """|x − y|², 0 for equal rows."""
    total = np.float32(0)
    for i in range(x.shape[0]):
        step = x[i] - y[i]
        total += step * step
    return total


@kernel()
def _squared_distances(row, own, other):
    """Turns products x·y into |x|² + |y|² − 2 x·y, the lengths given as |x|² − 1."""
    two = np.float32(2)
    for j in range(row.shape[0]):
        row[j] = (two - two * row[j]) + (own + other[j])


@kernel()
def _blend(row, jaccard, scale, share):
    for j in range(row.shape[0]):
        row[j] = scale * row[j] + share * jaccard[j]


@kernel()
def blend(
    out, query, gallery, query_length, gallery_length, slack, scale, share, start, column, weight, by_column
):
    """Turns the products x·y in `out` into scale · squared distance + share · Jaccard distance.

    Args:
        out: (b, g) float32, products of the rows of `query` (b, d) and `gallery` (g, d).
        query_length: (b,) and gallery_length (g,) float32, |x|² − 1.
        slack: squared distances up to it, which may be mere rounding, are computed again from differences.
        scale: (b,) float32. share: float32.
        start: (b + 1,) where the rows of the queries' encoding lie in `column` and `weight`.
        by_column: start, row and weight of the gallery's encoding, column by column.
    """
    t_start, t_row, t_weight = by_column
    shared = np.zeros(out.shape[1], np.float64)
    jaccard = np.ones(out.shape[1], np.float32)
    touched = np.empty(out.shape[1], np.int64)
    for i in range(out.shape[0]):
        row = out[i]
        _squared_distances(row, query_length[i], gallery_length)
        if _count(row, slack):
            for j in range(row.shape[0]):
                if row[j] <= slack:
                    row[j] = _squared_difference(query[i], gallery[j])
        size = 0
        for a in range(start[i], start[i + 1]):
            for b in range(t_start[column[a]], t_start[column[a] + 1]):
                j = t_row[b]
                if shared[j] == 0.0:
                    touched[size] = j
                    size += 1
                shared[j] += min(weight[a], t_weight[b])
        for t in range(size):
            j = touched[t]
            value = 1.0 - shared[j] / (2.0 - shared[j])
            jaccard[j] = value if value > 1e-12 else 0.0  # rows encoded alike, whatever the sums rounded to
            shared[j] = 0.0
        _blend(row, jaccard, scale[i], share)
        for t in range(size):
            jaccard[touched[t]] = 1.0
