"""Which network some weights are of, read off their names and shapes, and which names and shapes it has."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from pydantic import ValidationError

from acar.config import BackboneConfig, HeadConfig, ModelConfig
from acar.errors import UserError
from acar.models.backbones import build_backbone
from acar.models.net import BACKBONE_PREFIX, build_network
from acar.weights.names import I3D_STEM, NON_LOCAL, is_i3d, is_whole

Shape = tuple[int, ...]
HEAD_PREFIX = "head."
MOST_BLOCKS = 200  # of a stage or a head; numbers in names are no reason to build more


def shapes_of(model: ModelConfig, n_classes: int, *, whole: bool) -> dict[str, Shape]:
    """Names and shapes of the config's network, or of its backbone under bare names."""
    with torch.device("meta"):
        net = build_network(model, n_classes)
    module = net if whole else net.backbone
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def backbone_config(shapes: Mapping[str, Shape]) -> BackboneConfig:
    """What of a backbone's config its weights tell (bare names).

    They do not tell alpha, strides, dilation, and which frames the slow pathway sees.

    Raises:
        UserError: stems or a stage are absent.
    """
    return _i3d_config(shapes) if is_i3d(shapes) else _slowfast_config(shapes)


def _i3d_config(shapes: Mapping[str, Shape]) -> BackboneConfig:
    if len(shapes[I3D_STEM]) != 5:
        raise UserError(f"no 3-D convolution {I3D_STEM}: not a whole I3D")
    norm = f"{I3D_STEM.removesuffix('conv3d.weight')}bn.running_mean"
    return BackboneConfig(
        kind="i3d", width=shapes[I3D_STEM][0], norm="frozen_batch" if norm in shapes else "group"
    )


def _slowfast_config(shapes: Mapping[str, Shape]) -> BackboneConfig:
    depths = []
    for stage in range(1, 5):
        blocks = [int(m[1]) for name in shapes if (m := re.match(rf"slow_res{stage}\.(\d+)\.conv1\.", name))]
        if not blocks:
            raise UserError(f"no weights of slow_res{stage}: not a whole SlowFast")
        if max(blocks) >= MOST_BLOCKS:
            raise UserError(f"names block {max(blocks)} of slow_res{stage}: not a SlowFast")
        depths.append(max(blocks) + 1)
    lateral = "Tconv1.0.weight" if "Tconv1.0.weight" in shapes else "Tconv1.weight"
    absent = [
        name for name in ("slow_conv1.weight", "fast_conv1.weight", lateral) if len(shapes.get(name, ())) != 5
    ]
    if absent:
        raise UserError(f"no 3-D convolution {absent[0]}: not a whole SlowFast")
    width, fast = shapes["slow_conv1.weight"][0], shapes["fast_conv1.weight"][0]
    if not fast or width % fast:
        raise UserError(f"stems of {width} and {fast} channels: not a SlowFast that this program builds")
    return BackboneConfig(
        depths=(depths[0], depths[1], depths[2], depths[3]),
        width=width,
        fast_ratio=width // fast,
        lateral_kernel=shapes[lateral][2],
        lateral_norm=lateral == "Tconv1.0.weight",
        norm="frozen_batch" if "slow_bn1.running_mean" in shapes else "group",
    )


def backbone_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Names and shapes of the SlowFast or the I3D that a backbone's weights (bare names) are of.

    SlowFast's non-local blocks, and first convolutions of blocks with or without a temporal kernel, are taken as
    they are.
    """
    with torch.device("meta"):
        state = build_backbone(backbone_config(shapes)).state_dict()
    expected = {name: tuple(value.shape) for name, value in state.items()}
    for name, shape in shapes.items():
        temporal = name.endswith(".conv1.weight") and len(shape) == 5 and shape[2] in (1, 3)
        if temporal and name in expected:
            expected[name] = (*expected[name][:2], shape[2], *expected[name][3:])
        elif f"_{NON_LOCAL}." in name:
            expected[name] = shape
            if name.endswith(".running_var"):
                expected[name.removesuffix("running_var") + "num_batches_tracked"] = ()
    return expected


def head_shapes(shapes: Mapping[str, Shape], backbone: BackboneConfig) -> dict[str, Shape]:
    """Names and shapes of the head that weights are of (names within the head).

    The released heads are built and compared; others are taken as they are.
    """
    grammar = re.compile(r"(conv_reduce|conv1|conv2|fc1|fc2|hr2o\.\d+\.(conv(_[qkv])?|norm))\.\w+")
    needed = ("conv_reduce.weight", "conv1.weight", "fc2.weight")
    if any(len(shapes.get(name, ())) < 2 for name in needed) or not all(map(grammar.fullmatch, shapes)):
        return dict(shapes)
    depth = 1 + max([int(m[1]) for name in shapes if (m := re.match(r"hr2o\.(\d+)\.", name))], default=-1)
    if depth > MOST_BLOCKS:
        raise UserError(f"names block {depth - 1} of head.hr2o: not a head that this program builds")
    kernel = (shapes.get("hr2o.0.conv.weight") or (3,))[-1]
    head = HeadConfig(
        reduce_channels=shapes["conv_reduce.weight"][0],
        hidden_channels=shapes["conv1.weight"][0],
        hr2o_depth=depth,
        hr2o_mlp_kernel=1 if kernel == 1 else 3,
    )
    full = shapes_of(ModelConfig(backbone=backbone, head=head), shapes["fc2.weight"][0], whole=True)
    return {name.removeprefix(HEAD_PREFIX): s for name, s in full.items() if name.startswith(HEAD_PREFIX)}


def own_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Names and shapes of the network, or the backbone, that weights are of.

    Raises:
        UserError: they are neither a SlowFast nor an I3D.
    """
    try:
        return _own_shapes(shapes)
    except ValidationError as error:  # sizes that no config allows
        raise UserError(f"not a network that this program builds ({error.errors()[0]['msg']})") from None


def _own_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    if not is_whole(shapes):
        return backbone_shapes(shapes)
    parts = {
        prefix: {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
        for prefix in (BACKBONE_PREFIX, HEAD_PREFIX)
    }
    backbone = backbone_shapes(parts[BACKBONE_PREFIX])
    head = head_shapes(parts[HEAD_PREFIX], backbone_config(parts[BACKBONE_PREFIX]))
    return {BACKBONE_PREFIX + n: s for n, s in backbone.items()} | {
        HEAD_PREFIX + n: s for n, s in head.items()
    }


def in_words(shapes: Mapping[str, Shape]) -> str:
    """The keys of `model.backbone` that the weights tell, for the user's config."""
    prefix = BACKBONE_PREFIX if is_whole(shapes) else ""
    bare = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
    found = backbone_config(bare)
    if found.kind == "i3d":
        return f"kind: i3d, width: {found.width}"
    keys = ("depths", "width", "fast_ratio", "lateral_kernel", "lateral_norm")
    told = ", ".join(
        f"{k}: {str(list(v) if isinstance(v := getattr(found, k), tuple) else v).lower()}" for k in keys
    )
    temporal = [
        sum(
            len(shapes_at) == 5 and shapes_at[2] > 1
            for block in range(depth)
            if (shapes_at := bare.get(f"fast_res{stage}.{block}.conv1.weight"))
        )
        for stage, depth in enumerate(found.depths, start=1)
    ]
    if temporal != list(found.depths):
        told += f", temporal_blocks: {temporal}"
    non_local = sorted(
        {int(m[1]) for name in bare if (m := re.match(rf"slow_res3_{NON_LOCAL}\.(\d+)\.", name))}
    )
    return told + (f", nonlocal_blocks: {non_local}" if non_local else "")
