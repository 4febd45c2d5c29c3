"""Two views of one network, each scored and written by itself: `logits` gives what the authors' code gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from acar.data.tables import BOX_COLUMNS, DETECTION_COLUMNS
from acar.ensemble.combine import Settings, ensemble
from acar.models.loss import scores

N_POSES = 13
POSES = tuple(range(1, N_POSES + 1))


def as_table(scores_KC: np.ndarray) -> pd.DataFrame:
    n_actors, n_classes = scores_KC.shape
    frame = pd.DataFrame(dict.fromkeys(BOX_COLUMNS, np.repeat(np.arange(n_actors) / 10, n_classes)))
    frame["video"], frame["time_s"] = pd.array(["a"] * len(frame), dtype="str"), 902.0
    frame["action_id"] = np.tile(np.arange(1, n_classes + 1), n_actors)
    return frame.assign(score=scores_KC.ravel())[DETECTION_COLUMNS]


def of_views(logits_VKC: np.ndarray, weights: list[float] | None = None) -> np.ndarray:
    """The ensemble's scores of views that were activated one by one."""
    views = scores(torch.from_numpy(logits_VKC).double().flatten(0, 1), torch.arange(N_POSES)).numpy()
    tables = [as_table(view) for view in views.reshape(logits_VKC.shape)]
    found = ensemble(tables, weights, Settings("logits", exclusive=POSES))
    return found["score"].to_numpy().reshape(logits_VKC.shape[1:])


def test_a_view_and_its_mirror_image(shared: Path) -> None:
    """The tame weights: of the others' logits, in the hundreds, scores tell no more than the sign."""
    with np.load(shared / "golden" / "full_model_r50_tame.npz") as golden:
        views = np.stack([golden["logits"], golden["logits_flip_only"]])
        wanted = golden["scores_flip_avg"]
    np.testing.assert_allclose(of_views(views), wanted, rtol=0, atol=2e-6)


def test_weighted_views_of_drawn_logits() -> None:
    logits = np.random.default_rng(0).normal(-1, 2, (3, 20, 30))
    mean = torch.from_numpy(np.average(logits, axis=0, weights=[3, 1, 2]))
    wanted = scores(mean, torch.arange(N_POSES)).numpy()
    np.testing.assert_allclose(of_views(logits, [3, 1, 2]), wanted, rtol=0, atol=1e-6)
