"""The one training loop of both stages: schedule, checkpoints, processes, seeds."""
