"""GPUs on Ray: a task that needs one gets one. Ray counts them without looking, so this needs no GPU."""

import pytest
from tests.optional import has
from tests.store.worker_tasks import Environment

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


def test_gpus_that_no_machine_has_are_refused(engine):
    with pytest.raises(
        Refusal, match="too few GPUs: a task needs 2, the Ray cluster has 1; say --device cpu"
    ):
        list(engine.run([Environment("PATH")], "work", gpus=2))
