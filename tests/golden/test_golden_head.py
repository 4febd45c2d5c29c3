"""Head outputs and gradients equal those of the authors' code (mode `released`: on zero-padded maps)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import relative_error

from acar.config import HeadConfig
from acar.models.head import ActorContextHead

ARRAYS = Path(__file__).parent / "arrays"
CASES = [
    "head_acar_d1_mlp1x1_max2x2",
    "head_acar_d1_mlp1x1_none",
    "head_acar_d1_mlp3x3_max2x2",
    "head_acar_d2_mlp1x1_none",
    "head_acar_d2_mlp3x3_max2x2",
    "head_acar_d2_mlp3x3_none",
    "head_acar_d2_soft",
    "head_acar_d3_mlp1x1_max2x2",
    "head_acar_d3_mlp3x3_max2x2",
    "head_acar_d3_mlp3x3_none",
]


def head_of(golden: np.lib.npyio.NpzFile) -> ActorContextHead:
    keywords = json.loads(str(golden["kwargs"]))
    config = HeadConfig(
        reduce_channels=keywords["reduce_dim"],
        hidden_channels=keywords["hidden_dim"],
        roi_size=keywords["roi_spatial"],
        downsample=keywords["downsample"],
        hr2o_depth=keywords["depth"],
        hr2o_mlp_kernel=1 if keywords.get("mlp_1x1") else 3,
    )
    slow, fast = golden["in/slow"].shape[1], golden["in/fast"].shape[1]
    head = ActorContextHead(config, (slow, fast), keywords["num_classes"]).eval()
    head.load_state_dict({k[2:]: torch.from_numpy(golden[k]) for k in golden.files if k.startswith("w/")})
    return head


def run_padded(head: ActorContextHead, golden: np.lib.npyio.NpzFile, slow: torch.Tensor, fast: torch.Tensor):
    """As the released code: RoI features from the padded map, context cropped to the clip's own cells."""
    maps = head.context((slow, fast))
    rois, starts = torch.from_numpy(golden["in/rois"]), golden["in/roi_ids"]
    logits = []
    for image, (ratio_w, ratio_h) in enumerate(golden["in/sizes_before_padding"]):
        boxes = rois[starts[image] : starts[image + 1], 1:]
        clip = torch.zeros(len(boxes), dtype=torch.int64)
        h, w = math.ceil(maps.shape[2] * ratio_h), math.ceil(maps.shape[3] * ratio_w)
        padded = maps[image : image + 1]
        actors = head.actors(padded, boxes, clip)
        encoded = head.encode(padded[:, :, :h, :w], actors, clip)
        logits.append(head.classify(actors, head.relate(encoded, clip, 1)))
    return torch.cat(logits)


@pytest.mark.parametrize("case", CASES)
def test_head_equals_released_code(request: pytest.FixtureRequest, case: str) -> None:
    folder = ARRAYS if (ARRAYS / f"{case}.npz").is_file() else request.getfixturevalue("shared") / "golden"
    golden = np.load(folder / f"{case}.npz")
    head = head_of(golden)
    slow = torch.from_numpy(golden["in/slow"]).requires_grad_()
    fast = torch.from_numpy(golden["in/fast"]).requires_grad_()
    logits = run_padded(head, golden, slow, fast)
    logits.pow(2).sum().backward()
    errors = {"logits": relative_error(logits, golden["out"])}
    assert errors["logits"] <= 1e-4
    values = {"slow": slow, "fast": fast, **dict(head.named_parameters())}
    for key in (k for k in golden.files if k.startswith("grad/")):
        errors[key] = relative_error(values[key.removeprefix("grad/")].grad, golden[key])
        assert errors[key] <= 1e-3, key
    for name, norm in json.loads(str(golden["gradnorm"])).items():
        assert values[name].grad.double().norm().item() == pytest.approx(norm, rel=1e-3), name
    print(case, {k: f"{v:.0e}" for k, v in errors.items()})


def test_batched_head_equals_clip_by_clip() -> None:
    """On unpadded maps, one call for ragged clips (3, 0, 5 and 1 actors) gives each clip's own result."""
    golden = np.load(ARRAYS / "head_acar_d2_soft.npz")
    head = head_of(golden)
    slow, fast = torch.from_numpy(golden["in/slow"]), torch.from_numpy(golden["in/fast"])
    rois = torch.from_numpy(golden["in/rois"])
    boxes, clip_index = rois[:, 1:], rois[:, 0].long()
    with torch.no_grad():
        together = head((slow, fast), boxes, clip_index)
        alone = []
        for i in range(4):
            mine = boxes[clip_index == i]
            alone.append(
                head((slow[i : i + 1], fast[i : i + 1]), mine, torch.zeros(len(mine), dtype=torch.int64))
            )
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    assert relative_error(together[:3], golden["out"][:3]) <= 1e-4  # the first clip has no padding
