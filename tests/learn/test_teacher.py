"""The mean teacher by hand-computed steps."""

import pytest
import torch
from torch import nn

from tracklearn.learn import teacher


def test_warm_up():
    assert [teacher.momentum(s, 0.9) for s in (0, 1, 3)] == [0.0, 0.5, 0.75]
    assert teacher.momentum(8, 0.9) == pytest.approx(8 / 9)
    assert teacher.momentum(9, 0.9) == 0.9
    assert teacher.momentum(10**6) == 0.999


def test_average_by_hand():
    student = nn.Linear(1, 1, bias=False)
    mean = teacher.teacher_of(student)
    average = teacher.Average([(mean, student)])
    values = []
    for step, value in enumerate([8.0, 4.0, 3.0, 1.0, 11.0]):
        with torch.no_grad():
            student.weight.fill_(value)
        average.update(step=step, alpha=0.75)
        values.append(mean.weight.item())
    # plain means of what came so far up to step 3 (momentum 0, 1/2, 2/3, 3/4), then 0.75 and 0.25
    assert values == pytest.approx([8, 6, 5, 4, 0.75 * 4 + 0.25 * 11])


def test_several_pairs_move_together_and_weights_may_be_loaded():
    students = [nn.Linear(1, 1), nn.Linear(2, 1)]
    means = [teacher.teacher_of(student) for student in students]
    average = teacher.Average(zip(means, students, strict=True))
    for student in students:
        student.load_state_dict({name: value + 4 for name, value in student.state_dict().items()})
    average.update(step=1)
    for student, mean in zip(students, means, strict=True):
        for value, moved in zip(student.parameters(), mean.parameters(), strict=True):
            assert torch.allclose(moved, value - 2)


def test_only_parameters_are_averaged():
    student = nn.BatchNorm1d(3)
    mean = teacher.teacher_of(student)
    student.running_mean.fill_(7)
    student.num_batches_tracked.fill_(5)
    with torch.no_grad():
        student.weight.fill_(3)
    teacher.Average([(mean, student)]).update(step=0)
    assert mean.weight.tolist() == [3, 3, 3]
    assert mean.running_mean.tolist() == [0, 0, 0]
    assert mean.num_batches_tracked.item() == 0


def test_teacher_is_its_own_copy_without_gradient():
    student = nn.Linear(2, 2)
    mean = teacher.teacher_of(student)
    assert not any(p.requires_grad for p in mean.parameters())
    assert all(p.requires_grad for p in student.parameters())
    before = mean.weight.clone()
    with torch.no_grad():
        student.weight.add_(1)
    assert torch.equal(mean.weight, before)


def test_other_architecture_is_refused():
    with pytest.raises(ValueError):
        teacher.Average([(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))])
