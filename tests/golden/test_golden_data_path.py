"""From frames to the network's input as the authors' data path has it: times, boxes, padding, normalisation.

No `batch_padding` mode but where it is named: all but one case are of single clips.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from recipe import relative_error

from acar.config import BackboneConfig
from acar.data.clip_dataset import collate, flip_boxes, jitter_boxes, network_input
from acar.data.clips import clip_indices
from acar.data.decode import fitted_size

PRESETS = Path(__file__).resolve().parents[2] / "workflow" / "presets"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Any]:
    return json.loads((shared / "golden" / "data_path.json").read_text())


def test_frames_of_a_clip(golden: dict[str, Any]) -> None:
    """The key frame is the middle one of the record's frames. Short of frames, the authors start over at the
    first; ours repeat the border's frame, which is no cut in time. AVA's clips lie inside of their films."""
    whole = short = 0
    for case in golden["temporal_center_crop"]:
        start, n, step = case["start"], case["n_frames"], case["step"]
        ours = clip_indices(n // 2, n, -(-case["size"] // step), step) + start
        if n >= case["size"]:
            assert ours.tolist() == case["indices"]
            whole += 1
        else:
            assert len(ours) == len(case["indices"]) and start <= ours.min() and ours.max() < start + n
            short += 1
    assert whole >= 10 and short >= 5


def test_boxes_after_flip_and_padding(golden: dict[str, Any]) -> None:
    """The cases without a crop, as all released configs are; padding divides by its ratio."""
    checked = 0
    for case in golden["get_bbox_after_aug"]:
        info = case["aug_info"]
        if info["crop_box"] != [0.0, 0.0, 1.0, 1.0]:
            continue
        box = np.array([case["bbox"]])
        ours = flip_boxes(box) if info["flip"] else box
        np.testing.assert_allclose(ours[0] / np.tile(info["pad_ratio"], 2), case["out"], rtol=1e-12)
        checked += 1
    assert checked >= 10


def test_box_jitter(golden: dict[str, Any]) -> None:
    """The same draws move the same edges. The authors clip at each edge's own border and at the other one later."""
    for case in golden["bbox_jitter"]:
        draw: Any = np.random.RandomState(case["np_random_seed"])
        ours = jitter_boxes(np.array([case["bbox"]]), case["delta"], draw)
        np.testing.assert_allclose(ours, np.clip(case["out"], 0, 1), atol=1e-6)
    assert len(golden["bbox_jitter"]) >= 10


def test_sizes(golden: dict[str, Any]) -> None:
    """As the authors', rounded to even numbers, which H.264 needs: at most one pixel off."""
    off = []
    for case in golden["scale_256"]:
        ours = fitted_size(*case["in_wh"], case["resize"])
        off.append(max(abs(a - b) for a, b in zip(ours, case["out_wh"], strict=True)))
        assert min(ours) == min(case["out_wh"]) == 256
    assert max(off) <= 1 and off.count(0) >= 5


def test_padding_of_a_batch(golden: dict[str, Any]) -> None:
    """What mode `released` computes on: frames padded at the right and the bottom to the largest sides."""
    case = golden["batch_pad"]
    items = [
        {"frames": np.full((2, h, w, 3), 9, np.uint8), "boxes": np.zeros((1, 4), np.float32),
         "targets": np.zeros((1, 1), np.float32), "name": "", "maps": None, "actors": None}
        for h, w in case["in_hw"]
    ]  # fmt: skip
    clips = collate(items)
    frames = network_input(clips.frames, BackboneConfig(), CPU, clips.sizes_px)
    assert list(frames.transpose(0, 1).shape[1:]) == [3, 2, *case["out_shape"][3:]]
    assert clips.sizes_px is not None
    ratios = torch.tensor(case["out_shape"][3:]) / clips.sizes_px
    torch.testing.assert_close(ratios.flip(1), torch.tensor(case["pad_ratio_wh"]))
    for frame, (h, w) in zip(frames, case["in_hw"], strict=True):
        assert frame[..., :h, :w].all() and not frame[..., h:, :].any() and not frame[..., w:].any()


@pytest.mark.parametrize("net", ["r50", "r101"])
@pytest.mark.parametrize("flip", [0, 1])
def test_normalisation_of_an_image(shared: Path, net: str, flip: int) -> None:
    """The presets' mean and std on the authors' own scaled image."""
    stored = np.load(shared / "golden" / "preprocess.npz")
    section = yaml.safe_load((PRESETS / f"ava_{net}.yaml").read_text())["model"]["backbone"]
    backbone = BackboneConfig(**{k: section[k] for k in ("mean", "std") if k in section})
    pixels = stored["resized_341x256_uint8"]
    pixels = np.ascontiguousarray(pixels[:, ::-1] if flip else pixels)
    values = network_input(torch.from_numpy(pixels)[None, None], backbone, CPU)[0, :, 0]
    name = f"{net}_flip{flip}"
    assert list(values.shape) == stored[f"{name}_shape"].tolist()
    error = relative_error(values.flatten()[torch.from_numpy(stored[f"{name}_idx"])], stored[f"{name}_val"])
    print(f"{name}: {error:.1e}")
    assert error <= 1e-6
    assert values.double().mean().item() == pytest.approx(float(stored[f"{name}_mean"]), abs=1e-6)
    assert values.double().std(correction=0).item() == pytest.approx(float(stored[f"{name}_std"]), rel=1e-5)
