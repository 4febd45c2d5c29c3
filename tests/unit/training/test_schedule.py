"""The learning rate against values that a human can recompute, and the paper's schedule."""

import json
import math

import pytest

from acar.config import TrainConfig
from acar.training.schedule import learning_rate


def test_warm_up_then_steps():
    settings = TrainConfig(
        iterations=100, warmup_iterations=10, warmup_start_lr=0.1, base_lr=1.1, milestones=[50, 80], gamma=0.1
    )
    found = [learning_rate(settings, k) for k in (0, 5, 10, 49, 50, 79, 80)]
    assert found == pytest.approx([0.1, 0.6, 1.1, 1.1, 0.11, 0.11, 0.011])


def test_no_warm_up():
    settings = TrainConfig(iterations=5, warmup_iterations=0, base_lr=0.5, milestones=[])
    assert learning_rate(settings, 0) == 0.5


@pytest.mark.parametrize(
    "case",
    ["official_R50_1000its_per_epoch", "official_R101_1000its_per_epoch", "official_R50_737its_per_epoch"],
)
def test_released_schedule(shared, case):
    golden = json.loads((shared / "golden" / "schedule.json").read_text())[case]
    scheduler, per_epoch = golden["scheduler"], golden["its_per_epoch"]
    settings = TrainConfig(
        iterations=golden["n_epochs"] * per_epoch,
        warmup_iterations=int(scheduler["warmup_epochs"] * per_epoch),
        warmup_start_lr=scheduler["base_lr"],
        base_lr=scheduler["warmup_lr"],
        milestones=[math.floor(round(epoch * per_epoch, 6)) for epoch in scheduler["milestone_epochs"]],
        gamma=0.1,
    )
    found = [learning_rate(settings, k) for k in range(golden["n"])]
    assert [found[k] for k in golden["iterations"]] == pytest.approx(golden["lr"], rel=1e-9)
    assert sum(found) == pytest.approx(golden["sum_all"], rel=1e-9)


@pytest.mark.parametrize(
    ("case", "start"), [("paper_35k_warmup_from_0", 0.0), ("paper_35k_warmup_from_0.008", 0.008)]
)
def test_the_papers_schedule_is_the_default_from_either_start(shared, case, start):
    golden = json.loads((shared / "golden" / "schedule.json").read_text())[case]
    assert TrainConfig().warmup_start_lr == 0.0
    settings = TrainConfig(warmup_start_lr=start)
    found = [learning_rate(settings, k) for k in range(golden["n"])]
    assert sum(found) == pytest.approx(golden["sum_all"], rel=1e-9)
    assert [found[k] for k in golden["iterations"]] == pytest.approx(golden["lr"], rel=1e-9, abs=1e-12)
