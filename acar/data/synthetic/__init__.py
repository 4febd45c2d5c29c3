"""A drawn data set whose labels follow a known law (docs/drawn-data.md): simulate, draw, write."""

from acar.data.synthetic.law import CLASSES, VideoScript, clip_only_recall, simulate_video

__all__ = ["CLASSES", "VideoScript", "clip_only_recall", "simulate_video"]
