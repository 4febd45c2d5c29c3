"""The learning rate by iteration: linear warm-up, then steps (paper section 4.1)."""

from __future__ import annotations

from acar.config import TrainConfig


def learning_rate(settings: TrainConfig, iteration: int) -> float:
    """The rate that iteration `iteration` (0-based) is taken with.

    It rises linearly from `warmup_start_lr` at iteration 0 to `base_lr` at `warmup_iterations`,
    and is multiplied by `gamma` at each milestone.
    """
    if iteration < settings.warmup_iterations:
        share = iteration / settings.warmup_iterations
        return settings.warmup_start_lr + (settings.base_lr - settings.warmup_start_lr) * share
    passed = sum(iteration >= milestone for milestone in settings.milestones)
    return settings.base_lr * settings.gamma**passed
