"""GPUs on Ray: a task that needs one gets one. Ray counts them without looking, so this needs no GPU."""

import pytest
from tests.optional import has
from tests.store.worker_tasks import Dies, Environment, InStages, OnTheWay, Raises

from tracklearn.types import Refusal

pytestmark = pytest.mark.slow  # a cluster takes seconds, which a busy machine may not keep


@pytest.fixture(scope="module")
def engine():
    """On a cluster of one CPU, and of one GPU that need not be there."""
    has("ray")
    from tracklearn.store.workers.ray import LOOPBACK, OnRay

    engine = OnRay(workers=1)
    ray = engine._ray
    options = {"include_dashboard": False, "_node_ip_address": LOOPBACK, "log_to_driver": False}
    ray.init(address="local", num_cpus=1, num_gpus=1, configure_logging=False, **options)
    yield engine
    ray.shutdown()


def test_a_task_that_needs_a_gpu_has_one_to_itself(engine):
    tasks = [Environment("CUDA_VISIBLE_DEVICES")] * 3
    assert [outcome.value for outcome in engine.run(tasks, "work", gpus=1)] == ["0"] * 3
    assert "0" not in [outcome.value for outcome in engine.run(tasks, "work")]


def test_those_who_read_need_no_gpu_and_those_who_compute_have_one(engine):
    found = {o.number: o.value for o in engine.run([InStages(n) for n in range(6)], "work", gpus=1)}
    assert [found[n]["value"] for n in range(6)] == [n * n for n in range(6)]
    assert {value["own"] for value in found.values()} == {"0"}
    assert "0" not in {value["gpu"] for value in found.values()}
    assert len({value["worker"] for value in found.values()}) == 1
    assert not {value["reader"] for value in found.values()} & {value["worker"] for value in found.values()}


def test_whichever_stage_kills_its_workers_that_task_is_given_up(engine, tmp_path):
    assert next(engine.run([OnTheWay("unpacked")], "work", gpus=1)).lost
    tasks = [
        InStages(0, Dies(), "read"),
        InStages(1, Dies(tmp_path / "mark"), "read"),
        InStages(2, Dies(), "work"),
        InStages(3, Raises("memory"), "read"),
        InStages(4),
    ]
    found = {outcome.number: outcome for outcome in engine.run(tasks, "work", gpus=1)}
    assert [found[n].lost is None for n in range(5)] == [False, True, False, False, True]
    assert found[3].lost == "out of memory (a picture of 9 GB)"
    with pytest.raises(Refusal, match=r"^no such film: mend it"):
        list(engine.run([InStages(0, Raises("refusal"), "read"), InStages(1)], "work", gpus=1))


def test_gpus_that_no_machine_has_are_refused(engine):
    with pytest.raises(
        Refusal, match="too few GPUs: a task needs 2, the Ray cluster has 1; say --device cpu"
    ):
        list(engine.run([Environment("PATH")], "work", gpus=2))
