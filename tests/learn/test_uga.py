"""UGA: branches, losses and node update from the equations, its graph, sampling, both stages in the loop."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from tracklearn.core import coded, graph
from tracklearn.learn import train
from tracklearn.learn.augment import Augment
from tracklearn.learn.method import Target, View
from tracklearn.learn.methods import uga
from tracklearn.types import PseudoLabels, Tracklets

CAMID = np.array([1, 0, 2, 1, 0, 2, 1, 0])
T, D = len(CAMID), 5


def classes(camid=CAMID):
    return PseudoLabels(np.arange(len(camid)), np.ones(len(camid)), camid)


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def features(t=T, d=D, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(t, d)))


def test_defaults():
    values = uga.Config().model_dump()
    del values["augment"]
    assert values == {
        "isolate": False,
        "isolation": "dbscan",
        "join_intra": "none",
        "least_intra": 1,
        "isolate_every": 0,
        "penalty_intra": "auto",
        "eps_intra": 0.6,
        "min_samples_intra": 2,
        "metric": "euclidean",
        "sampling": "sstt",
        "period": "auto",
        "distance": 0.5,
        "epochs_intra": 40,
        "epochs_inter": 40,
        "k": 1,
        "threshold": 0.6,
        "neighbors": "exact",
        "node_rate": 0.1,
        "logits": "cosine",
        "temperature": 0.05,
        "iterations": "auto",
        "tracklets_per_batch": 16,
        "images_per_tracklet": 4,
        "frames_cluster": 32,
        "learning_rate": 3.5e-4,
        "weight_decay": 5e-4,
        "label_smoothing": 0,
        "samples_per_bn": 16,
    }
    assert uga.Config(epochs_intra=3, epochs_inter=4).epochs == 7


def test_every_setting_says_where_it_comes_from():
    for name, field in uga.Config.model_fields.items():
        assert field.description, name
        assert any(mark in field.description for mark in ("[paper", "[page", "[code", "[chosen")), name


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": 3},
        {"sampling": "some"},
        {"period": 0},
        {"distance": -1},
        {"k": 0},
        {"threshold": 1},
        {"node_rate": 0},
        {"temperature": 0},
        {"logits": "dot"},
        {"tracklets_per_batch": 1},
        {"samples_per_bn": 1},
        {"metric": "cosine"},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        uga.Config(**settings)


def test_stages():
    intra, inter = uga.method().stages
    assert (intra.name, intra.rounds, intra.assign_every, intra.alpha) == ("intra", 40, 40, None)
    assert (inter.name, inter.rounds, inter.assign_every, inter.alpha) == ("inter", 40, 1, None)
    assert uga.method().name == "uga"
    assert uga.method(uga.Config(isolate=True)).name == "uga+isolation"
    assert [s.rounds for s in uga.method(uga.Config(epochs_intra=0, epochs_inter=1)).stages] == [0, 1]
    assert [intra.iterations(classes(np.zeros(t))) for t in (2, 16, 17, 1955)] == [1, 4, 5, 489]
    assert uga.method(uga.Config(iterations=7)).stages[1].iterations(classes()) == 7


# ---- branches


def softmax_by_camera(logits, camid=CAMID):
    """(b, t) probabilities: plain loops."""
    p = np.zeros_like(logits)
    for i, row in enumerate(logits):
        for j, camera in enumerate(camid):
            p[i, j] = np.exp(row[j]) / sum(np.exp(row[k]) for k in range(len(camid)) if camid[k] == camera)
    return p


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_branches_are_one_softmax_for_each_camera(temperature):
    x, w = np.random.default_rng(1).normal(size=(6, D)), features()
    head = uga.Branches(w, classes(), temperature=temperature)
    assert head.state_dict().keys() == {"weight"}
    assert (head.weight.detach().numpy() == w).all()
    logits = x @ w.T if temperature is None else unit(x) @ w.T / temperature
    got = head(torch.from_numpy(x)).detach().exp().numpy()
    np.testing.assert_allclose(got, softmax_by_camera(logits), rtol=1e-12)


def test_branches_are_not_rounded_by_autocast():
    x, w = torch.randn(6, D, generator=torch.Generator().manual_seed(0)), features().astype(np.float32)
    head = uga.Branches(w, classes(), temperature=0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(x), head(x.float()))
        assert head(x.bfloat16()).dtype == torch.float32
    assert torch.equal(head(x), torch.autocast("cpu", dtype=torch.bfloat16)(head)(x))


def test_a_head_does_not_change_the_features_it_is_made_from():
    w = features()
    before = w.copy()
    with torch.no_grad():
        uga.Branches(w, classes()).weight.zero_()
    assert (w == before).all()


# ---- losses


def batch(tracklet, aux):
    tracklet = torch.as_tensor(tracklet)
    aux = {name: torch.as_tensor(np.array(value)) for name, value in aux.items()}
    space = torch.from_numpy(CAMID.astype(np.int64))[tracklet]
    return Target(tracklet, tracklet, space, torch.ones(len(tracklet)), aux)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_inside_cameras_by_hand(smoothing):
    rng = np.random.default_rng(2)
    x, tracklet = rng.normal(size=(7, D)), [0, 0, 1, 7, 3, 4, 6]
    stage = uga.method(uga.Config(label_smoothing=smoothing)).stages[0]
    tracklets = bare(CAMID)
    assigned = stage.assign(features(), tracklets, {})
    head = stage.head(features(), assigned.labels)
    target = batch(tracklet, assigned.aux)
    terms = stage.objective([View(torch.zeros(7, D), head(torch.from_numpy(x)))], [], target)
    p = softmax_by_camera(x @ features().T)
    loss, hit = np.zeros(7), np.zeros(7)
    for i, a in enumerate(tracklet):
        inside = np.flatnonzero(CAMID[a] == CAMID)
        even = -np.mean([np.log(p[i, j]) for j in inside])
        loss[i] = -(1 - smoothing) * np.log(p[i, a]) + smoothing * even
        hit[i] = p[i, a] == max(p[i, j] for j in inside)
    assert 0 < hit.sum() < 7
    assert terms.keys() == {"id", "accuracy", *(f"{n}_cam{c}" for n in ("id", "acc") for c in range(3))}
    assert terms["id"].item() == pytest.approx(loss.mean())
    assert terms["accuracy"].item() == pytest.approx(hit.mean())
    for c in range(3):
        own = CAMID[tracklet] == c
        np.testing.assert_allclose(terms[f"id_cam{c}"].detach(), [loss[own].sum(), own.sum()], rtol=1e-6)
        np.testing.assert_allclose(terms[f"acc_cam{c}"].detach(), [hit[own].sum(), own.sum()])
    assert terms["id_cam2"].tolist() == [0, 0]


def test_many_cameras_have_no_numbers_of_their_own():
    camid = np.r_[np.arange(17), np.arange(17)]
    stage = uga.method().stages[0]
    assigned = stage.assign(features(34), bare(camid), {})
    target = Target(*(torch.zeros(1, dtype=torch.int64),) * 3, torch.ones(1), {})
    target = dataclasses.replace(target, aux={n: torch.as_tensor(v) for n, v in assigned.aux.items()})
    view = View(torch.zeros(1, D), torch.zeros(1, 34))
    assert stage.objective([view], [], target).keys() == {"id", "accuracy"}


def edges():
    """A graph in which tracklets 1 and 2 have several neighbours and 5 and 6 none; two in one camera."""
    dense = np.zeros((T, T))
    for i, j, weight in ((0, 1, 0.9), (1, 2, 0.7), (1, 3, 0.65), (2, 4, 0.8), (3, 7, 0.61)):
        dense[i, j] = dense[j, i] = weight
    i, j = np.nonzero(dense)
    start = np.r_[0, np.cumsum((dense > 0).sum(1))]
    return dense, graph.Graph(start, j, dense[i, j].astype(np.float32))


def test_neighbours_by_8_bit_products_give_the_same_graph(monkeypatch):
    for module, name in ((coded, "_FEW"), (graph, "_PER_CAMERA")):
        monkeypatch.setattr(module, name, 0)
    made = {
        way: uga.method(uga.Config(threshold=0, neighbors=way))
        .stages[1]
        .assign(features(d=16), bare(CAMID), {})
        for way in ("exact", "int8")
    }
    assert made["exact"].record["n_edges"] > 3
    assert made["int8"].record == made["exact"].record
    np.testing.assert_array_equal(made["int8"].aux["edge"], made["exact"].aux["edge"])


def across(config, monkeypatch):
    """The stage across cameras on the graph `edges`, its head in float64, and dense e with e(i, i) = 1."""
    dense, made = edges()
    monkeypatch.setattr(graph, "cross_view", lambda *a, **k: made)
    stage = uga.method(config).stages[1]
    assigned = stage.assign(features(), bare(CAMID), {})
    aux = {**assigned.aux, "edge": np.float64(assigned.aux["edge"])}
    return stage, stage.head(features(), assigned.labels), aux, np.float64(np.float32(dense)) + np.eye(T)


UPDATES = {
    "cosine": {"logits": "cosine", "temperature": 0.2, "node_rate": 0.1},
    "raw": {"logits": "raw", "node_rate": 0.03},
}


@pytest.mark.parametrize("name", UPDATES)
def test_loss_and_node_update_are_the_equations(name, monkeypatch):
    tracklet = np.array([0, 1, 1, 2, 7, 5])
    config = uga.Config(**UPDATES[name], tracklets_per_batch=3, images_per_tracklet=2)
    stage, head, aux, e = across(config, monkeypatch)
    x = np.random.default_rng(3).normal(size=(6, D))
    tau = config.temperature if name == "cosine" else 1.0
    phi = unit(x) if name == "cosine" else x
    start = head.weight.detach().numpy().copy()

    # the loss, image by image and neighbour by neighbour
    p = softmax_by_camera(phi @ start.T / tau)
    each = [[-e[i, a] * np.log(p[n, a]) for a in range(T) if e[i, a]] for n, i in enumerate(tracklet)]
    own = [-np.log(p[n, i]) for n, i in enumerate(tracklet)]
    feature = torch.tensor(x, requires_grad=True)
    terms = stage.objective([View(feature, head(feature))], [], batch(tracklet, aux))
    total = sum(stage.weights[n] * terms[n] for n in stage.weights)
    assert total.item() * 6 == pytest.approx(sum(map(sum, each)))
    assert terms["id"].item() == pytest.approx(np.mean(own))
    assert terms["accuracy"].item() == pytest.approx(
        np.mean([p[n, i] == p[n, CAMID[i] == CAMID].max() for n, i in enumerate(tracklet)])
    )

    # the node update in closed form: c_j + η/τ Σ_batch Σ_{a in camera of j} e(i, a) (1[j = a] − p_j) φ
    closed = start.copy()
    for n, i in enumerate(tracklet):
        for j in range(T):
            for a in range(T):
                if CAMID[a] == CAMID[j]:
                    closed[j] += config.node_rate / tau * e[i, a] * ((j == a) - p[n, j]) * phi[n]

    # and as descent on the summed loss, by autograd
    node = torch.tensor(start, requires_grad=True)
    summed = 0.0
    for n, i in enumerate(tracklet):
        for a in np.flatnonzero(e[i]):
            inside = np.flatnonzero(CAMID[a] == CAMID)
            logits = node[inside] @ torch.from_numpy(phi[n]) / tau
            summed = summed + e[i, a] * F.cross_entropy(logits, torch.tensor(int(np.sum(inside < a))))
    (gradient,) = torch.autograd.grad(summed, node)
    np.testing.assert_allclose(closed, start - config.node_rate * gradient.numpy(), rtol=0, atol=1e-12)

    total.backward()
    student = nn.Linear(2, 2)
    adam, descent = stage.optimise(student, head)
    assert {id(q) for g in adam.param_groups for q in g["params"]} == {id(q) for q in student.parameters()}
    descent.step()
    want = unit(closed) if name == "cosine" else closed
    assert np.abs(want - start).max() > 0.01
    np.testing.assert_allclose(head.weight.detach().numpy(), want, rtol=0, atol=1e-12)
    assert descent.state_dict()["state"] == {}


def test_a_node_that_is_pulled_comes_nearer_and_the_others_of_its_camera_go(monkeypatch):
    config = uga.Config(node_rate=0.001, temperature=0.5)
    stage, head, aux, _ = across(config, monkeypatch)
    x = torch.from_numpy(np.random.default_rng(4).normal(size=(1, D)))
    before = (F.normalize(x) @ head.weight.T).detach()
    terms = stage.objective([View(x, head(x))], [], batch([5], aux))
    assert terms["link"].item() == 0
    (terms["id"] + terms["link"]).backward()
    stage.optimise(nn.Linear(1, 1), head)[1].step()
    moved = ((F.normalize(x) @ head.weight.T).detach() - before)[0].numpy()
    assert moved[5] > 1e-6  # the own node
    assert moved[2] < -1e-6  # the other of camera 2
    np.testing.assert_allclose(np.delete(moved, [2, 5]), 0, atol=1e-12)


def test_descent_leaves_alone_what_has_no_gradient():
    weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    uga.Descent([weight], rate=1, unit=True).step()
    assert weight.tolist() == [[3, 4]]
    weight.grad = torch.zeros_like(weight)
    uga.Descent([weight], rate=1, unit=False).step()
    assert weight.tolist() == [[3, 4]]
    uga.Descent([weight], rate=1, unit=True).step()
    np.testing.assert_allclose(weight.detach(), [[0.6, 0.8]])


# ---- labels


def bare(camid, times=None, boxes=None):
    """Tracklets of a crop each, or of the given times and centres, boxes 10 wide and 20 high."""
    t = len(camid)
    times = times or [[0.0]] * t
    n = [len(x) for x in times]
    x = np.repeat(np.arange(t) * 30.0 if boxes is None else boxes, n)
    return Tracklets(
        tracklet=np.repeat(np.arange(t), n),
        frame=np.concatenate([np.arange(k) for k in n]),
        time=np.concatenate(times),
        box=np.stack([x - 5, x * 0, x + 5, x * 0 + 20], 1),
        score=np.ones(sum(n)),
        crop=np.arange(sum(n)),
        camid=np.asarray(camid),
        source=np.arange(t),
    )


def test_inside_cameras_every_tracklet_is_its_own_class_and_nobody_is_known():
    assigned = uga.method().stages[0].assign(features(), bare(CAMID), {})
    assert assigned.labels.label.tolist() == list(range(T))
    assert assigned.labels.space.tolist() == CAMID.tolist()
    assert assigned.people.n_clusters == 0
    assert assigned.people.noise_fraction == 1
    assert np.isnan(assigned.eps)
    assert assigned.diagnosis == ()
    lonely = uga.method().stages[0].assign(features(4), bare([0, 0, 3, 1]), {})
    assert lonely.diagnosis[0].startswith("only one tracklet in camera 1, 3:")


def test_the_graph_is_labels_record_and_memory():
    # 0-2 and 1-3 are near each other, 4 (camera 2) is near 0 and 2; angles in the plane
    angle = np.deg2rad([0, 90, 10, 100, 20, 200])
    x = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    camid = np.array([0, 0, 1, 1, 2, 2])
    assign = uga.method(uga.Config(threshold=0.9)).stages[1].assign
    one = assign(x, bare(camid), {})
    assert one.labels.label.tolist() == list(range(6))
    assert one.labels.space.tolist() == camid.tolist()
    assert one.people.label.tolist() == [0, 1, 0, 1, 0, -1]
    assert np.isnan(one.eps)
    expected = {"n_edges": 4, "added": 4, "dropped": 0, "linked": 5 / 6, "transitivity": 1.0}
    assert one.record == {**expected, "links_0_1": 2, "links_0_2": 1, "links_1_2": 1}
    json.dumps(one.record, allow_nan=False)
    for kept in (one.keep, one.memory):
        assert kept["start"].tolist() == [0, 2, 3, 5, 6, 8, 8]
        assert kept["to"].tolist() == [2, 4, 3, 0, 4, 1, 0, 2]
        c = np.cos(np.deg2rad(10))
        np.testing.assert_allclose(kept["weight"][[0, 2, 3, 4]], c, rtol=1e-6)
    assert one.diagnosis == ()
    # itself first, then the neighbours, then itself with weight 0
    assert one.aux["neighbour"].tolist() == [[0, 2, 4], [1, 3, 1], [2, 0, 4], [3, 1, 3], [4, 0, 2], [5, 5, 5]]
    np.testing.assert_allclose(
        one.aux["edge"],
        [[1, c, 2 * c * c - 1], [1, c, 0], [1, c, c], [1, c, 0], [1, 2 * c * c - 1, c], [1, 0, 0]],
    )
    # 1 and 3 part, 5 joins 1; of 0, 2, 4 the weakest edge goes
    angle = np.deg2rad([0, 90, 20, 150, 40, 100])
    y = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    two = assign(y, bare(camid), one.memory)
    assert (two.record["n_edges"], two.record["added"], two.record["dropped"]) == (3, 1, 2)
    assert two.record["transitivity"] == 0
    assert two.people.label.tolist() == [0, 1, 0, -1, 0, 1]


def test_a_graph_without_edges_says_what_to_do():
    stage = uga.method(uga.Config(threshold=0.95)).stages[1]
    assigned = stage.assign(np.eye(4, dtype=np.float32), bare([0, 0, 1, 1]), {})
    assert "lower uga.threshold (0.95)" in assigned.diagnosis[0]
    assert assigned.record == {"n_edges": 0, "added": 0, "dropped": 0, "linked": 0, "links_0_1": 0}
    assert assigned.people.label.tolist() == [-1] * 4
    assert assigned.aux["neighbour"].tolist() == [[0], [1], [2], [3]]


def test_pairs_of_many_cameras_are_left_to_what_is_kept():
    camid = np.arange(14) // 2
    assigned = uga.method().stages[1].assign(np.float32(features(14)), bare(camid), {})
    assert not [name for name in assigned.record if name.startswith("links")]


# ---- sampling


def prepare(tracklets, x=None, **settings):
    x = np.ones((tracklets.n_crops, 2), np.float32) if x is None else np.float32(x)
    return uga.method(uga.Config(**settings)).prepare(x, tracklets).part.tolist()


STREET = {
    # camera 0: two at once far apart, one later, one much later; camera 1: two near each other, one apart
    "camid": [0, 0, 0, 0, 1, 1, 1],
    "times": [[0, 1, 2], [1, 2], [3, 4], [11, 12], [5, 6, 7], [5, 6], [6, 7]],
    "boxes": np.array([0, 40, 80, 0, 0, 5, 60.0]),
}


def test_one_tracklet_for_a_person_and_camera_is_used():
    street = bare(**STREET)
    assert prepare(street, period=10) == [0, 0, 0, 0, 0, -2, -2, 0, 0, 0, 0, 0, -2, -2, 0, 0]
    assert prepare(street, period=10, distance=0.2) == [0] * 5 + [-2, -2] + [0] * 9
    # auto: 2 · 95 % of the lengths (2, 1, 1, 1 and 2, 1, 1) are about 3.7 and 3.8 s
    assert prepare(street) == prepare(street, period=3.75)
    assert prepare(street, sampling="all") == [0] * 16


def test_parts_of_tracklets_are_sampled_after_isolation():
    street = bare(**STREET)
    # the first tracklet shows somebody else in its last frame, alone there: noise; tracklet 4 two persons
    angle = np.zeros(16)
    angle[2] = 90
    angle[[9, 10, 11]] = [0, 90, 90]
    x = np.stack([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))], 1)
    cut = {"isolate": True, "min_samples_intra": 1, "sampling": "all"}
    assert prepare(street, x, **cut) == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]
    noisy = {"isolate": True, "sampling": "all"}
    assert prepare(street, x, **noisy) == [0, 0, -1, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0]
    # Camera 0: most are alive at 1 (and 11): the first part, tracklet 1, and 3. Camera 1: at 6 the part of
    # tracklet 4, its equally long neighbour 5 too near, and 6.
    got = prepare(street, x, **{**cut, "sampling": "sstt", "period": 10})
    assert got == [0, 0, -3, 0, 0, -2, -2, 0, 0, -2, 1, 1, -2, -2, 0, 0]
    # What isolation drops stays dropped, whoever is sampled.
    got = prepare(street, x, **{**noisy, "sampling": "sstt", "period": 10})
    assert [got[2], got[9]] == [-1, -1]
    assert {*got} == {0, -1, -2}


def test_what_cannot_be_linked_or_told_apart_is_refused():
    one = bare([2, 2, 2])
    with pytest.raises(ValueError, match=r"the set has one camera, UGA links .*: use --method tmc"):
        prepare(one, sampling="all")
    apart = bare([0, 0, 1, 1], times=[[0, 1], [2, 3], [0, 1], [2, 3]])
    with pytest.raises(ValueError, match=r"2 of 4 tracklets are left.*; lower uga.period or uga.distance"):
        prepare(apart, period=99)
    with pytest.raises(
        ValueError, match=r"2 of 2 tracklets are left.*; give more video, or use --method tmc"
    ):
        prepare(bare([0, 1]), sampling="all")
    with pytest.raises(ValueError, match="set period in seconds"):
        prepare(bare([0, 0, 1]))
    same = bare([0, 0, 1, 1], boxes=np.zeros(4))
    with pytest.raises(ValueError, match='set sampling to "all"'):
        prepare(same, period=3)


# ---- the loop

FAST = {
    "sampling": "all",
    "epochs_intra": 2,
    "epochs_inter": 2,
    "iterations": 2,
    "tracklets_per_batch": 6,
    "images_per_tracklet": 2,
    "samples_per_bn": 6,
    "frames_cluster": 3,
    "learning_rate": 1e-3,
    "node_rate": 0.01,
    "threshold": 0.5,
    "augment": Augment(pad=3, erase=0.3, colour=0.05),
}


@pytest.fixture(scope="module")
def seen(people, small):
    tracklets, crops, pid = people(n_people=5, n_cameras=3, per_camera=1, n_frames=4)
    return tracklets, crops, small(crops), pid[tracklets.start[:-1]]


def run(seen, *, seed=3, every=1, resume=None, **settings):
    tracklets, crops, network, _ = seen
    method = uga.method(uga.Config(**{**FAST, **settings}))
    config = train.Config(checkpoint_every=every)
    return list(train.train(method, network, tracklets, crops, seed=seed, config=config, resume=resume))


def through_a_file(state):
    arrays = {name: np.ascontiguousarray(value).copy() for name, value in sorted(state.arrays.items())}
    return train.State(arrays, json.loads(json.dumps(state.meta, allow_nan=False)))


def rounds(events):
    return [e for e in events if isinstance(e, train.Round)]


def same(got, want):
    assert [type(e) for e in got] == [type(e) for e in want]
    for a, b in zip(got, want, strict=True):
        a, b = dataclasses.asdict(a), dataclasses.asdict(b)
        a.pop("seconds", None), b.pop("seconds", None)
        np.testing.assert_equal(a, b)
        for name in a.get("arrays", ()):
            assert a["arrays"][name].tobytes() == b["arrays"][name].tobytes(), name


@pytest.mark.parametrize("logits", ["cosine", "raw"])
def test_going_on_from_every_state_is_bit_identical(seen, logits):
    whole = run(seen, logits=logits)
    same(run(seen, logits=logits), whole)  # and so is doing it again
    # One state after Prepared, and in each of four rounds of two batches one inside and one at its end.
    assert sum(isinstance(e, train.State) for e in whole) == 9
    for i, event in enumerate(whole):
        if isinstance(event, train.State):
            same(run(seen, logits=logits, resume=through_a_file(event)), whole[i + 1 :])
    assert rounds(run(seen, logits=logits, seed=4))[0].losses != rounds(whole)[0].losses


def test_what_rounds_tell(seen):
    tracklets = seen[0]
    t = len(tracklets)
    intra, again, inter, last = rounds(run(seen, every=99))
    assert [e.stage for e in (intra, again, inter, last)] == ["intra", "intra", "inter", "inter"]
    cameras = {f"{n}_cam{c}" for n in ("id", "acc") for c in range(3)}
    assert intra.losses.keys() == again.losses.keys() == {"id", "total", *cameras}
    assert inter.losses.keys() == {"id", "link", "total"}
    assert inter.losses["total"] == pytest.approx(inter.losses["id"] + inter.losses["link"], rel=1e-5)
    for name, whole in (("id", intra.losses["id"]), ("acc", intra.accuracy)):
        of = [intra.losses[f"{name}_cam{c}"] for c in range(3)]
        assert min(of) <= whole <= max(of)
    assert (intra.n_clusters, intra.noise_fraction, intra.largest_cluster) == (0, 1, 0)
    assert set(intra.record) == {"same_track", "two_views"}  # what core.signs can tell without clusters
    assert intra.keep == {}
    assert all(np.isnan(e.eps) for e in (intra, inter))
    for event in (inter, last):
        assert len(event.keep["start"]) == t + 1
        assert event.record["n_edges"] == len(event.keep["to"]) / 2 > 0
        found = graph.Graph(**event.keep)
        assert event.labels.label.tolist() == graph.components(found).tolist()
        assert event.record["linked"] == pytest.approx(1 - event.noise_fraction)
    old, new = graph.Graph(**inter.keep), graph.Graph(**last.keep)
    assert (last.record["added"], last.record["dropped"]) == graph.changes(old, new)


def test_inside_cameras_head_and_optimiser_live_through_the_stage(seen):
    events = run(seen, epochs_intra=3, epochs_inter=1)
    states = [e for e in events if isinstance(e, train.State)]
    steps = [
        int(s.arrays["fit.optimiser.0.0.step"].item()) if "fit.optimiser.0.0.step" in s.arrays else None
        for s in states
    ]
    assert steps == [None, 1, 2, 3, 4, 5, None, 1, None]
    assert states[-2].arrays["fit.head.0.weight"].shape == (15, 32)
    np.testing.assert_allclose(np.linalg.norm(states[-2].arrays["fit.head.0.weight"], axis=1), 1, rtol=1e-6)
    # teachers are the students of the end of the round
    for name, value in train.student_arrays(states[-1]).items():
        assert (train.teacher_arrays(states[-1])[name] == value).all(), name


def test_it_joins_the_people_across_cameras(people, small):
    tracklets, crops, pid = people(n_people=10, n_cameras=3, per_camera=1, n_frames=6, seed=1)
    person = pid[tracklets.start[:-1]]
    made = tracklets, crops, small(crops), person
    learn = {
        "epochs_intra": 4,
        "epochs_inter": 3,
        "iterations": 20,
        "tracklets_per_batch": 12,
        "images_per_tracklet": 4,
        "samples_per_bn": 16,
        "frames_cluster": 6,
        "threshold": 0.6,
        "temperature": 0.2,
        "node_rate": 0.03,
        "augment": Augment(pad=3, erase=0.2, colour=0.1),
    }

    def judged(event):
        return graph.precision_recall(graph.Graph(**event.keep), person, tracklets.camid)

    untrained = rounds(run(made, **{**learn, "epochs_intra": 0, "epochs_inter": 1, "iterations": 1}))[0]
    done = rounds(run(made, every=99, seed=0, **learn))
    intra, inter = done[:4], done[4:]
    assert intra[-1].accuracy > intra[0].accuracy + 0.05
    assert intra[-1].losses["id"] < intra[0].losses["id"]
    precision, recall = judged(inter[-1])
    assert precision > 0.95 > judged(untrained)[0]
    assert recall > 0.6 > 0.4 > judged(untrained)[1]
