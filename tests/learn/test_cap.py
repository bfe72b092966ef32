"""CAP: its losses against slow references in float64, its memory by hand, and the method in the loop."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tests.core.films import film, walk
from torch import nn

from tracklearn.learn import sample, train
from tracklearn.learn.augment import Augment
from tracklearn.learn.heads import adam
from tracklearn.learn.method import Moment, Target, View
from tracklearn.learn.methods import cap
from tracklearn.learn.methods.cap import _associate, _draw, _iterations, _objective, _remember, _schedule
from tracklearn.types import PseudoLabels, Tracklets

FAST = {
    "isolate": False,
    "epochs": 3,
    "iterations": 3,
    "proxies_per_batch": 4,
    "tracklets_per_proxy": 2,
    "frames_cluster": 3,
    "inter_from": 1,
    "warm_up": 2,
    "drops": (2,),
    "alpha": 0.8,
    "learning_rate": 1e-3,
    "augment": Augment(pad=3, erase=0.3, colour=0.05),
    "k1": 10,
    "k2": 3,
    "min_samples": 2,
    "eps": "auto",
}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def drawn(seed, *, b=24, p=17, d=8, clusters=5, cameras=4):
    """A batch: unit features, proxies of (cluster, camera), and a target among them."""
    rng = np.random.default_rng(seed)
    pairs = np.stack(np.unravel_index(rng.permutation(clusters * cameras)[:p], (clusters, cameras)), 1)
    pairs[:, 1] = np.unique(pairs[:, 1], return_inverse=True)[1]
    label = rng.integers(0, p, b)
    return unit(rng.normal(size=(b, d))), unit(rng.normal(size=(p, d))), pairs, label


def target_of(pairs, label, *, epoch=9):
    label = torch.from_numpy(label)
    aux = {"cluster": torch.from_numpy(pairs[:, 0].copy()), "camera": torch.from_numpy(pairs[:, 1].copy())}
    return Target(label, label, label * 0, torch.ones(len(label)), aux, epoch)


def objective(config, feature, rows, pairs, label, **options):
    f = torch.as_tensor(feature)
    view = View(f, f, memory=torch.as_tensor(rows))
    return _objective(config, [view], [], target_of(pairs, label, **options))


# --- slow references, a sample at a time, from METHODS 6a


def log_softmax(values):
    return values - np.log(np.exp(values - values.max()).sum()) - values.max()


def over_cameras(values, camera):
    """Summed over the cameras in the batch, mean within a camera."""
    return sum(np.mean(values[camera == c]) for c in np.unique(camera))


def slow_intra(f, rows, pairs, label, tau):
    out = []
    for x, own in zip(f, label, strict=True):
        inside = np.flatnonzero(pairs[:, 1] == pairs[own, 1])
        log_p = log_softmax(rows[inside] @ x / tau)
        out.append(-log_p[inside.tolist().index(own)])
    return over_cameras(np.array(out), pairs[label, 1])


def slow_contrast(x, rows, positive, near, n, tau):
    others = np.array([j for j in np.argsort(-near, kind="stable") if j not in positive][:n], int)
    log_p = log_softmax(rows[np.concatenate([positive, others])] @ x / tau)
    return -log_p[: len(positive)].mean()


def slow_inter(f, rows, pairs, label, tau, n):
    out = []
    for x, own in zip(f, label, strict=True):
        positive = np.flatnonzero(pairs[:, 0] == pairs[own, 0])
        out.append(slow_contrast(x, rows, positive, rows @ x, n, tau))
    return over_cameras(np.array(out), pairs[label, 1])


def slow_online(f, rows, pairs, label, tau, n, k=3, balance=0.15):
    out = []
    for x, own in zip(f, label, strict=True):
        near = balance * (rows @ x) + (1 - balance) * (rows @ rows[own])
        best = [max(np.flatnonzero(pairs[:, 1] == c), key=lambda j: near[j]) for c in np.unique(pairs[:, 1])]
        positive = np.array(sorted(best, key=lambda j: -near[j])[:k])
        out.append(slow_contrast(x, rows, positive, near, n, tau))
    return over_cameras(np.array(out), pairs[label, 1])


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("n", [1, 4, 50])
def test_the_losses_are_those_of_methods_6a(seed, n):
    f, rows, pairs, label = drawn(seed, cameras=1 + seed % 5, p=min(17, 5 * (1 + seed % 5)))
    config = cap.Config(negatives=n, temperature=0.07)
    terms = objective(config, f, rows, pairs, label)
    assert terms["intra"].item() == pytest.approx(slow_intra(f, rows, pairs, label, 0.07), rel=1e-9)
    assert terms["inter"].item() == pytest.approx(slow_inter(f, rows, pairs, label, 0.07, n), rel=1e-9)
    assert terms["online"].item() == pytest.approx(slow_online(f, rows, pairs, label, 0.07, n), rel=1e-9)


def test_without_cameras_it_is_cluster_contrast():
    f, rows, pairs, label = drawn(3)
    pairs[:, 1] = 0
    config = cap.Config(cameras=False, temperature=0.05)
    terms = objective(config, f, rows, pairs, label)
    logits = torch.as_tensor(f @ rows.T / 0.05)
    assert set(terms) == {"intra", "accuracy"}
    assert terms["intra"].item() == pytest.approx(F.cross_entropy(logits, torch.as_tensor(label)).item())
    assert terms["accuracy"].item() == pytest.approx((logits.argmax(1).numpy() == label).mean())


def test_the_fit_is_counted_inside_cameras():
    rows = np.array([[1.0, 0], [0.8, 0.6], [0, 1.0]])
    pairs = np.array([[0, 0], [1, 1], [2, 0]])
    f = unit(np.array([[0.9, 0.3], [0.1, 0.9], [0.9, 0.1]]))  # the first is nearer to the other camera's
    assert objective(cap.Config(), f, rows, pairs, np.array([0, 0, 0]))["accuracy"].item() == pytest.approx(
        2 / 3
    )


def test_gradients_are_those_of_the_losses():
    f, rows, pairs, label = drawn(5, b=6)

    def total(x):
        unit_x = F.normalize(x)
        view = View(unit_x, unit_x, memory=torch.as_tensor(rows))
        terms = _objective(cap.Config(negatives=4), [view], [], target_of(pairs, label))
        return terms["intra"] + 0.5 * terms["inter"] + terms["online"]

    assert torch.autograd.gradcheck(total, torch.as_tensor(f).requires_grad_())


def test_losses_across_cameras_wait():
    f, rows, pairs, label = drawn(1)
    early = objective(cap.Config(), f, rows, pairs, label, epoch=4)
    assert early["intra"] > 0
    assert early["inter"] == early["online"] == 0
    late = objective(cap.Config(), f, rows, pairs, label, epoch=5)
    assert late["inter"] > 0
    assert late["online"] > 0


# --- the memory


def memory_after(rows, f, label, **settings):
    head = nn.Module()
    head.register_buffer("memory", torch.tensor(rows))
    feature = torch.tensor(f)
    _remember(
        cap.Config(**settings), head, View(feature, feature), target_of(np.zeros((len(rows), 2)), label)
    )
    return head.memory.numpy()


def test_the_memory_moves_sample_after_sample():
    rows = np.array([[1.0, 0], [0, 1.0], [0.6, 0.8]])
    f = np.array([[0, 1.0], [0.8, 0.6], [1.0, 0]])
    got = memory_after(rows, f, np.array([0, 1, 0]))
    # by hand: 0.2·(1, 0) + 0.8·(0, 1) = (0.2, 0.8), unit; then 0.2 of that + 0.8·(1, 0)
    once = np.array([0.2, 0.8]) / np.sqrt(0.68)
    twice = 0.2 * once + np.array([0.8, 0])
    np.testing.assert_allclose(got[0], twice / np.linalg.norm(twice))
    np.testing.assert_allclose(got[1], unit(np.array([0.64, 0.68])))
    np.testing.assert_array_equal(got[2], rows[2])


@pytest.mark.parametrize("momentum", [0.0, 0.2, 0.9])
def test_the_memory_is_that_of_a_loop(momentum):
    f, rows, _, label = drawn(7, b=64, p=9)
    want = rows.copy()
    for x, own in zip(f, label, strict=True):
        want[own] = unit(momentum * want[own] + (1 - momentum) * x)
    np.testing.assert_allclose(memory_after(rows, f, label, momentum=momentum), want, atol=1e-12)


def test_the_hardest_sample_alone_moves_a_row():
    f, rows, _, label = drawn(8, b=40, p=6)
    want = rows.copy()
    for own in np.unique(label):
        mine = f[label == own]
        want[own] = unit(0.2 * rows[own] + 0.8 * mine[np.argmin(mine @ rows[own])])
    np.testing.assert_allclose(memory_after(rows, f, label, hardest=True), want, atol=1e-12)
    # of two that are as hard, the first
    twin = np.array([[0.0, 1.0], [0.0, -1.0]])
    np.testing.assert_allclose(
        memory_after(np.array([[1.0, 0.0]]), twin, np.array([0, 0]), hardest=True),
        unit(np.array([[0.2, 0.8]])),
    )


def test_the_memory_begins_as_unit_means():
    features = unit(np.random.default_rng(0).normal(size=(5, 4))).astype(np.float32)
    head = cap.Memory(features, PseudoLabels.of(np.array([0, 1, -1, 1, 0])))
    want = unit(np.stack([features[[0, 4]].mean(0), features[[1, 3]].mean(0)]))
    np.testing.assert_allclose(head.memory.numpy(), want, rtol=1e-6)
    assert not list(head.parameters())
    assert list(head.state_dict()) == ["memory"]


# --- labels


def on_a_line(camid):
    n = len(camid)
    return Tracklets(
        tracklet=np.arange(n),
        frame=np.arange(n),
        time=np.arange(n) / 10,
        box=np.zeros((n, 4)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.asarray(camid),
        source=np.arange(n),
    )


def groups(n=3, each=6, cameras=3, seed=0):
    rng = np.random.default_rng(seed)
    centre = np.repeat(np.eye(n, 8), each, 0)
    features = unit(centre + rng.normal(0, 0.05, centre.shape)).astype(np.float32)
    return features, on_a_line(np.tile(np.arange(cameras), n * each // cameras))


def test_proxies_are_clusters_by_camera():
    features, tracklets = groups()
    config = cap.Config(k1=5, k2=2, eps=0.5)
    found = _associate(config, features, tracklets, {})
    np.testing.assert_array_equal(found.group, np.repeat([0, 1, 2], 6))
    np.testing.assert_array_equal(found.people.label, found.group)
    np.testing.assert_array_equal(found.labels.space, tracklets.camid)
    np.testing.assert_array_equal(found.labels.label, found.group * 3 + tracklets.camid)
    np.testing.assert_array_equal(found.aux["cluster"], np.repeat([0, 1, 2], 3))
    np.testing.assert_array_equal(found.aux["camera"], np.tile([0, 1, 2], 3))
    assert found.eps == 0.5
    assert {name: found.record[name] for name in ("proxies", "cameras_per_cluster", "proxies_3")} == {
        "proxies": 9,
        "cameras_per_cluster": 3,
        "proxies_3": 3,
    }
    assert [found.record[f"proxies_cam{c}"] for c in range(3)] == [3, 3, 3]


def test_without_cameras_labels_are_clusters():
    features, tracklets = groups()
    found = _associate(cap.Config(k1=5, k2=2, cameras=False), features, tracklets, {})
    np.testing.assert_array_equal(found.labels.label, found.group)
    assert set(found.labels.space.tolist()) == {-1}
    assert set(found.aux["camera"].tolist()) == {0}
    assert "proxies" not in found.record


@pytest.mark.parametrize("cameras", [16, 17])
def test_the_record_counts_proxies(cameras):
    """Against a count of pairs: people of two cameras each, one of one camera, one of three; one is noise."""
    met = [[c, (c + 1) % cameras] * 2 for c in range(cameras)] + [[3] * 4, [0, 1, 2, 2]]
    who = np.r_[np.repeat(np.arange(len(met)), 4), len(met)]
    rng = np.random.default_rng(0)
    features = unit(np.eye(len(met) + 1)[who] + rng.normal(0, 0.02, (len(who), len(met) + 1)))
    config = cap.Config(k1=5, k2=2, min_samples=2)
    found = _associate(config, features.astype(np.float32), on_a_line(np.r_[np.ravel(met), 5]), {})
    np.testing.assert_array_equal(found.group, np.where(who < len(met), who, -1))
    pairs = {(w, c) for w, cams in enumerate(met) for c in cams}
    assert found.record["proxies"] == len(pairs) == found.labels.n_clusters == 2 * cameras + 4
    assert found.record["cameras_per_cluster"] == pytest.approx(len(pairs) / len(met))
    assert [found.record[f"proxies_{n}"] for n in (1, 2, 3)] == [1, cameras, 1]
    assert "proxies_4" not in found.record
    each = Counter(c for _, c in pairs)
    got = {name: n for name, n in found.record.items() if name.startswith("proxies_cam")}
    # a number for each camera is told of up to sixteen
    assert got == ({f"proxies_cam{c}": each[c] for c in range(16)} if cameras == 16 else {})


def test_features_without_their_cameras_are_clustered():
    rng = np.random.default_rng(1)
    truth, tracklets = np.repeat(np.arange(6), 6), on_a_line(np.tile([0, 1, 2], 12))
    features = rng.normal(size=(6, 16))[truth] + rng.normal(0, 0.1, (36, 16))
    shifted = unit(features + rng.normal(0, 3, (3, 16))[tracklets.camid]).astype(np.float32)
    config = {"k1": 5, "k2": 2, "eps": 0.5}
    plain = _associate(cap.Config(**config), shifted, tracklets, {})
    normalised = _associate(cap.Config(**config, normalise=True), shifted, tracklets, {})
    assert plain.record["cameras_per_cluster"] < 1.5 < 2 < normalised.record["cameras_per_cluster"]
    for cluster in range(normalised.group.max() + 1):
        assert len(set(truth[normalised.group == cluster])) == 1
    # a frozen camera: every row is its mean
    still = shifted.copy()
    still[tracklets.camid == 0] = still[0]
    assert len(_associate(cap.Config(**config, normalise=True), still, tracklets, {}).group) == 36


# --- who is seen side by side


def side_by_side(tracklets):
    """Tracklets of one camera that have a frame in common in which their boxes do not meet, crop by crop."""
    owner, box, found = tracklets.tracklet, tracklets.box, set()
    for i, j in combinations(range(tracklets.n_crops), 2):
        a, b = owner[i], owner[j]
        met = all(box[i, k] < box[j, k + 2] and box[j, k] < box[i, k + 2] for k in (0, 1))
        if a != b and tracklets.camid[a] == tracklets.camid[b] and tracklets.frame[i] == tracklets.frame[j]:
            found |= set() if met else {(int(a), int(b))}
    return found


def held(label, pairs):
    """Pairs of which both are in one cluster."""
    return [(a, b) for a, b in pairs if label[a] == label[b] >= 0]


def twins(seed):
    """Four people, the first two of one look, who walk side by side through three cameras, twice each."""
    rng = np.random.default_rng(seed)
    visits = [(who, camera, time) for who in range(4) for camera in range(3) for time in range(2)]
    tracks = [walk(100.0 * who, first=50 * time, n=3) for who, _, time in visits]
    look = np.array([max(who - 1, 0) for who, *_ in visits])
    features = unit(np.eye(3, 8)[look] + rng.normal(0, 0.05, (len(visits), 8))).astype(np.float32)
    return features, film(tracks, camid=np.array([camera for _, camera, _ in visits]))


@pytest.mark.parametrize("seed", range(3))
def test_people_seen_side_by_side_are_never_one_cluster(seed):
    features, tracklets = twins(seed)
    pairs = side_by_side(tracklets)
    assert len(pairs) == 3 * 2 * 6  # cameras, times, pairs of four
    config = {"k1": 8, "k2": 2, "eps": 0.7, "min_samples": 2, "fit_to_size": False}
    plain = _associate(cap.Config(**config), features, tracklets, {})
    told = _associate(cap.Config(**config, time_tells=True), features, tracklets, {})
    assert len(held(plain.group, pairs)) == 3 * 2  # without time the two of one look are one
    assert held(told.group, pairs) == held(told.labels.label, pairs) == []
    assert told.people.n_clusters > plain.people.n_clusters == 3
    assert told.record["apart"] == len(pairs)
    assert told.record["splits"] > 0
    assert "apart" not in plain.record


def crowd(seed):
    """Twelve proxies, of four clusters in three cameras, and noise, who come and go past each other."""
    rng = np.random.default_rng(seed)
    label = np.r_[np.repeat(np.arange(12), 2), [-1] * 3]
    tracks = [walk(rng.uniform(0, 150), first=int(rng.integers(0, 12)), n=3) for _ in label]
    return film(tracks, camid=np.maximum(label, 0) % 3), PseudoLabels.of(label)


@pytest.mark.parametrize("seed", range(5))
def test_proxies_seen_side_by_side_follow_each_other(seed):
    """Pass by pass: each proxy is followed by one seen beside it, as long as one of those has not come."""
    tracklets, labels = crowd(seed)
    beside = {proxy: set() for proxy in range(12)}
    for a, b in side_by_side(tracklets):
        one, two = labels.label[[a, b]].tolist()
        if min(one, two) >= 0 and one != two:
            beside[one].add(two)
            beside[two].add(one)
    assert sum(map(len, beside.values())) >= 6
    assert all(one % 3 == two % 3 for one, found in beside.items() for two in found)  # negatives of `intra`
    config = {"proxies_per_batch": 4, "tracklets_per_proxy": 2}

    def drawn_with(**more):
        return _draw(cap.Config(**config, **more), tracklets, labels, 30, np.random.default_rng(seed))

    told = drawn_with(time_tells=True)
    order = labels.label[told.tracklet].reshape(30, 4, 2)
    assert (order[:, :, 0] == order[:, :, 1]).all()
    for run in order[:, :, 0].reshape(-1, 12).tolist():
        assert sorted(run) == list(range(12))
        left, turn = set(run), iter(run)
        for first in turn:
            left.remove(first)
            if beside[first] & left:
                second = next(turn)
                assert second in beside[first]
                left.remove(second)
    plain = sample.batches(
        *(tracklets, labels, 30, np.random.default_rng(seed)),
        clusters_per_batch=4,
        tracklets_per_cluster=2,
        n_frames=1,
    )
    np.testing.assert_array_equal(drawn_with().row, plain.row)
    assert (told.row != plain.row).any()


def test_an_epoch_shows_every_labelled_tracklet_once():
    labels = PseudoLabels.of(np.array([0] * 50 + [1] * 46 + [-1] * 40))
    assert _iterations(cap.Config(), labels) == 3
    assert _iterations(cap.Config(iterations=7), labels) == 7


def test_the_rate_by_rounds():
    student = nn.Linear(2, 2)
    (optimiser,) = adam(student, nn.Module(), learning_rate=1.0, weight_decay=0)
    config = cap.Config(learning_rate=1.0)

    def rate(epoch):
        _schedule(config, [student], [optimiser], Moment(0, 1, 0, 1, epoch))
        return optimiser.param_groups[0]["lr"]

    got = [rate(epoch) for epoch in (0, 5, 10, 19, 20, 39, 40)]
    np.testing.assert_allclose(got, [0.01, 0.505, 1, 1, 0.1, 0.1, 0.01])


# --- settings, and the loop


@pytest.mark.parametrize(
    "settings",
    [
        {"weight_intra": 0, "weight_inter": 0, "weight_online": 0},
        {"weight_intra": 0, "cameras": False},
        {"weight_intra": 0},  # nothing in the rounds before inter_from
        {"samples_per_bn": 1},
        {"eps": 1.5},
        {"momentum": 1},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        cap.Config(**settings)


def test_every_setting_says_where_it_comes_from():
    for name, field in cap.Config.model_fields.items():
        assert field.description, name
        assert any(mark in field.description for mark in ("paper", "code", "Cluster Contrast", "chosen")), (
            name
        )


@pytest.fixture(scope="module")
def easy(people, small):
    tracklets, crops, _ = people(n_cameras=3)
    return tracklets, crops, small(crops)


def run(easy, resume=None, **settings):
    tracklets, crops, network = easy
    chosen = cap.method(cap.Config(**{**FAST, **settings}))
    config = train.Config(checkpoint_every=1)
    return list(train.train(chosen, network, tracklets, crops, config=config, seed=2, resume=resume))


def states(events):
    return [e for e in events if isinstance(e, train.State)]


def through_a_file(state):
    arrays = {name: np.ascontiguousarray(value).copy() for name, value in sorted(state.arrays.items())}
    return train.State(arrays, json.loads(json.dumps(state.meta, allow_nan=False)))


@pytest.mark.parametrize(
    "settings",
    [{}, {"cameras": False, "hardest": True}, {"mean_teacher": False}, {"isolate": True, "isolate_every": 2}],
)
def test_going_on_from_every_state_is_bit_identical(easy, settings):
    whole = run(easy, **{**settings, **({"eps_intra": "auto"} if "isolate" in settings else {})})
    for i, event in enumerate(whole):
        if isinstance(event, train.State):
            rest = run(
                easy,
                resume=through_a_file(event),
                **{**settings, **({"eps_intra": "auto"} if "isolate" in settings else {})},
            )
            assert [type(e) for e in rest] == [type(e) for e in whole[i + 1 :]]
            for got, want in zip(states(rest), states(whole[i + 1 :]), strict=True):
                assert got.arrays.keys() == want.arrays.keys()
                for name, value in want.arrays.items():
                    assert got.arrays[name].tobytes() == value.tobytes(), name
                assert got.meta == want.meta


def test_adam_remembers_from_round_to_round(easy):
    steps = [s.arrays.get("optimisers.0.0.step") for s in states(run(easy)) if "fit" not in s.meta]
    assert [None if s is None else int(s) for s in steps] == [None, 3, 6, 9]


def test_the_teacher_is_the_average_of_students_and_sees_no_batch(easy):
    """By hand from the states: every parameter and running statistic."""
    seen = states(run(easy))
    for step, (before, after) in enumerate(pairwise(seen)):
        done = after.meta["step"]
        if done == before.meta["step"]:
            continue
        m = min(1 - 1 / done, 0.8)
        names = [
            n for n, value in after.arrays.items() if n.startswith("teacher.") and value.dtype.kind == "f"
        ]
        assert len(names) == 9  # a convolution, and two norms of four
        for name in names:
            student = after.arrays["student" + name.removeprefix("teacher")]
            want = m * before.arrays[name].astype(np.float64) + (1 - m) * student
            np.testing.assert_allclose(
                after.arrays[name], want, rtol=1e-4, atol=1e-6, err_msg=f"{step} {name}"
            )


def test_it_learns(easy):
    settings = {"epochs": 6, "iterations": 8, "learning_rate": 3e-3, "drops": (), "warm_up": 0}
    rounds = [e for e in run(easy, **settings) if isinstance(e, train.Round)]
    assert {r.stage for r in rounds} == {"cap"}
    assert rounds[-1].losses["intra"] < 0.7 * rounds[0].losses["intra"]
    assert rounds[-1].accuracy > rounds[0].accuracy
    assert rounds[-1].record["proxies"] > rounds[-1].n_clusters
    assert set(rounds[-1].losses) == {"intra", "inter", "online", "total"}
    assert rounds[0].losses["inter"] == 0


def test_the_same_seed_gives_the_same_bytes(easy):
    first, second = (states(run(easy))[-1] for _ in range(2))
    for name, value in first.arrays.items():
        assert second.arrays[name].tobytes() == value.tobytes(), name


def test_time_tells_in_training(people, small):
    """Six people side by side, twice in each of three cameras; the second is dressed as the first."""
    tracklets, crops, pid = people(n_cameras=3, n_frames=3, cast=0.1)
    crops.images[pid == 1] = np.roll(crops.images[pid == 0], 1, axis=2)
    frame = tracklets.frame + 20 * (tracklets.tracklet % 2)
    box = np.array([0, 0, 50, 120]) + 100.0 * np.outer(pid, [1, 0, 1, 0])
    tracklets = replace(tracklets, frame=frame, time=frame / 10, box=box)
    pairs = side_by_side(tracklets)
    assert len(pairs) == 3 * 2 * 15  # cameras, times, pairs of six
    for told in (False, True):
        events = run((tracklets, crops, small(crops)), time_tells=told)
        rounds = [e for e in events if isinstance(e, train.Round)]
        assert len(rounds) == FAST["epochs"]
        assert all(bool(held(r.labels.label, pairs)) != told for r in rounds)
        assert all(r.n_clusters >= 4 for r in rounds)
        assert all(("apart" in r.record) == told for r in rounds)


@pytest.mark.parametrize("isolate", [False, True])
def test_single_images_are_learned_from(people, small, isolate):
    """Every tracklet is one crop, as of an image data set without labels."""
    tracklets, crops, pid = people(n_cameras=3, per_camera=3, n_frames=1)
    n = len(tracklets)
    assert n == len(crops) == tracklets.n_crops
    events = run((tracklets, crops, small(crops)), isolate=isolate, normalise=True)
    rounds = [e for e in events if isinstance(e, train.Round)]
    assert len(rounds) == FAST["epochs"]
    for r in rounds:
        label = r.labels.label
        assert label.shape == (n,)  # isolation cuts nothing and drops nothing
        assert r.n_clusters == len(set(label.tolist()) - {-1}) >= 4
        assert (label >= 0).mean() > 0.5
        same = (label[:, None] == label) & (label >= 0) & ~np.eye(n, dtype=bool)
        assert (pid[:, None] == pid)[same].mean() > 0.5  # by chance 8 of 53
        assert r.record["proxies"] > r.n_clusters  # some were found in several cameras
        assert np.isfinite(list(r.losses.values())).all()
    first, *_, last = states(events)
    assert (first.arrays["teacher.conv.weight"] != last.arrays["teacher.conv.weight"]).any()
