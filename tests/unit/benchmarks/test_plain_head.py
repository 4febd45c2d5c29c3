"""The yardstick is honest: the plain head gives the golden values, and what our head gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from plain.head import PlainHead

from acar.config import HeadConfig
from acar.models.head import ActorContextHead

ARRAYS = Path(__file__).parents[2] / "golden" / "arrays"
CASES = ["d2_soft", "d1_mlp1x1_max2x2", "d2_mlp3x3_max2x2", "d3_mlp3x3_none"]


def error(value: torch.Tensor, reference: torch.Tensor) -> float:
    return ((value - reference).abs().max() / reference.abs().max()).item()


@pytest.mark.parametrize("case", CASES)
def test_plain_head_equals_the_released_code(request: pytest.FixtureRequest, case: str) -> None:
    name = f"head_acar_{case}.npz"
    folder = ARRAYS if (ARRAYS / name).is_file() else request.getfixturevalue("shared") / "golden"
    golden = np.load(folder / name)
    keywords = json.loads(str(golden["kwargs"]))
    head = PlainHead(
        golden["in/slow"].shape[1], golden["in/fast"].shape[1], keywords["num_classes"],
        reduce=keywords["reduce_dim"], hidden=keywords["hidden_dim"], roi_size=keywords["roi_spatial"],
        downsample=keywords["downsample"] == "max2x2", depth=keywords["depth"],
        mlp_kernel=1 if keywords.get("mlp_1x1") else 3,
    ).eval()  # fmt: skip
    head.load_state_dict({k[2:]: torch.from_numpy(golden[k]) for k in golden.files if k.startswith("w/")})
    slow = torch.from_numpy(golden["in/slow"]).requires_grad_()
    fast = torch.from_numpy(golden["in/fast"]).requires_grad_()
    rois = torch.from_numpy(golden["in/rois"])
    sizes = [(float(w), float(h)) for w, h in golden["in/sizes_before_padding"]]
    logits = head(slow, fast, rois[:, 1:], rois[:, 0].long(), sizes)
    logits.square().sum().backward()
    assert error(logits, torch.from_numpy(golden["out"])) <= 1e-4
    values = {"slow": slow, "fast": fast, **dict(head.named_parameters())}
    gradients = [key for key in golden.files if key.startswith("grad/")]
    assert gradients
    for key in gradients:
        assert error(values[key.removeprefix("grad/")].grad, torch.from_numpy(golden[key])) <= 1e-3, key


@pytest.mark.parametrize("downsample", [True, False])
def test_plain_head_equals_ours(downsample: bool) -> None:
    torch.manual_seed(0)
    plain = PlainHead(24, 8, 7, reduce=16, hidden=12, downsample=downsample).eval()
    config = HeadConfig(reduce_channels=16, hidden_channels=12, downsample="max2x2" if downsample else "none")
    ours = ActorContextHead(config, (24, 8), 7).eval()
    ours.load_state_dict(plain.state_dict())
    slow, fast = torch.randn(3, 24, 2, 8, 9), torch.randn(3, 8, 4, 8, 9)
    corners = torch.rand(6, 2) * 0.5
    boxes = torch.cat([corners, corners + 0.1 + torch.rand(6, 2) * 0.4], dim=1)
    clip_index = torch.tensor([0, 0, 0, 0, 2, 2])
    with torch.no_grad():
        assert error(plain(slow, fast, boxes, clip_index), ours((slow, fast), boxes, clip_index)) <= 1e-5


def test_plain_code_shares_nothing_with_the_models() -> None:
    folder = Path(__file__).parents[3] / "benchmarks" / "plain"
    files = sorted(folder.glob("*.py"))
    assert files
    assert not [
        file.name for file in files if "import acar" in file.read_text() or "from acar" in file.read_text()
    ]


def test_no_actors_give_no_logits() -> None:
    head = PlainHead(24, 8, 7, reduce=16, hidden=12).eval()
    none = torch.zeros(0, dtype=torch.int64)
    assert head(torch.randn(1, 24, 2, 8, 9), torch.randn(1, 8, 4, 8, 9), torch.zeros(0, 4), none).shape == (
        0,
        7,
    )
