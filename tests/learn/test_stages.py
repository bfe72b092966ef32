"""What a stage may ask of the loop beyond TMC: no teachers, own material, schedules, an early end, pairs."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from tracklearn.learn import losses, train
from tracklearn.learn.augment import Augment
from tracklearn.learn.method import Assignment, Material, Moment
from tracklearn.learn.methods import tmc
from tracklearn.types import PseudoLabels

CONFIG = tmc.Config(
    isolate=False,
    epochs=2,
    iterations=2,
    clusters_per_batch=4,
    tracklets_per_cluster=2,
    frames_train=1,
    frames_cluster=2,
    learning_rate=1e-3,
    augment=Augment(pad=2),
)


def four(features, tracklets, memory):
    return Assignment(PseudoLabels.of(np.arange(len(tracklets)) // 4))


def identity(students, teachers, target):
    return {"id": losses.identity(students[0].logits, target.label)}


def plain(**changes):
    """One stage of cross-entropy on given clusters."""
    stage = tmc.method(CONFIG).stages[0]
    simple = {"assign": four, "objective": identity, "weights": {"id": 1.0}}
    return dataclasses.replace(stage, **(simple | changes))


def run(easy, *stages, resume=None, every=200, **settings):
    tracklets, crops, network = easy
    method = dataclasses.replace(tmc.method(CONFIG), stages=stages)
    return list(
        train.train(
            method,
            network,
            tracklets,
            crops,
            config=train.Config(checkpoint_every=every),
            resume=resume,
            **settings,
        )
    )


def rounds(events):
    return [e for e in events if isinstance(e, train.Round)]


@pytest.fixture(scope="module")
def easy(people, small):
    tracklets, crops, _ = people()
    return tracklets, crops, small(crops)


def test_without_teachers_they_are_copies_and_give_no_views(easy):
    seen = []

    def objective(students, teachers, target):
        seen.append((len(students), len(teachers)))
        return identity(students, teachers, target)

    events = run(easy, plain(alpha=None, objective=objective))
    assert set(seen) == {(1, 0)}
    student, teacher = train.student_arrays(events[-1]), train.teacher_arrays(events[-1])
    for name, value in student.items():
        np.testing.assert_array_equal(teacher[name], value, err_msg=name)
    start = easy[2].state_dict()["conv.weight"].numpy()
    assert (teacher["conv.weight"] != start).any()
    middle = run(easy, plain(alpha=None), every=1)[2]  # inside the first epoch they are still as before
    assert middle.meta["rounds"] == 0
    assert middle.meta["step"] == 1
    np.testing.assert_array_equal(train.teacher_arrays(middle)["conv.weight"], start)


def test_a_stage_learns_from_its_own_material(easy, people):
    tracklets, crops, _ = people(n_people=3, seed=7)
    seen = []

    def assign(features, tracklets, memory):
        seen.append(len(tracklets))
        return four(features, tracklets, memory)

    own = plain(name="source", assign=assign, material=Material(tracklets, crops), rounds=1)
    given = plain(name="target", assign=assign)
    events = run(easy, own, given)
    assert seen == [len(tracklets), len(easy[0]), len(easy[0])]
    found = rounds(events)
    assert [r.stage for r in found] == ["source", "target", "target"]
    assert len(found[0].labels.label) == len(tracklets) != len(found[1].labels.label)
    assert np.isnan(found[1].agreement)  # labels of other tracklets are not compared
    assert found[2].agreement == 1
    for state in [e for e in run(easy, own, given, every=1) if isinstance(e, train.State)]:
        last = run(easy, own, given, resume=state, every=1)
        if last:
            for name, value in events[-1].arrays.items():
                assert value.tobytes() == last[-1].arrays[name].tobytes(), name


def test_the_schedule_comes_before_every_batch(easy):
    moments, rates = [], []

    def schedule(students, optimisers, moment):
        moments.append(moment)
        assert students[0].training
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = 0.0 if moment.round == 0 else 1e-3
        rates.append(optimisers[0].param_groups[0]["lr"])

    events = run(easy, plain(rounds=5, assign_every=3, schedule=schedule))
    assert moments == [
        Moment(r, n, b, 2, e)
        for e, (r, n) in enumerate(((0, 3), (1, 3), (2, 3), (0, 2), (1, 2)))
        for b in (0, 1)
    ]
    assert rates == [0, 0, 1e-3, 1e-3, 1e-3, 1e-3, 0, 0, 1e-3, 1e-3]
    states = [e for e in events if isinstance(e, train.State)]
    weight = [train.student_arrays(s)["conv.weight"] for s in states]
    assert [(a == b).all() for a, b in itertools.pairwise(weight)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_an_assignment_may_be_the_last_of_its_stage(easy):
    def assign(features, tracklets, memory):
        n = int(memory.get("n", np.array(0)).item()) + 1
        made = four(features, tracklets, memory)
        return dataclasses.replace(made, memory={"n": np.array(n)}, record={"step": n}, last=n == 2)

    first, second = (
        plain(name="steps", assign=assign, rounds=8, assign_every=2),
        plain(name="after", rounds=1),
    )
    events = run(easy, first, second)
    found = rounds(events)
    assert [r.stage for r in found] == ["steps"] * 4 + ["after"]
    assert [r.record.get("step") for r in found] == [1, 1, 2, 2, None]
    assert [r.index for r in found] == [0, 1, 2, 3, 4]
    for state in [e for e in run(easy, first, second, every=1) if isinstance(e, train.State)]:
        rest = run(easy, first, second, resume=state, every=1)
        assert [r.index for r in rounds(rest)] == list(range(state.meta["rounds"], 5))
        if rest:
            assert rest[-1].arrays["student.conv.weight"].tobytes() == (
                events[-1].arrays["student.conv.weight"].tobytes()
            )


def test_pairs_are_divided_at_the_end_of_a_round_and_accuracy_may_be_given(easy):
    """Counts differ from batch to batch, and a mean of means would be another number."""
    hits = iter([(1.0, 1.0), (0.0, 3.0), (2.0, 4.0), (0.0, 0.0)])

    def objective(students, teachers, target):
        hit, count = next(hits)
        return {
            **identity(students, teachers, target),
            "seen": torch.tensor([hit, count]),
            "never": torch.zeros(2),
            "accuracy": torch.tensor([count, 4.0]),
        }

    one, two = rounds(run(easy, plain(objective=objective)))
    assert one.losses["seen"] == pytest.approx(1 / 4)
    assert two.losses["seen"] == pytest.approx(2 / 4)
    assert one.losses.keys() == {"id", "seen", "total"}
    assert one.accuracy == pytest.approx(4 / 8)
    assert one.losses["total"] == pytest.approx(one.losses["id"])


def test_what_stands_for_one_person_may_differ_from_the_labels(easy):
    group = np.where(np.arange(len(easy[0])) < 6, np.arange(len(easy[0])) // 3, -1)

    def assign(features, tracklets, memory):
        labels = PseudoLabels.of(np.arange(len(tracklets)))
        return Assignment(labels, group=group, record={"links": 2.0}, keep={"edge": np.arange(3)})

    found = rounds(run(easy, plain(assign=assign)))[0]
    assert found.n_clusters == 2
    assert found.largest_cluster == 3
    assert found.noise_fraction == pytest.approx(1 - 6 / len(easy[0]))
    assert found.labels.label.tolist() == group.tolist()
    assert found.record["links"] == 2.0
    assert set(found.record) == {"links", "same_track", "two_views", "silhouette"}  # those of core.signs
    assert found.keep["edge"].tolist() == [0, 1, 2]


def test_a_head_may_hold_centres(easy):
    class Head(torch.nn.Module):
        def __init__(self, n, d):
            super().__init__()
            self.linear = torch.nn.utils.skip_init(torch.nn.Linear, d, n, bias=False)
            torch.nn.init.constant_(self.linear.weight, 0.01)
            weight = torch.arange(n * d, dtype=torch.float32).reshape(n, d)
            self.centres = torch.nn.Embedding(n, d, _weight=weight)

        def forward(self, post):
            return self.linear(post)

    seen = []

    def objective(students, teachers, target):
        view = students[0]
        seen.append(view.centre[:, 0].tolist() == (target.label * view.feature.shape[1]).tolist())
        return {"id": (view.feature - view.centre).square().mean()}

    def head(features, labels):
        return Head(labels.n_clusters, features.shape[1])

    run(easy, plain(head=head, objective=objective, rounds=1, alpha=None, iterations=lambda labels: 1))
    assert seen == [True]
