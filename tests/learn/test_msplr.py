"""MSPLR's settings and parts by hand, and whole runs from a source to a target."""

import copy
import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tracklearn.core import coded, normalise
from tracklearn.core.labels import agreement, select_clusters
from tracklearn.core.radius import mean_nearest
from tracklearn.learn import embed, losses, train
from tracklearn.learn.method import Material, Moment, Target, View
from tracklearn.learn.methods import isolation
from tracklearn.learn.methods.msplr import method as msplr
from tracklearn.learn.methods.msplr.config import Config
from tracklearn.learn.methods.msplr.guess import _assignment, _selected
from tracklearn.learn.methods.msplr.schedule import rate
from tracklearn.types import ArrayCrops, PseudoLabels, Tracklets

FAST = {
    "source_epochs": 6,
    "step_epochs": 3,
    "frozen_epochs": 1,
    "max_steps": 3,
    "iterations": 4,
    "clusters_per_batch": 6,
    "tracklets_per_cluster": 3,
    "frames_train": 2,
    "learning_rate": 3e-3,
    "augment": {"pad": 2, "erase": 0.0},
}


def persons(tracklets, pid):
    return pid[tracklets.start[:-1]]


@pytest.fixture(scope="module")
def worlds(people, small):
    """A source of some people, a target of others with stronger colour casts, and a network."""
    source, source_crops, source_pid = people(n_people=8, seed=100)
    target, crops, pid = people(n_people=10, n_frames=4, cast=0.5, seed=0)
    given = Material(source, source_crops), persons(source, source_pid)
    return given, target, crops, persons(target, pid), small(source_crops)


def made_of(crop_counts, camid):
    """Tracklets of so many crops each."""
    tracklet = np.repeat(np.arange(len(camid)), crop_counts)
    n = len(tracklet)
    frame = np.concatenate([np.arange(c) for c in crop_counts])
    return Tracklets(
        tracklet=tracklet,
        frame=frame,
        time=frame / 10,
        box=np.zeros((n, 4)),
        score=np.ones(n),
        crop=np.arange(n),
        camid=np.array(camid),
        source=np.arange(len(camid)),
    )


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


class TestConfig:
    def test_defaults(self):
        values = Config().model_dump()
        of_isolation = set(isolation.Config.model_fields) - {"isolate"}
        for name in ("augment", "time_tells", *of_isolation):
            del values[name]
        assert values == {
            "isolate": False,
            "normalise": True,
            "clustering": "dbscan",
            "eps": "auto",
            "rho": 1.6e-3,
            "min_samples": 4,
            "neighbors": "exact",
            "per_cluster": 15,
            "fit_to_size": True,
            "structure": 0.95,
            "min_images": 4,
            "min_cameras": 2,
            "source_epochs": 90,
            "step_epochs": 90,
            "frozen_epochs": 20,
            "max_steps": 12,
            "stop_kept": 0.01,
            "stop_agreement": 0.01,
            "stop_steps": 2,
            "iterations": "auto",
            "clusters_per_batch": 16,
            "tracklets_per_cluster": 4,
            "frames_train": 1,
            "frames_cluster": 32,
            "learning_rate": 3.5e-4,
            "schedule": "code",
            "weight_decay": 5e-4,
            "margin": 0.5,
            "triplet": "margin",
            "label_smoothing": 0.1,
            "lambda_tri": 1.0,
            "lambda_centre": 0.005,
            "centre_rate": 0.5,
            "samples_per_bn": 16,
            "seed": 0,
        }

    def test_every_setting_says_where_it_comes_from(self):
        for name, field in Config.model_fields.items():
            assert field.description, name
            assert any(mark in field.description for mark in ("paper", "[code", "chosen")), name

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"steps": 3}, "Extra inputs"),
            ({"eps": 0}, "greater than 0"),
            ({"clustering": "optics"}, "dbscan"),
            ({"schedule": "cosine"}, "code"),
            ({"lambda_centre": -1}, "greater than or equal to 0"),
            ({"frozen_epochs": 5, "step_epochs": 5}, "leaves the body no epoch of the 5"),
            ({"samples_per_bn": 1}, "no variance: raise one"),
        ],
    )
    def test_wrong_settings_are_refused(self, settings, message):
        with pytest.raises(ValidationError, match=message):
            Config(**settings)

    def test_a_dump_comes_back(self):
        config = Config(eps=0.35, clustering="kmeans", isolate=True)
        assert Config(**config.model_dump()) == config


class TestMethod:
    def test_stages(self, worlds):
        given = worlds[0]
        config = Config()
        with_source, alone = msplr.method(config, *given), msplr.method(config)
        assert (with_source.name, alone.name) == ("msplr", "msplr-steps")
        assert msplr.method(Config(isolate=True)).name == "msplr-steps+isolation"
        assert alone.prepare is None
        assert msplr.method(Config(isolate=True)).prepare is not None
        source, steps = with_source.stages
        assert (source.name, source.rounds, source.assign_every) == ("source", 90, 90)
        assert source.material is given[0]
        assert (steps.name, steps.rounds, steps.assign_every, steps.material) == ("steps", 1080, 90, None)
        assert [stage.name for stage in alone.stages] == ["steps"]
        for stage in with_source.stages:
            assert stage.alpha is None
            assert stage.weights == {"id": 1, "tri": 1, "centre": 0.005}

    def test_the_sources_labels_are_its_persons_without_gaps(self, worlds):
        (material, label), *_ = worlds
        sparse = np.where(label == 3, -1, label * 10 + 7)
        assigned = msplr.method(None, material, sparse).stages[0].assign(None, material.tracklets, {})
        got = assigned.labels.label
        assert (got == np.where(label == 3, -1, label - (label > 3))).all()
        assert assigned.labels.n_clusters == 7

    def test_refusals(self, worlds):
        (material, label), *_ = worlds
        with pytest.raises(ValueError, match="give both, or neither"):
            msplr.method(None, material)
        with pytest.raises(ValueError, match="give both, or neither"):
            msplr.method(None, None, label)
        with pytest.raises(ValueError, match=r"source_label has shape \(31,\), expected \(32,\)"):
            msplr.method(None, material, label[1:])
        with pytest.raises(ValueError, match=r"names 1 person\(s\)"):
            msplr.method(None, material, np.where(label == 2, 2, -1))
        few = dataclasses.replace(material, crops=ArrayCrops(material.crops.images[:-1]))
        with pytest.raises(ValueError, match="source refers to crop 159, its crops are 159"):
            msplr.method(None, few, label)

    def test_iterations(self):
        auto = msplr.method().stages[0].iterations
        labels = [PseudoLabels.of(np.r_[np.arange(n), -np.ones(500, int)]) for n in (2, 64, 150, 165)]
        assert [auto(x) for x in labels] == [1, 1, 2, 3]
        assert msplr.method(Config(iterations=7)).stages[0].iterations(labels[0]) == 7


class TestSchedule:
    @pytest.mark.parametrize(
        ("schedule", "epochs", "want"),
        [
            (
                "code",
                90,
                {0: 3.5e-6, 1: 3.815e-5, 9: 3.1535e-4, 10: 3.5e-4, 39: 3.5e-4, 40: 3.5e-5, 69: 3.5e-5},
            ),
            ("code", 90, {70: 3.5e-6, 89: 3.5e-6}),
            ("slides", 90, {0: 3.5e-5, 1: 7e-5, 9: 3.5e-4, 10: 3.5e-3, 39: 3.5e-3, 40: 3.5e-4, 69: 3.5e-4}),
            ("slides", 90, {70: 3.5e-5, 89: 3.5e-5}),
            # half the epochs, twice as fast
            ("code", 45, {0: 3.5e-6, 1: 7.28e-5, 5: 3.5e-4, 19: 3.5e-4, 20: 3.5e-5, 34: 3.5e-5, 35: 3.5e-6}),
            ("slides", 45, {0: 7e-5, 4: 3.5e-4, 5: 3.5e-3, 19: 3.5e-3, 20: 3.5e-4, 34: 3.5e-4, 35: 3.5e-5}),
            # a single epoch, fewer than the warm-up's nine
            ("code", 1, {0: 3.5e-6}),
            ("slides", 1, {0: 3.5e-4}),
            ("slides", 6, {0: 3.5e-4, 1: 3.5e-3, 2: 3.5e-3, 3: 3.5e-4, 4: 3.5e-4, 5: 3.5e-5}),
        ],
    )
    def test_rates(self, schedule, epochs, want):
        for epoch, value in want.items():
            assert 3.5e-4 * rate(schedule, epoch, epochs) == pytest.approx(value, rel=1e-9), epoch

    def test_body_is_frozen_first_and_the_schedule_begins_when_it_thaws(self, worlds):
        network = copy.deepcopy(worlds[4])
        stage = msplr.method(Config(step_epochs=110)).stages[0]
        head = stage.head(np.zeros((4, 32), np.float32), PseudoLabels.of(np.arange(4)))
        optimisers = stage.optimise(network, head)
        body = [network.conv.weight, network.bn.weight, network.bn.bias]
        seen = {}
        for epoch in (0, 19, 20, 30, 60, 109):
            network.train()
            stage.schedule([network], optimisers, Moment(epoch, 110, 0, 5))
            frozen = epoch < 20
            assert [p.requires_grad for p in body] == [not frozen] * 3
            assert (network.bn.training, network.neck.training) == (not frozen, True)
            assert network.neck.weight.requires_grad
            assert not network.neck.bias.requires_grad
            assert head.classifier.weight.requires_grad
            rates = {group["lr"] for group in optimisers[0].param_groups}
            assert len(rates) == 1
            seen[epoch] = rates.pop()
        want = {0: 3.5e-4, 19: 3.5e-4, 20: 3.5e-6, 30: 3.5e-4, 60: 3.5e-5, 109: 3.5e-6}
        assert seen == pytest.approx(want)
        assert optimisers[1].param_groups[0]["lr"] == pytest.approx(100)
        # the source is never frozen
        source = msplr.method(Config(), *worlds[0]).stages[0]
        source.schedule([network], optimisers, Moment(0, 90, 0, 5))
        assert all(p.requires_grad for p in body)
        assert optimisers[0].param_groups[1]["lr"] == pytest.approx(3.5e-6)


class TestHead:
    def test_start_comes_from_seed_and_shape_alone(self):
        torch.manual_seed(1)
        state = torch.get_rng_state()
        one, two = (msplr.Head(50, 64, centres=True, seed=s) for s in (0, 0))
        other = msplr.Head(50, 64, centres=True, seed=1)
        assert torch.equal(torch.get_rng_state(), state)
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name])
            assert not torch.equal(value, other.state_dict()[name])
        assert one.state_dict().keys() == {"classifier.weight", "centres.weight"}
        assert one.classifier.weight.std().item() == pytest.approx(1e-3, rel=0.05)
        assert one.centres.weight.std().item() == pytest.approx(1, rel=0.05)
        x = torch.ones(2, 64)
        assert torch.equal(one(x), x @ one.classifier.weight.T)
        assert msplr.Head(3, 4, centres=False, seed=0).state_dict().keys() == {"classifier.weight"}


def batch(seed, b=12, d=7, c=4):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(c), b // c)
    rng.shuffle(label)
    return {
        "feature": rng.normal(size=(b, d)) * 3,
        "logits": rng.normal(size=(b, c)) * 2,
        "centres": rng.normal(size=(c, d)),
        "label": label,
        "weight": rng.uniform(0.2, 2, b),
    }


def reference(x, margin, smoothing):
    """Weighted means of the three losses, in plain Python from their equations."""
    total = {"id": 0.0, "tri": 0.0, "centre": 0.0}
    rows = range(len(x["label"]))
    for i in rows:
        z, y, w = x["logits"][i], x["label"][i], x["weight"][i]
        log_sum = math.log(sum(math.exp(v) for v in z))
        total["id"] -= w * sum(
            (smoothing / len(z) + (1 - smoothing) * (c == y)) * (v - log_sum) for c, v in enumerate(z)
        )
        apart = [math.dist(x["feature"][i], x["feature"][j]) for j in rows]
        positive = max(apart[j] for j in rows if x["label"][j] == y)
        negative = min(apart[j] for j in rows if x["label"][j] != y)
        total["tri"] += w * max(0, margin + positive - negative)
        total["centre"] += w * sum(
            (f - c) ** 2 for f, c in zip(x["feature"][i], x["centres"][y], strict=True)
        )
    return {name: value / x["weight"].sum() for name, value in total.items()}


def views(x):
    feature, logits, centres = (torch.from_numpy(x[k]) for k in ("feature", "logits", "centres"))
    label = torch.from_numpy(x["label"])
    target = Target(label, label, label * 0 - 1, torch.from_numpy(x["weight"]), {})
    return View(feature, logits, centres[label]), target


class TestLosses:
    @pytest.mark.parametrize("seed", range(8))
    def test_equal_a_slow_reference(self, seed):
        x = batch(seed)
        stage = msplr.method(Config(margin=0.3)).stages[0]
        view, target = views(x)
        got = stage.objective([view], [], target)
        assert {k: v.item() for k, v in got.items()} == pytest.approx(reference(x, 0.3, 0.1), rel=1e-9)

    def test_switches(self):
        x = batch(0)
        view, target = views(x)

        def terms(**settings):
            return msplr.method(Config(**settings)).stages[0].objective([view], [], target)

        base = terms()
        assert terms(label_smoothing=0)["id"] != base["id"]
        assert terms(margin=0.1)["tri"] != base["tri"]
        assert terms(triplet="softplus")["tri"] != base["tri"]
        without = msplr.method(Config(lambda_centre=0, lambda_tri=0)).stages[0]
        assert without.weights == {"id": 1, "tri": 0}
        head = without.head(np.zeros((3, 8), np.float32), PseudoLabels.of(np.arange(3)))
        assert head.centres is None
        assert without.objective([dataclasses.replace(view, centre=None)], [], target).keys() == {"id", "tri"}

    def test_gradcheck_of_the_centre_loss(self):
        x = batch(3)
        feature = torch.from_numpy(x["feature"]).requires_grad_()
        centre = torch.from_numpy(x["centres"][x["label"]]).requires_grad_()
        weight = torch.from_numpy(x["weight"])
        assert torch.autograd.gradcheck(losses.centre, (feature, centre))
        assert torch.autograd.gradcheck(lambda f, c: losses.centre(f, c, weight=weight), (feature, centre))

    @pytest.mark.parametrize("share", [0.005, 0.3])
    def test_a_centre_moves_at_its_own_rate_whatever_its_loss_weighs(self, worlds, share):
        """c ← c − 0.5 · (2/b) Σ (c − f): the code divides by λ the gradients that came with λ."""
        network = copy.deepcopy(worlds[4])
        stage = msplr.method(Config(lambda_centre=share)).stages[0]
        label = torch.tensor([0, 0, 2, 2])
        head = stage.head(np.zeros((4, 32), np.float32), PseudoLabels.of(np.arange(4)))
        before = head.centres.weight.detach().clone().double()
        adam, sgd = stage.optimise(network, head)
        assert isinstance(sgd, torch.optim.SGD)
        assert not any(p is head.centres.weight for g in adam.param_groups for p in g["params"])
        feature = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
        (stage.weights["centre"] * losses.centre(feature, head.centres(label))).backward()
        sgd.step()
        want = before.clone()
        for c in (0, 2):
            want[c] -= 0.5 * 2 / 4 * (before[c] - feature[label == c].double()).sum(0)
        np.testing.assert_allclose(head.centres.weight.detach(), want, atol=1e-6)

    def test_adam_has_the_body_apart_and_leaves_the_frozen_alone(self, worlds):
        network = copy.deepcopy(worlds[4])
        stage = msplr.method().stages[0]
        head = stage.head(np.zeros((3, 32), np.float32), PseudoLabels.of(np.arange(3)))
        adam, _ = stage.optimise(network, head)
        body, rest = (group["params"] for group in adam.param_groups)
        assert {id(p) for p in body} == {id(network.conv.weight), id(network.bn.weight), id(network.bn.bias)}
        assert {id(p) for p in rest} == {id(network.neck.weight), id(head.classifier.weight)}
        assert all(group["weight_decay"] == 5e-4 for group in adam.param_groups)


def grouped(seed=0, n=40, n_people=8, width=24, spread=0.35, n_cameras=2, shift=0.0):
    """Unit features and tracklets of one crop; person i % n_people in camera (i // n_people) % n_cameras."""
    rng = np.random.default_rng(seed)
    person = np.arange(n) % n_people
    camid = np.arange(n) // n_people % n_cameras
    x = rng.normal(size=(n_people, width))[person] + spread * rng.normal(size=(n, width))
    x += shift * rng.normal(size=(n_cameras, width))[camid]
    return unit(x), made_of(np.ones(n, int), camid), person


class TestGuess:
    def assign(self, features, tracklets, memory=None, **settings):
        return msplr.method(Config(**settings)).stages[0].assign(features, tracklets, memory or {})

    def test_labels_are_dbscan_of_normalised_features_and_the_record_counts(self, monkeypatch):
        x, tracklets, person = grouped(shift=2.0)
        made = self.assign(x, tracklets, min_images=3)
        rows = unit(normalise.per_camera(x, tracklets.camid))
        assert made.eps == pytest.approx(mean_nearest(rows, 4 / 39), rel=1e-6)
        distance = 1 - rows.astype(np.float64) @ rows.T
        np.fill_diagonal(distance, 0)
        from sklearn.cluster import DBSCAN

        monkeypatch.setattr(coded, "_FEW", 0)
        by_bytes = self.assign(x, tracklets, min_images=3, neighbors="int8")
        np.testing.assert_array_equal(by_bytes.labels.label, made.labels.label)
        found = DBSCAN(eps=made.eps, min_samples=2, metric="precomputed").fit(distance.clip(0)).labels_
        chosen = select_clusters(found, tracklets.camid, min_size=3)
        np.testing.assert_array_equal(made.labels.label, chosen.label)
        assert made.labels.n_clusters >= 6
        assert agreement(made.labels.label, person) == 1
        kept = int((chosen.label >= 0).sum())
        structure = made.record.pop("structure")
        assert 0 < structure < 0.7
        assert made.record == {
            "step": 1,
            "eps": made.eps,
            "n_found": found.max() + 1,
            "dropped_small": chosen.n_small,
            "dropped_one_camera": chosen.n_few_cameras,
            "one_track": 0,
            "kept": kept,
            "kept_images": kept,
            "kept_fraction": kept / 40,
        }
        assert made.diagnosis[0].startswith("min_samples 4 -> 2 for 40 tracklets")
        assert not made.last

    def test_without_normalisation_cameras_keep_people_apart(self):
        x, tracklets, _ = grouped(shift=2.0)
        raw = self.assign(x, tracklets, min_images=3, normalise=False)
        assert self.assign(x, tracklets, min_images=3).labels.n_clusters > raw.labels.n_clusters

    def test_selection_counts_crops(self):
        # clusters: two tracklets of 2 + 2 crops in two cameras; of 1 + 2; of 3 + 3 in one camera; noise
        label = np.array([0, 0, 1, 1, 2, 2, -1])
        tracklets = made_of([2, 2, 1, 2, 3, 3, 9], [0, 1, 0, 1, 1, 1, 0])
        for settings, want, small, few in (
            ({}, [0, 0, -1, -1, -1, -1, -1], 1, 1),
            ({"min_images": 3}, [0, 0, 1, 1, -1, -1, -1], 0, 1),
            ({"min_images": 1, "min_cameras": 1}, [0, 0, 1, 1, 2, 2, -1], 0, 0),
            ({"min_cameras": 1, "min_images": 5}, [-1, -1, -1, -1, 0, 0, -1], 2, 0),
        ):
            made = _selected(Config(**settings), label, tracklets)
            assert (made.label.tolist(), made.n_small, made.n_few_cameras) == (want, small, few)

    def test_eps_is_the_first_steps_and_then_stays(self):
        x, tracklets, _ = grouped()
        y = grouped(seed=1, spread=0.2)[0]
        first = self.assign(x, tracklets)
        second = self.assign(y, tracklets, first.memory)
        assert second.eps == first.eps == first.memory["eps"]
        assert self.assign(y, tracklets).eps != first.eps
        assert self.assign(x, tracklets, eps=0.3).eps == 0.3
        assert not second.diagnosis
        assert (second.record["step"], second.record["agreement"]) == (
            2,
            agreement(first.labels.label, second.labels.label),
        )

    def test_a_rescue_is_said_and_not_remembered(self):
        x, tracklets, _ = grouped()
        made = self.assign(x, tracklets, eps=0.005)
        assert made.labels.n_clusters < 2
        assert "gives two clusters to learn from" in made.diagnosis[-1]
        narrow = mean_nearest(unit(normalise.per_camera(x, tracklets.camid)), 4 / 39) * 0.4
        made = self.assign(x, tracklets, eps=narrow)
        assert made.labels.n_clusters >= 2
        assert narrow < made.eps <= 2 * narrow
        assert made.memory["eps"] == narrow
        wide = self.assign(x, tracklets, eps=1.5)
        assert wide.labels.n_clusters >= 2
        assert wide.eps < 1.5 == wide.memory["eps"]
        assert any("gave 1 cluster(s)" in line for line in wide.diagnosis)

    def test_k_means(self):
        x, tracklets, person = grouped(n=48, spread=0.15)
        made = self.assign(x, tracklets, clustering="kmeans", per_cluster=6)
        assert made.record["n_found"] == 8
        assert np.isnan(made.eps)
        assert "eps" not in made.record
        assert agreement(made.labels.label, person) > 0.8
        again = self.assign(x, tracklets, clustering="kmeans", per_cluster=6)
        np.testing.assert_array_equal(made.labels.label, again.labels.label)
        assert self.assign(x, tracklets, clustering="kmeans").record["n_found"] == 3  # ⌊48 / 15⌋
        few = self.assign(x, tracklets, clustering="kmeans", per_cluster=40)
        assert few.labels.n_clusters == 1
        assert few.diagnosis[-1].startswith("1 clusters were found")

    def test_fit_to_size_and_large_sets(self):
        x, tracklets, _ = grouped(n=80)
        raw = self.assign(x, tracklets, fit_to_size=False, rho=0.05, min_samples=3)
        assert raw.eps == pytest.approx(mean_nearest(unit(normalise.per_camera(x, tracklets.camid)), 0.05))
        assert not raw.diagnosis

    def test_what_cannot_be_clustered_is_said(self):
        rng = np.random.default_rng(0)
        tracklets = made_of(np.ones(40, int), np.arange(40) % 2)
        noise = unit(rng.normal(size=(40, 24)))
        for settings in ({}, {"eps": 0.35}, {"clustering": "kmeans"}):
            made = self.assign(noise, tracklets, **settings)
            assert made.labels.n_clusters == 0
            assert "times as far apart as chance would have them" in made.diagnosis[-1]
        assert self.assign(noise, tracklets, structure=10).labels.n_clusters > 0
        later = {**made.memory, "eps": np.array(0.5)}
        assert "chance" not in " ".join(self.assign(noise, tracklets, later).diagnosis)
        same = np.repeat(noise[:1], 40, 0)
        made = self.assign(same, tracklets)
        assert made.diagnosis[0] == "40 tracklets look like the mean of their camera and are left out"
        assert made.diagnosis[-1] == "0 tracklets are too few to cluster: give more video"
        made = self.assign(same, tracklets, normalise=False)
        assert made.diagnosis[-1].startswith("all 40 tracklets look the same")
        made = self.assign(noise[:3], made_of([1, 1, 1], [0, 1, 0]))
        assert made.diagnosis[-1] == "3 tracklets are too few to cluster: give more video"
        assert made.labels.n_clusters == 0

    def test_a_tracklet_like_the_mean_of_its_camera_is_noise(self):
        x, tracklets, _ = grouped()
        x[tracklets.camid == 1] = x[39 - 39 % 16]
        made = self.assign(x, tracklets, min_cameras=1, min_images=1, structure=10)
        assert (made.labels.label[tracklets.camid == 1] == -1).all()
        assert made.diagnosis[0].endswith("look like the mean of their camera and are left out")

    def test_it_stops_when_nothing_changes_any_more(self):
        tracklets = made_of(np.full(20, 2), np.arange(20) % 2)

        def step(memory, label, **settings):
            found = np.array(label)
            return _assignment(Config(**settings), tracklets, found, 0.3, 0.3, 0.5, [], memory)

        a = [0] * 8 + [1] * 8 + [-1] * 4
        b = [0] * 8 + [1] * 8 + [2] * 4  # four more tracklets: 0.8 -> 1 of the images
        c = [0] * 8 + [1] * 6 + [0] * 2 + [2] * 4  # other labels of the same
        history = [a, b, b, b, b, c, c, c, c]
        memory, still, last = {}, [], []
        for label in history:
            made = step(memory, label)
            memory = made.memory
            still.append(int(memory["still"]))
            last.append(made.last)
        # agreement: -, 1, 1, 1, 1, less, 1, 1, 1; its change counts from the third step on
        assert still == [0, 0, 1, 2, 3, 0, 0, 1, 2]
        assert last == [s >= 2 for s in still]
        first = step({}, a)
        assert (first.record["kept_fraction"], step(first.memory, b).record["kept_fraction"]) == (0.8, 1)
        assert step(first.memory, a).record["agreement"] == 1
        # thresholds
        memory = step(first.memory, a).memory
        assert step(memory, b).memory["still"] == 0
        assert step(memory, b, stop_kept=0.3).memory["still"] == 1
        assert step(memory, a, stop_kept=0).memory["still"] == 0
        assert step(memory, c).memory["still"] == 0
        assert step(memory, c, stop_kept=0.3, stop_agreement=1).memory["still"] == 1
        assert step(memory, a, stop_steps=1).last

    def test_a_giant_is_said(self):
        tracklets = made_of(np.full(20, 2), np.arange(20) % 2)
        label = np.r_[np.zeros(16, int), np.ones(4, int)]
        made = _assignment(Config(), tracklets, label, 0.3, 0.3, 0.5, [], {})
        assert made.diagnosis[0].startswith("the largest of 2 clusters holds 16 of 20 tracklets")


def run(worlds, *, resume=None, every=200, crops=None, source=True, seed=0, **settings):
    given, target, own, _, network = worlds
    method = msplr.method(Config(**{**FAST, **settings}), *(given if source else ()))
    config = train.Config(checkpoint_every=every)
    return list(train.train(method, network, target, crops or own, config=config, resume=resume, seed=seed))


def load(network, arrays):
    network = copy.deepcopy(network)
    own = network.state_dict()
    network.load_state_dict({k: torch.from_numpy(v.copy()).reshape(own[k].shape) for k, v in arrays.items()})
    return network


def separation(worlds, network):
    """Mean similarity of a person's tracklets in two cameras, less that of two persons'."""
    _, target, crops, person, _ = worlds
    x = embed.pool(embed.extract(network, crops, target.crop, device="cpu"), target.tracklet, len(target))
    same = person[:, None] == person
    across = target.camid[:, None] != target.camid
    similarity = x @ x.T
    return similarity[same & across].mean() - similarity[~same].mean()


def rounds(events):
    out = [dataclasses.asdict(e) for e in events if isinstance(e, train.Round)]
    for event in out:
        del event["seconds"]
    return out


def through_a_file(state):
    arrays = {name: np.ascontiguousarray(value).copy() for name, value in sorted(state.arrays.items())}
    return train.State(arrays, json.loads(json.dumps(state.meta, allow_nan=False)))


@pytest.fixture(scope="module")
def whole(worlds):
    return run(worlds)


def test_a_run_learns_the_source_then_the_target(worlds, whole):
    done = [e for e in whole if isinstance(e, train.Round)]
    assert [e.stage for e in done] == ["source"] * 6 + ["steps"] * 9
    assert all(e.losses.keys() == {"id", "tri", "centre", "total"} for e in done)
    for e in done:
        total = e.losses["id"] + e.losses["tri"] + 0.005 * e.losses["centre"]
        assert e.losses["total"] == pytest.approx(total, rel=1e-5)
    assert done[0].n_clusters == 8
    assert done[5].accuracy > 0.6
    steps = done[6:]
    assert [e.record["step"] for e in steps] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len({e.record["eps"] for e in steps}) == 1
    assert "agreement" not in steps[0].record
    assert steps[3].agreement == steps[3].record["agreement"]
    assert np.isnan(steps[0].agreement)
    before = separation(worlds, worlds[4])
    sourced = load(worlds[4], train.student_arrays([e for e in whole if isinstance(e, train.State)][6]))
    after = load(worlds[4], train.teacher_arrays(whole[-1]))
    assert separation(worlds, after) > max(0.5, before + 0.3, separation(worlds, sourced) + 0.1)


def test_frozen_rounds_leave_the_body_and_its_norms_alone(worlds, whole):
    states = [e for e in whole if isinstance(e, train.State)]
    arrays = [train.student_arrays(state) for state in states]
    body = [name for name in arrays[0] if not name.startswith("neck.")]
    assert {"conv.weight", "bn.running_mean", "bn.num_batches_tracked"} <= set(body)
    # states: after Prepared, after six source epochs, then steps of one frozen and two thawed epochs
    for end in range(1, len(states)):
        frozen = end > 6 and (end - 7) % 3 == 0
        for name in body:
            assert (arrays[end][name].tobytes() == arrays[end - 1][name].tobytes()) is frozen, (end, name)
        assert (arrays[end]["neck.running_mean"] != arrays[end - 1]["neck.running_mean"]).any()
        assert (arrays[end]["neck.weight"] != arrays[end - 1]["neck.weight"]).any()
        assert (arrays[end]["neck.bias"] == 0).all()


def test_each_step_begins_with_a_new_classifier(worlds):
    events = run(worlds, every=1, max_steps=2)
    heads = {e.meta["step"]: e.arrays for e in events if isinstance(e, train.State) and "fit" in e.meta}
    # four batches a round; the first state of each step follows one batch of Adam at the full rate
    for first in (25, 37):
        weight = heads[first]["fit.head.0.classifier.weight"]
        start = msplr.Head(*weight.shape, centres=True, seed=0).classifier.weight.detach().numpy()
        assert 0 < np.abs(weight - start).max() <= 1.01 * 3e-3
        assert heads[first]["fit.optimiser.0.4.step"] == 1


def test_going_on_from_every_state_is_bit_identical(worlds):
    settings = {"source_epochs": 2, "step_epochs": 2, "max_steps": 2, "iterations": 2}
    events = run(worlds, every=1, **settings)
    assert sum(isinstance(e, train.State) for e in events) == 1 + 2 * (2 + 4)
    for i, event in enumerate(events):
        if not isinstance(event, train.State):
            continue
        rest = run(worlds, every=1, resume=through_a_file(event), **settings)
        assert [type(e) for e in rest] == [type(e) for e in events[i + 1 :]]
        np.testing.assert_equal(rounds(rest), rounds(events[i + 1 :]))
        for got, want in zip(rest, events[i + 1 :], strict=True):
            if isinstance(want, train.State):
                assert got.meta == want.meta
                assert got.arrays.keys() == want.arrays.keys()
                for name, value in want.arrays.items():
                    assert got.arrays[name].tobytes() == value.tobytes(), name


def test_without_a_source_the_steps_begin_at_once(worlds, whole):
    learned = load(worlds[4], train.student_arrays([e for e in whole if isinstance(e, train.State)][6]))
    events = run((*worlds[:4], learned), source=False, max_steps=1)
    done = [e for e in events if isinstance(e, train.Round)]
    assert [e.stage for e in done] == ["steps"] * 3
    first = next(e for e in whole if isinstance(e, train.Round) and e.stage == "steps")
    assert done[0].labels.label.tolist() == first.labels.label.tolist()
    with pytest.raises(ValueError, match="resume has method msplr-steps"):
        run(worlds, resume=events[-1])


def test_it_ends_early_when_steps_agree(worlds):
    events = run(worlds, max_steps=6, stop_kept=1, stop_agreement=2, stop_steps=1)
    # the third step is the first whose change of agreement is known
    assert [e.record["step"] for e in events if isinstance(e, train.Round) and e.stage == "steps"][-1] == 3
    assert sum(isinstance(e, train.Round) for e in events) == 6 + 3 * 3


def test_k_means_and_slides_and_no_centres_run(worlds):
    events = run(
        worlds,
        clustering="kmeans",
        per_cluster=4,
        schedule="slides",
        learning_rate=3e-4,
        lambda_centre=0,
        max_steps=1,
        frozen_epochs=0,
    )
    done = [e for e in events if isinstance(e, train.Round)]
    assert done[-1].record["n_found"] == 10
    assert done[-1].losses.keys() == {"id", "tri", "total"}


@pytest.mark.parametrize("settings", [{}, {"eps": 0.35}, {"clustering": "kmeans"}])
def test_a_target_of_pure_noise_ends_with_a_diagnosis(worlds, settings):
    rng = np.random.default_rng(0)
    noise = ArrayCrops(rng.integers(0, 256, worlds[2].images.shape).astype(np.uint8))
    with pytest.raises(train.TrainingStopped, match="as far apart as chance would have them") as stopped:
        run(worlds, crops=noise, source_epochs=2, **settings)
    assert "gave 0 cluster(s)" in str(stopped.value)
    blank = ArrayCrops(np.full_like(worlds[2].images, 128))
    with pytest.raises(train.TrainingStopped, match=r"gave 0 cluster\(s\)"):
        run(worlds, crops=blank, source_epochs=1, **settings)


def test_isolation_cuts_the_target_alone(worlds, people):
    mixed, crops, _ = people(n_people=10, n_frames=8, mixed=True, cast=0.1, seed=2)
    events = run((worlds[0], mixed, crops, None, worlds[4]), isolate=True, eps_intra=0.5, max_steps=1)
    assert events[0].n_after > events[0].n_before == 40
    done = [e for e in events if isinstance(e, train.Round)]
    assert len(done[0].labels.label) == 32
    assert len(done[-1].labels.label) == events[0].n_after


def test_same_bytes_again_and_the_global_generator_stays(worlds, whole):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = run(worlds)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in whole[-1].arrays.items():
        assert again[-1].arrays[name].tobytes() == value.tobytes(), name
