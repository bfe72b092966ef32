"""The loop: what it computes, what it repeats to the bit, what it refuses."""

import copy
import dataclasses
import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests import optional

from tracklearn.core.labels import agreement
from tracklearn.learn import backbone, compute, deterministic, embed, losses, sample, session, train
from tracklearn.learn.augment import Augment
from tracklearn.learn.events import Round
from tracklearn.learn.heads import classifier
from tracklearn.learn.method import Assignment, Isolated
from tracklearn.learn.methods import tmc
from tracklearn.learn.methods.named import method_module
from tracklearn.types import ArrayCrops, PseudoLabels, Tracklets

FAST = {
    "isolate": False,
    "epochs": 3,
    "iterations": 3,
    "clusters_per_batch": 4,
    "tracklets_per_cluster": 2,
    "frames_train": 2,
    "frames_cluster": 3,
    "alpha": 0.8,
    "learning_rate": 1e-3,
    "augment": Augment(pad=3, erase=0.3, colour=0.05),
    "k1": 10,
    "k2": 3,
    "min_samples": 2,
}


@pytest.fixture(scope="module")
def easy(people, small):
    tracklets, crops, pid = people()
    return tracklets, crops, pid, small(crops)


def method(**settings):
    return tmc.method(tmc.Config(**{**FAST, **settings}))


def run(easy, *, seed=0, resume=None, chosen=None, **settings):
    tracklets, crops, _, network = easy
    return list(
        train.train(chosen or method(**settings), network, tracklets, crops, seed=seed, resume=resume)
    )


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value.dtype == b[name].dtype, name
        assert value.tobytes() == b[name].tobytes(), name


def without_times(event):
    out = dataclasses.asdict(event)
    del out["seconds"]
    return out


def test_order_and_content_of_events(easy):
    tracklets, _, _, network = easy
    before = {k: v.clone() for k, v in network.state_dict().items()}
    events = run(easy)
    assert [type(e).__name__ for e in events] == ["Prepared", "State"] + ["Round", "State"] * 3
    prepared, rounds, states = events[0], events[2::2], events[3::2]
    assert prepared.n_before == prepared.n_after == len(tracklets)
    assert prepared.dropped == 0
    assert (prepared.part == 0).all()
    assert prepared.features.shape == (tracklets.n_crops, network.feature_dim)
    assert np.isnan(prepared.similarity[tracklets.start[:-1]]).all()
    for i, event in enumerate(rounds):
        assert event.index == i
        assert event.stage == "tmc"
        assert event.n_clusters == event.labels.n_clusters
        assert event.largest_cluster == np.bincount(event.labels.label[event.labels.label >= 0]).max()
        assert event.losses.keys() == {"id", "sid", "tri", "stri", "total"}
        total = 0.5 * (event.losses["id"] + event.losses["sid"])
        total += 0.2 * event.losses["tri"] + 0.8 * event.losses["stri"]
        assert event.losses["total"] == pytest.approx(total, rel=1e-5)
        assert 0 <= event.accuracy <= 1
        assert event.n_iterations == 3
        assert event.seconds.keys() == {"extract", "cluster", "read", "fit"}
    assert np.isnan(rounds[0].agreement)
    assert rounds[1].agreement == agreement(rounds[0].labels.label, rounds[1].labels.label)
    assert rounds[0].eps == rounds[1].eps == rounds[2].eps  # frozen
    assert [s.meta["step"] for s in states] == [3, 6, 9]
    # the network given is not touched, the teacher is another one now
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert train.teacher_arrays(states[-1]).keys() == before.keys()
    assert (train.teacher_arrays(states[-1])["conv.weight"] != before["conv.weight"].numpy()).any()


def test_same_seed_same_bytes(easy):
    one, two, other = run(easy), run(easy), run(easy, seed=1)
    for a, b in zip(one[2::2], two[2::2], strict=True):
        np.testing.assert_equal(without_times(a), without_times(b))
    same(one[-1].arrays, two[-1].arrays)
    assert one[-1].meta == two[-1].meta
    assert (one[-1].arrays["teacher.conv.weight"] != other[-1].arrays["teacher.conv.weight"]).any()


@pytest.mark.parametrize("done", [0, 1, 2])
def test_resume_at_an_epoch_border_is_bit_identical(easy, done):
    whole = run(easy)
    state = whole[2 * done + 1]
    # what a file does to it: JSON for the counters, copies of the arrays, no scalars of shape ()
    kept = train.State(
        {k: np.ascontiguousarray(v).copy() for k, v in state.arrays.items()},
        json.loads(json.dumps(state.meta)),
    )
    rest = run(easy, resume=kept)
    assert [type(e).__name__ for e in rest] == ["Round", "State"] * (3 - done)
    for a, b in zip(whole[2 * done + 2 :: 2], rest[::2], strict=True):
        np.testing.assert_equal(without_times(a), without_times(b))
    same(whole[-1].arrays, rest[-1].arrays)
    assert whole[-1].meta == rest[-1].meta
    assert run(easy, resume=whole[-1]) == []


def cut_by_what_is_learned(every=2):
    """TMC that keeps, or cuts in two, the tracklets by the sign of a feature, every second round."""

    def prepare(features, tracklets, similarity):
        assert len(features) == tracklets.n_crops  # always the original ones
        part = (features[:, 0] > np.median(features[:, 0])).astype(np.int64)
        return Isolated(part, notes=(f"{part.sum()} crops",))

    return dataclasses.replace(method(epochs=4), prepare=prepare, prepare_every=every)


def test_tracklets_are_cut_again_by_what_was_learned(easy):
    events = run(easy, chosen=cut_by_what_is_learned())
    names = [type(e).__name__ for e in events]
    assert names == ["Prepared", "State", *["Round", "State"] * 2, "Prepared", *["Round", "State"] * 2]
    first, again = (e for e in events if isinstance(e, train.Prepared))
    assert (first.round, again.round) == (0, 2)
    assert first.n_before == again.n_before == len(easy[0])
    assert first.diagnosis == (f"{first.part.sum()} crops",)
    assert (first.part != again.part).any()
    assert (first.features != again.features).any()
    rounds = [e for e in events if isinstance(e, train.Round)]
    sizes = [len(r.labels.label) for r in rounds]
    assert sizes == [first.n_after] * 2 + [again.n_after] * 2
    assert np.isnan([r.agreement for r in rounds]).tolist() == [True, False, True, False]
    assert events[-1].meta["isolated"] == 2


def test_others_may_look_at_all_crops_before_the_first_round_and_then_no_more(easy):
    tracklets, crops, _, network = easy
    asked = []

    def look(rows):
        asked.append(rows)
        return embed.extract(network, crops, rows, device="cpu")

    chosen = cut_by_what_is_learned()
    events = list(train.train(chosen, network, tracklets, crops, look=look))
    same(events[-1].arrays, run(easy, chosen=chosen)[-1].arrays)
    assert [rows.tolist() for rows in asked] == [tracklets.crop.tolist()]
    next(train.train(method(), network, tracklets, crops, look=look))  # which does not look at all of them
    assert len(asked) == 1
    with pytest.raises(ValueError, match=r"look returned shape \(3, 32\), expected \(120, 32\)"):
        next(train.train(chosen, network, tracklets, crops, look=lambda rows: look(rows[:3])))


@pytest.mark.parametrize("at", [1, 3, 5, 8])
def test_resume_around_a_second_cut_is_bit_identical(easy, at):
    whole = run(easy, chosen=cut_by_what_is_learned())
    assert isinstance(whole[at], train.State)
    rest = run(easy, chosen=cut_by_what_is_learned(), resume=whole[at])
    assert len(rest) == len(whole) - at - 1
    for a, b in zip(whole[at + 1 :], rest, strict=True):
        if isinstance(a, train.State):
            same(a.arrays, b.arrays)
            assert a.meta == b.meta
        elif isinstance(a, train.Round):
            np.testing.assert_equal(without_times(a), without_times(b))
        else:
            np.testing.assert_array_equal(a.part, b.part)


def test_a_state_is_a_snapshot(easy):
    events = train.train(method(), easy[3], *easy[:2], seed=0)
    first = next(e for e in events if isinstance(e, train.State))
    arrays = copy.deepcopy(first.arrays)
    meta = copy.deepcopy(first.meta)
    list(events)
    same(first.arrays, arrays)
    assert first.meta == meta


def test_global_random_state_is_neither_used_nor_changed(easy):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state()
    one = run(easy, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same(one[-1].arrays, run(easy, epochs=1)[-1].arrays)


def test_rounds_by_hand(easy):
    """Two rounds of two batches against a plain loop: optimiser and heads anew, steps counted on."""
    tracklets, crops, _, network = easy
    label = np.arange(len(tracklets)) // 4
    plans, features = [], []

    def draw(*args):
        plans.append(sample.batches(*args, clusters_per_batch=3, tracklets_per_cluster=2, n_frames=2))
        return plans[-1]

    def head(x, labels):
        features.append(x)
        return classifier(x, labels)

    chosen = method(epochs=2, iterations=2, augment=Augment(flip=0, pad=0, erase=0))
    stage = dataclasses.replace(
        chosen.stages[0],
        sample=draw,
        head=head,
        assign=lambda *_: Assignment(PseudoLabels.of(label)),
        samples_per_bn=3,
    )
    events = run(easy, chosen=dataclasses.replace(chosen, stages=(stage,)))

    student = copy.deepcopy(network).train()
    mean = copy.deepcopy(network).train()
    step = 0
    for plan, x in zip(plans, features, strict=True):
        centre = np.stack([x[label == c].mean(0) for c in range(6)])
        w = torch.tensor(centre / np.linalg.norm(centre, axis=1, keepdims=True), requires_grad=True)
        tw = w.detach().clone()
        optimiser = torch.optim.Adam(
            [p for p in student.parameters() if p.requires_grad] + [w], lr=1e-3, weight_decay=5e-4
        )
        for net in (student, mean):
            net.set_bn_group(6)  # 6 tracklets in groups of 3, 2 frames each
        for chosen_rows, chosen_tracklets in zip(plan.row, plan.tracklet, strict=True):
            pixels = student.normalise(torch.from_numpy(crops.images[chosen_rows.ravel()]))
            y = torch.from_numpy(label[chosen_tracklets])

            def through(net, rows, pixels=pixels):
                pre = net(pixels)
                post = net.neck(pre)
                pair = [(v[0::2] + v[1::2]) / 2 for v in (pre, post)]
                return pair[0], pair[1] @ rows.T

            f, z = through(student, w)
            with torch.no_grad():
                tf, tz = through(mean, tw)
            d, td = torch.cdist(f, f), torch.cdist(tf, tf)
            eq = y[:, None] == y
            p, n = (d - 1e6 * ~eq).argmax(1), (d + 1e6 * eq).argmin(1)
            i = torch.arange(len(y))
            logt = torch.stack([d[i, p], d[i, n]], 1).log_softmax(1)
            soft = torch.stack([td[i, p], td[i, n]], 1).softmax(1)
            loss = (
                0.5 * F.cross_entropy(z, y)
                + 0.5 * -(tz.softmax(1) * z.log_softmax(1)).sum(1).mean()
                + 0.2 * (0.5 + d[i, p] - d[i, n]).clamp(min=0).mean()
                + 0.8 * -(soft * logt).sum(1).mean()
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            keep = min(1 - 1 / (step + 1), 0.8)
            with torch.no_grad():
                for a, b in zip([*mean.parameters(), tw], [*student.parameters(), w], strict=True):
                    a.copy_(keep * a + (1 - keep) * b)
            step += 1
    state = events[-1]
    for name, value in student.state_dict().items():
        np.testing.assert_allclose(
            train.student_arrays(state)[name], value.numpy(), rtol=2e-4, atol=2e-5, err_msg=name
        )
    for name, value in mean.state_dict().items():
        np.testing.assert_allclose(
            train.teacher_arrays(state)[name], value.numpy(), rtol=2e-4, atol=2e-5, err_msg=name
        )
    assert (train.student_arrays(state)["bn.running_mean"] != state.arrays["teacher.bn.running_mean"]).any()


def separation(network, tracklets, crops, person):
    """Mean distance of one person's tracklets in different cameras over that of different persons."""
    features = embed.extract(network, crops, tracklets.crop, device="cpu")
    f = embed.pool(features, tracklets.tracklet, len(tracklets))
    d = np.sqrt(np.maximum(2 - 2 * f @ f.T, 0))
    one = person[:, None] == person
    return d[one & (tracklets.camid[:, None] != tracklets.camid)].mean() / d[~one].mean()


LEARN = {
    "epochs": 4,
    "iterations": 6,
    "clusters_per_batch": 6,
    "tracklets_per_cluster": 3,
    "augment": Augment(pad=3, erase=0.2),
}


def test_it_learns_the_people(easy):
    tracklets, crops, pid, network = easy
    person = pid[tracklets.start[:-1]]
    events = run(easy, **LEARN)
    rounds = events[2::2]
    assert agreement(rounds[0].labels.label, person) < 0.8
    assert agreement(rounds[-1].labels.label, person) == 1
    assert rounds[-1].n_clusters == 6
    assert rounds[-1].agreement > rounds[1].agreement
    assert rounds[-1].losses["total"] < rounds[0].losses["total"]
    trained = copy.deepcopy(network)
    trained.load_weights(train.teacher_arrays(events[-1]))
    start = separation(network, tracklets, crops, person)
    assert separation(trained, tracklets, crops, person) < 0.6 * start


def test_the_order_of_the_files_does_not_matter(easy):
    tracklets, crops, pid, network = easy
    order = np.random.default_rng(3).permutation(len(tracklets))
    rows = np.concatenate([np.arange(*tracklets.start[i : i + 2]) for i in order])
    other = Tracklets(
        tracklet=np.repeat(np.arange(len(order)), tracklets.length[order]),
        frame=tracklets.frame[rows],
        time=tracklets.time[rows],
        box=tracklets.box[rows],
        score=tracklets.score[rows],
        crop=rows,
        camid=tracklets.camid[order],
        source=np.arange(len(order)),
    )
    last = run((other, crops, pid, network), **LEARN)[-2]
    person = pid[tracklets.start[:-1]][order]
    assert agreement(last.labels.label, person) == 1


def test_the_real_tiny_network_learns(people):
    """Five seeds of people, weights and training gave 0.50–0.60 times the separation at the start, and
    0.24–0.39 times the loss of the first round."""
    tracklets, crops, pid = people(n_people=5, n_frames=4, cast=0.2, seed=2)
    network = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=0)
    network.calibrate([crops.images], neck=True)
    person = pid[tracklets.start[:-1]]
    events = run((tracklets, crops, pid, network), **{**LEARN, "iterations": 8})
    trained = copy.deepcopy(network)
    trained.load_weights(train.teacher_arrays(events[-1]))
    assert events[-2].losses["total"] < 0.6 * events[2].losses["total"]
    start = separation(network, tracklets, crops, person)
    assert separation(trained, tracklets, crops, person) < 0.75 * start


def test_two_students_and_two_stages_run_through_the_same_loop(easy, small):
    """A method in MMT's shape: soft targets cross over, two pairs of networks, each with its own images."""
    tracklets, crops, _, network = easy
    first = method(epochs=1).stages[0]
    seen = []

    def crossing(students, teachers, target):
        seen.append((students[0].feature.detach() - students[1].feature.detach()).abs().max())
        out = {}
        for name, a, b in (("a", 0, 1), ("b", 1, 0)):
            out[f"id_{name}"] = losses.identity(students[a].logits, target.label)
            out[f"sid_{name}"] = losses.soft_identity(students[a].logits, teachers[b].logits)
        return out

    stage = dataclasses.replace(
        first,
        name="mutual",
        rounds=2,
        objective=crossing,
        weights={"id_a": 0.5, "id_b": 0.5, "sid_a": 0.5, "sid_b": 0.5},
    )
    mutual = dataclasses.replace(method(), name="mutual", networks=2, stages=(stage, stage))
    two = [network, small(crops, seed=9)]
    whole = list(train.train(mutual, two, tracklets, crops, seed=0))
    assert len(whole) == 2 + 2 * 4
    assert min(seen) > 0
    state = whole[3]
    assert (train.teacher_arrays(state)["conv.weight"] != train.teacher_arrays(state, 1)["conv.weight"]).any()
    rest = list(train.train(mutual, two, tracklets, crops, seed=0, resume=state))
    same(whole[-1].arrays, rest[-1].arrays)
    # two copies of one network on the same pictures would be one network: the draws differ
    list(train.train(mutual, [network, network], tracklets, crops, seed=0))
    assert seen[-1] > 0
    with pytest.raises(ValueError, match="networks holds 1, method mutual trains 2"):
        train.train(mutual, network, tracklets, crops)


def test_labels_within_cameras_memory_and_arrays_reach_the_objective(easy):
    """A stage in UGA's shape: labels that hold inside one camera, and a graph kept from round to round."""
    tracklets, _, _, _ = easy
    label = np.arange(len(tracklets)) // 2
    weight = np.linspace(0.5, 1.5, len(tracklets)).astype(np.float32)
    targets = []

    def assign(features, tracklets, memory):
        rounds = memory.get("rounds", np.array([0])) + 1
        labels = PseudoLabels(label, weight, tracklets.camid)
        return Assignment(labels, memory={"rounds": rounds}, aux={"edge": rounds * np.ones((2, 2))})

    def objective(students, teachers, target):
        targets.append(target)
        return {"id": losses.identity(students[0].logits, target.label, weight=target.weight)}

    chosen = method(epochs=3)
    stage = dataclasses.replace(chosen.stages[0], assign=assign, objective=objective, weights={"id": 1.0})
    chosen = dataclasses.replace(chosen, stages=(stage,))
    whole = run(easy, chosen=chosen)
    for target in targets:
        rows = target.tracklet.numpy()
        assert target.label.tolist() == label[rows].tolist()
        assert target.space.tolist() == tracklets.camid[rows].tolist()
        assert target.weight.tolist() == weight[rows].tolist()
    assert [float(t.aux["edge"][0, 0]) for t in targets] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    rest = run(easy, chosen=chosen, resume=whole[3])
    same(whole[-1].arrays, rest[-1].arrays)
    assert np.isnan(whole[2].eps)


def test_features_before_the_neck(easy):
    events = run(easy, cluster_feature="pre_bn", epochs=1)
    other = run(easy, epochs=1)
    assert events[2].eps != other[2].eps


def test_features_before_the_neck_are_averaged_as_they_are(easy):
    """By hand: the mean of raw features over the clip, then unit; not the mean of unit ones."""
    tracklets, crops, _, network = easy
    seen = []

    def assign(features, tracklets, memory):
        seen.append(features)
        return Assignment(PseudoLabels.of(np.arange(len(tracklets)) // 4))

    chosen = method(cluster_feature="pre_bn", epochs=1, frames_cluster=5)  # whole tracklets
    stage = dataclasses.replace(chosen.stages[0], assign=assign)
    run(easy, chosen=dataclasses.replace(chosen, stages=(stage,)))
    network.eval()
    with torch.no_grad():
        raw = network(network.normalise(torch.from_numpy(crops.images))).double()
    mean = raw.view(len(tracklets), 5, -1).mean(1)
    np.testing.assert_allclose(seen[0], F.normalize(mean), atol=1e-6)
    of_unit = F.normalize(F.normalize(raw).view(len(tracklets), 5, -1).mean(1))
    assert abs(seen[0] - of_unit.numpy()).max() > 1e-4


def test_too_few_clusters_stop_with_a_diagnosis(easy):
    tracklets, crops, _, network = easy
    blank = ArrayCrops(np.full_like(crops.images, 77))
    events = train.train(method(), network, tracklets, blank, seed=0)
    next(events), next(events)
    with pytest.raises(
        train.TrainingStopped, match=r"epoch 1: 24 tracklets gave .* cluster.*at least 2. \w+"
    ):
        next(events)


def test_the_reasons_of_a_stop_are_told_apart(easy):
    tracklets, crops, _, network = easy
    chosen = method()
    nobody = PseudoLabels.of(np.full(len(tracklets), -1))
    stage = dataclasses.replace(
        chosen.stages[0], assign=lambda *given: Assignment(nobody, diagnosis=("too dark", "too few"))
    )
    events = train.train(dataclasses.replace(chosen, stages=(stage,)), network, tracklets, crops, seed=0)
    with pytest.raises(train.TrainingStopped, match=r"needs at least 2\. too dark; too few$"):
        list(events)


def test_a_loss_that_is_not_finite_stops(easy):
    with pytest.raises(ValueError, match=r"lower the learning rate|not finite"):
        run(easy, learning_rate=1e30)


def test_weights_that_are_not_finite_stop_though_the_losses_are_finite(easy):
    def optimise(student, head):
        return [torch.optim.SGD([p for p in student.parameters() if p.requires_grad], lr=float("inf"))]

    chosen = method(iterations=1)
    stage = dataclasses.replace(chosen.stages[0], optimise=optimise)
    with pytest.raises(train.TrainingStopped, match=r"epoch 1: \S+ of a student is not finite: lower the"):
        run(easy, chosen=dataclasses.replace(chosen, stages=(stage,)))


def settings_of_torch():
    cudnn = torch.backends.cudnn
    return (
        cudnn.deterministic,
        cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def test_deterministic_algorithms_are_on_for_cuda_only_and_only_inside(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is as before after the test
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings_of_torch()
    with deterministic.algorithms(torch.device("cpu")):
        assert settings_of_torch() == before
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    inside = []

    def fail():
        with deterministic.algorithms(torch.device("cuda")):
            inside.append((*settings_of_torch(), os.environ["CUBLAS_WORKSPACE_CONFIG"]))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [(True, False, True, True, ":4096:8")]
    assert settings_of_torch() == before


def test_refusals(easy):
    tracklets, crops, _, network = easy
    state = run(easy, epochs=1)[-1]
    with pytest.raises(ValueError, match="same set"):
        train.train(method(), network, tracklets, ArrayCrops(crops.images[:5]))
    empty = tracklets.split(np.full(tracklets.n_crops, -1))
    with pytest.raises(ValueError, match="empty"):
        train.train(method(), network, empty, crops)
    with pytest.raises(ValueError, match="resume has seed 0, expected 4"):
        train.train(method(), network, tracklets, crops, seed=4, resume=state)
    with pytest.raises(ValueError, match="resume has method tmc-, expected tmc:"):
        train.train(method(isolate=True), network, tracklets, crops, resume=state)
    tiny = backbone.build(backbone.Config(backbone="tiny", height=64, width=32), seed=0)
    with pytest.raises(ValueError, match="other weights"):
        list(train.train(method(), tiny, tracklets, crops, resume=state))


def test_progress_is_reported(easy):
    tracklets, crops, _, network = easy
    said = []
    list(train.train(method(epochs=1), network, tracklets, crops, progress=lambda *a: said.append(a)))
    assert {what for what, _, _ in said} == {"isolation", "features", "training"}
    assert said[-1] == ("training", 3, 3)


@pytest.mark.parametrize("eps_intra", [0.6, "auto"])
def test_features_as_tensors_train_the_same(easy, monkeypatch, eps_intra):
    """What a CUDA device gets, here on the CPU: isolation and association of tensors, to the bit."""
    features = np.ones((4, 2), np.float32)
    assert train._near(features, torch.device("cpu")) is features
    want = run(easy, isolate=True, eps_intra=eps_intra, epochs=2)
    given = []
    monkeypatch.setattr(train, "_near", lambda x, device: given.append(device) or torch.from_numpy(x))
    got = run(easy, isolate=True, eps_intra=eps_intra, epochs=2)
    assert given == [torch.device("cpu")] * 3
    same(got[-1].arrays, want[-1].arrays)
    np.testing.assert_array_equal(got[0].part, want[0].part)


def test_only_methods_that_say_so_get_tensors(easy, monkeypatch):
    plain = method(epochs=1)
    kinds = []

    def assign(features, *rest):
        kinds.append(type(features))
        return plain.stages[0].assign(features, *rest)

    stage = dataclasses.replace(plain.stages[0], assign=assign)
    monkeypatch.setattr(train, "_near", lambda x, device: torch.from_numpy(x))
    for tensors in (True, False):
        run(easy, chosen=dataclasses.replace(plain, stages=(stage,), tensors=tensors))
    assert kinds == [torch.Tensor, np.ndarray]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda(easy):
    tracklets, crops, _, network = easy
    before = settings_of_torch()
    events = []
    for event in train.train(method(**LEARN), network, tracklets, crops, device="cuda"):
        assert settings_of_torch() == before
        events.append(event)
    assert events[-2].losses["total"] < events[2].losses["total"]
    again = list(train.train(method(**LEARN), network, tracklets, crops, device="cuda"))
    same(events[-1].arrays, again[-1].arrays)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_features_on_cuda_train_the_same(easy, monkeypatch):
    tracklets, crops, _, network = easy
    chosen = method(isolate=True, epochs=2)
    features = np.ones((4, 2), np.float32)
    assert train._near(features, torch.device("cuda")).is_cuda
    got = list(train.train(chosen, network, tracklets, crops, device="cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    assert train._near(features, torch.device("cuda")) is features
    want = list(train.train(chosen, network, tracklets, crops, device="cuda"))
    np.testing.assert_array_equal(got[0].part, want[0].part)
    same(got[-1].arrays, want[-1].arrays)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_learns_on_cuda(easy, compiled):
    tracklets, crops, _, network = easy
    config = compute.Config(precision="bfloat16", compile=compiled)
    events = list(train.train(method(**LEARN), network, tracklets, crops, device="cuda", config=config))
    assert events[-2].losses["total"] < events[2].losses["total"]


@pytest.mark.parametrize("name", ["tmc", "mmt", "uga", "msplr", "cap"])
def test_a_method_that_does_not_look_at_features_first_waits_for_a_sample_only(
    people, small, name, monkeypatch
):
    monkeypatch.setattr(train, "SAMPLED", 12)
    tracklets, crops, _ = people()
    read = []

    class Counted:
        def __len__(self):
            return len(crops)

        def read(self, rows):
            read.append(len(rows))
            return crops.read(rows)

    module = method_module(name)
    for isolate in (False, True):
        more = {"sampling": "all"} if name == "uga" else {}  # the boxes here say nothing of places
        method = module.method(module.Config(isolate=isolate, eps_intra="auto", **more))
        networks = [small(crops) for _ in range(method.networks)]
        read.clear()
        prepared = next(train.train(method, networks, tracklets, Counted()))
        known = np.isfinite(prepared.similarity)
        assert len(prepared.features) == len(prepared.row) == sum(read)
        if isolate:
            assert sum(read) == tracklets.n_crops
        else:
            assert 12 <= sum(read) < 12 + tracklets.length.max()
            whole = np.isin(tracklets.tracklet, tracklets.tracklet[prepared.row])
            assert np.flatnonzero(whole).tolist() == prepared.row.tolist()
        assert known.sum() == len(prepared.row) - len(np.unique(tracklets.tracklet[prepared.row]))


def test_auto_is_the_devices_own_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compute.Config(precision="auto")
    for can, chosen in (({"avx512_bf16": True}, "bfloat16"), ({"avx512_f": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can, raising=False)
        assert compute.settled(config, "cpu").precision == chosen
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as torch 2.11
    assert compute.settled(config, "cpu").precision == "float32"
    assert compute.settled(compute.Config(precision="bfloat16"), "cpu").precision == "bfloat16"


@pytest.mark.parametrize(("features", "made"), [("auto", 0), ("onnxruntime", 3)])
def test_features_come_from_onnxruntime_where_asked_once_an_epoch(easy, features, made, monkeypatch):
    """By itself only with thousands of crops; the labels are those by torch."""
    optional.has("onnxruntime")
    optional.has("onnx")
    sessions, whole = [], session.Session
    monkeypatch.setattr(session, "Session", lambda network: sessions.append(whole(network)) or sessions[-1])
    tracklets, crops, _, network = easy

    def labels(**settings):
        events = train.train(method(), network, tracklets, crops, config=compute.Config(**settings), seed=0)
        return [event.labels.label for event in events if isinstance(event, Round)]

    found = labels(features=features)
    assert len(sessions) == made
    np.testing.assert_array_equal(found[0], labels(features="torch")[0])
    np.testing.assert_array_equal(found, labels(features=features))
    assert len(sessions) == 2 * made
