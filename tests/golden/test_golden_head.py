"""Head outputs and gradients equal those of the authors' code (mode `released`: on zero-padded maps)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import relative_error

from acar.config import BackboneConfig, HeadConfig, ModelConfig
from acar.models.head import ActorContextHead
from acar.models.net import build_network

ARRAYS = Path(__file__).parent / "arrays"
CELL_PX = 1000  # pixels of a cell, so that sizes in pixels have the golden ratios
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


def run_padded(
    head: ActorContextHead, golden: np.lib.npyio.NpzFile, slow: torch.Tensor, fast: torch.Tensor
) -> torch.Tensor:
    """The network's own treatment of padded batches, on these maps in the place of its backbone's."""
    net = build_network(
        ModelConfig(backbone=BackboneConfig(depths=(1, 1, 1, 1), width=8), batch_padding="released"), 3
    ).eval()
    net.head, net.features = head, lambda frames: (slow, fast)
    padded = torch.tensor([slow.shape[3] * CELL_PX, slow.shape[4] * CELL_PX])
    ratios = torch.from_numpy(golden["in/sizes_before_padding"]).flip(1)  # height, width
    sizes_px = (ratios * padded).round().long()
    rois = torch.from_numpy(golden["in/rois"])
    boxes, clip_index = rois[:, 1:], rois[:, 0].long()
    own = boxes / ratios.float()[:, [1, 0, 1, 0]][clip_index]  # in 0..1 of the unpadded frames
    return net(torch.zeros(len(slow), 3, 1, *padded), own, clip_index, sizes_px=sizes_px)


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
