"""TMC's settings and parts."""

import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tracklearn.core import cluster
from tracklearn.learn import train
from tracklearn.learn.heads import adam, classifier
from tracklearn.learn.method import Target, View
from tracklearn.learn.methods import tmc
from tracklearn.types import PseudoLabels


def test_defaults_are_the_papers():
    values = tmc.Config().model_dump()
    del values["augment"]
    assert values == {
        "isolate": True,
        "isolation": "dbscan",
        "penalty_intra": "auto",
        "eps_intra": 0.6,
        "min_samples_intra": 2,
        "metric": "euclidean",
        "join_intra": "none",
        "least_intra": 1,
        "isolate_every": 0,
        "time_tells": False,
        "k1": 30,
        "k2": 6,
        "jaccard": "tracklearn",
        "rho": 1.6e-3,
        "eps_share": 1,
        "min_samples": 4,
        "neighbors": "exact",
        "fit_to_size": True,
        "epochs": 40,
        "iterations": "auto",
        "clusters_per_batch": 16,
        "tracklets_per_cluster": 4,
        "frames_train": 4,
        "frames_cluster": 32,
        "learning_rate": 3.5e-4,
        "weight_decay": 5e-4,
        "lambda_id": 0.5,
        "lambda_tri": 0.8,
        "margin": 0.5,
        "triplet": "margin",
        "label_smoothing": 0,
        "alpha": 0.999,
        "samples_per_bn": 16,
        "cluster_feature": "post_bn",
    }


def test_every_setting_says_where_it_comes_from():
    for name, field in tmc.Config.model_fields.items():
        assert field.description, name
        assert any(mark in field.description for mark in ("paper", "[code", "[chosen")), name


@pytest.mark.parametrize(
    "settings",
    [
        {"epoch": 3},
        {"eps_intra": 0},
        {"iterations": "many"},
        {"iterations": 0},
        {"clusters_per_batch": 1},
        {"lambda_id": 1.1},
        {"alpha": 1},
        {"rho": 0},
        {"metric": "hamming"},
        {"augment": {"flips": 1}},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        tmc.Config(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps_intra": "auto", "metric": "jaccard"}, "give eps_intra a number"),
        ({"metric": "cosine"}, "needs an eps_intra of its own"),
        ({"metric": "jaccard"}, "needs an eps_intra of its own"),
        ({"samples_per_bn": 1, "frames_train": 1}, "no variance: raise one"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        tmc.Config(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"eps_intra": "auto", "metric": "cosine"},
        {"eps_intra": 0.6, "metric": "jaccard"},
        {"samples_per_bn": 1, "frames_train": 2},
    ],
)
def test_settings_that_fit_together_come_back_from_their_dump(settings):
    config = tmc.Config(**settings)
    assert tmc.Config(**config.model_dump()) == config


def test_association_takes_fit_to_size_and_freezes_eps_before_any_rescue(people):
    rng = np.random.default_rng(0)
    x = np.repeat(rng.normal(size=(10, 64)), 10, axis=0) + 0.4 * rng.normal(size=(100, 64))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    settings = {"k1": 50, "k2": 1, "rho": 0.6, "min_samples": 4}
    tracklets = people(n_people=25)[0]
    assert len(tracklets) == len(x)
    raw = cluster.associate(x, **settings, fit_to_size=False)
    assert raw.usable
    assert raw.eps < raw.start_eps
    assign = tmc.method(tmc.Config(**settings, fit_to_size=False)).stages[0].assign
    first = assign(x, tracklets, {})
    second = assign(x, tracklets, first.memory)
    for made in (first, second):
        assert made.eps == raw.eps
        assert made.memory["eps"] == raw.start_eps
        assert made.labels.label.tolist() == raw.label.tolist()
    fitted = tmc.method(tmc.Config(**settings)).stages[0].assign(x, tracklets, {})
    assert any(line.startswith("k1 50 ->") for line in fitted.diagnosis)


def clusters(n):
    return PseudoLabels.of(np.arange(n))


def test_iterations():
    auto = tmc.method().stages[0].iterations
    assert [auto(clusters(c)) for c in (1, 2, 10, 700)] == [1, 1, 6, 420]
    assert tmc.method(tmc.Config(iterations=400)).stages[0].iterations(clusters(7)) == 400


def test_classifier_rows_are_unit_cluster_means():
    features = np.float32([[1, 0], [0, 1], [0, 1], [0.6, 0.8]])
    layer = classifier(features, PseudoLabels.of(np.array([0, 0, 1, -1])))
    assert layer.bias is None
    assert layer.weight.requires_grad
    np.testing.assert_allclose(layer.weight.detach(), [[0.5**0.5, 0.5**0.5], [0, 1]], rtol=1e-6)


def test_adam_leaves_the_frozen_alone():
    student, head = nn.BatchNorm1d(3), nn.Linear(3, 2, bias=False)
    student.bias.requires_grad_(False)
    (optimiser,) = adam(student, head, learning_rate=0.1, weight_decay=0.2)
    (group,) = optimiser.param_groups
    assert [p.shape for p in group["params"]] == [(3,), (2, 3)]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.2)


def test_objective_passes_the_settings_on():
    rng = torch.Generator().manual_seed(0)
    views = [View(torch.randn(6, 4, generator=rng), torch.randn(6, 3, generator=rng)) for _ in range(2)]
    label = torch.tensor([0, 0, 1, 1, 2, 2])
    target = Target(label, label, label * 0 - 1, torch.ones(6), {})

    def terms(**settings):
        return tmc.method(tmc.Config(**settings)).stages[0].objective(views[:1], views[1:], target)

    base = terms()
    assert terms(label_smoothing=0.1)["id"] != base["id"]
    assert terms(margin=0.1)["tri"] != base["tri"]
    assert terms(triplet="softplus")["tri"] != base["tri"]
    assert tmc.method(tmc.Config(lambda_id=0.3, lambda_tri=0.6)).stages[0].weights == {
        "id": 0.7,
        "sid": 0.3,
        "tri": 0.4,
        "stri": 0.6,
    }
    # a tracklet of weight 0 does not count
    without = dataclasses.replace(target, weight=torch.tensor([1.0, 1, 1, 1, 1, 0]))
    stage = tmc.method().stages[0]
    shifted = [View(views[0].feature, views[0].logits + 5 * torch.eye(6)[:, 5:] * torch.randn(3))]
    a = stage.objective(views[:1], views[1:], without)["id"]
    assert stage.objective(shifted, views[1:], without)["id"] == pytest.approx(a.item())


def test_isolation_cuts_mixed_tracklets_and_training_sees_the_parts(people, small):
    tracklets, crops, pid = people(n_frames=8, mixed=True, cast=0.1, seed=2)
    config = tmc.Config(
        epochs=1, iterations=1, frames_train=2, k1=10, k2=3, min_samples=2, eps_intra=0.5, augment={"pad": 2}
    )
    network = small(crops)
    events = list(train.train(tmc.method(config), network, tracklets, crops))
    prepared = events[0]
    assert prepared.n_before == 24
    assert prepared.n_after == len(prepared.tracklets) >= 40
    # every part shows one person
    for i in range(len(prepared.tracklets)):
        rows = prepared.tracklets.crop[prepared.tracklets.tracklet == i]
        assert len(set(pid[rows].tolist())) == 1
    assert len(events[2].labels.label) == prepared.n_after
    assert prepared.dropped == (prepared.part < 0).sum() == tracklets.n_crops - prepared.tracklets.n_crops
    # resumed, the parts come back from the state and isolation is not run again
    two = tmc.method(config.model_copy(update={"epochs": 2}))
    rest = list(train.train(two, network, tracklets, crops, resume=events[-1]))
    assert [type(e).__name__ for e in rest] == ["Round", "State"]
    assert (rest[-1].arrays["part"] == prepared.part).all()


def test_warnings_of_small_data_come_once(people, small):
    tracklets, crops, _ = people()
    config = tmc.Config(isolate=False, epochs=2, iterations=1, frames_train=1)
    events = list(train.train(tmc.method(config), small(crops), tracklets, crops))
    assert events[2].diagnosis
    assert not events[4].diagnosis


def test_a_short_epoch_of_the_full_size_settings_fits_few_clusters(people, small):
    """Fewer clusters than a batch holds: a smaller batch, no refusal."""
    tracklets, crops, _ = people(n_people=3)
    config = tmc.Config(isolate=False, epochs=1, k1=6, k2=2, min_samples=2)
    events = list(train.train(tmc.method(config), small(crops), tracklets, crops))
    assert 2 <= events[2].n_clusters < 16


def test_change_points_isolate_too(people, small):
    """Each tracklet shows two persons, one after the other: cut once, nothing dropped."""
    tracklets, crops, pid = people(n_frames=8, mixed=True, cast=0.1, seed=2)
    settings = {"epochs": 1, "iterations": 1, "frames_train": 2, "k1": 10, "k2": 3, "min_samples": 2}
    for penalty in ("auto", 0.1):
        config = tmc.Config(isolation="change-point", penalty_intra=penalty, **settings)
        prepared = next(train.train(tmc.method(config), small(crops), tracklets, crops))
        assert prepared.dropped == 0
        pure = [
            len(set(pid[prepared.tracklets.crop[prepared.tracklets.tracklet == i]].tolist())) == 1
            for i in range(len(prepared.tracklets))
        ]
        assert np.mean(pure) > 0.9
        assert prepared.n_before < prepared.n_after


def test_linkage_isolates_crops_that_have_no_moments(people, small):
    """By a distance, or by what crops of strangers tell: of too few tracks nothing, and they stay whole."""
    tracklets, crops, pid = people(n_frames=8, mixed=True, cast=0.1, seed=2)
    settings = {"epochs": 1, "iterations": 1, "frames_train": 2, "k1": 10, "k2": 3, "min_samples": 2}
    config = tmc.Config(isolation="linkage", join_intra=0.5, **settings)
    prepared = next(train.train(tmc.method(config), small(crops), tracklets, crops))
    assert prepared.dropped == 0
    own = [prepared.tracklets.crop[prepared.tracklets.tracklet == i] for i in range(len(prepared.tracklets))]
    assert np.mean([len(set(pid[rows].tolist())) == 1 for rows in own]) > 0.9
    assert prepared.n_before < prepared.n_after
    config = tmc.Config(isolation="linkage", join_intra="auto", **settings)
    prepared = next(train.train(tmc.method(config), small(crops), tracklets, crops))
    assert prepared.n_after == prepared.n_before == 24
    assert any("they stay whole" in note for note in prepared.diagnosis)
    with pytest.raises(ValueError, match="join_intra"):
        tmc.Config(isolation="linkage")


def test_the_form_of_the_jaccard_distance_can_be_chosen(people):
    tracklets, _, _ = people(n_people=8)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(tracklets), 8)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    eps = {
        form: tmc.method(tmc.Config(jaccard=form)).stages[0].assign(features, tracklets, {}).eps
        for form in ("tracklearn", "mmt", "spcl")
    }
    assert len(set(eps.values())) == 3
