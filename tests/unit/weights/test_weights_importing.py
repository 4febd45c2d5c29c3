"""Checkpoints of every layout become the same weights, and what does not fit is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from weights_layouts import (
    THIN,
    THIN_I3D,
    caffe2_name,
    pyslowfast_name,
    thin_net,
    write_acar_net,
    write_caffe2,
    write_flax_i3d,
    write_pyslowfast,
)

from acar import cli
from acar.config import Config
from acar.errors import UserError
from acar.models.net import ActionNet, build_network, load_backbone_weights, load_weights
from acar.weights.export import export_weights
from acar.weights.importing import import_weights
from acar.weights.names import from_caffe2, from_flax_i3d, from_pyslowfast, from_pytorchvideo, to_acar_net

# No label map lies there, whatever the working folder holds: the number of classes is the file's own.
CONFIG = Config.model_validate({"run": {"results": "absent"}, "model": THIN.model_dump()})


@pytest.fixture(scope="module")
def net() -> ActionNet:
    return thin_net()


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(v, expected[k]) for k, v in found.items())


BACKBONES: dict[str, Any] = {
    "caffe2": write_caffe2,
    "caffe2 of protocol 4": lambda path, state: write_caffe2(path, state, protocol=4),
    "pyth": lambda path, state: write_pyslowfast(path, state, zipped=True),
    "old pyth": lambda path, state: write_pyslowfast(path, state, zipped=False),
    "video": lambda path, state: write_pyslowfast(path, state, zipped=True, video=True),
    "pretrained": lambda path, state: torch.save(state, path),
    "ours": lambda path, state: save_file(state, path),
}


@pytest.mark.parametrize("layout", BACKBONES)
@pytest.mark.parametrize("config", [None, CONFIG])
def test_backbones_of_every_layout(
    tmp_path: Path, net: ActionNet, layout: str, config: Config | None
) -> None:
    state = net.backbone.state_dict()
    # Named alike whatever they are: the content tells.
    BACKBONES[layout](tmp_path / "x.pth", state)
    done = import_weights(tmp_path / "x.pth", tmp_path / "x.safetensors", config)
    assert not done.fit.missing and not done.fit.left
    assert same(load_file(tmp_path / "x.safetensors"), state)
    other = thin_net(seed=1)
    load_backbone_weights(other, tmp_path / "x.safetensors")
    frames = torch.randn(1, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for mine, theirs in zip(other.features(frames), net.features(frames), strict=True):
            assert torch.equal(mine, theirs)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_whole_networks_of_acar_net(tmp_path: Path, net: ActionNet, checkpoint: bool, zipped: bool) -> None:
    write_acar_net(tmp_path / "x.pth.tar", net.state_dict(), checkpoint=checkpoint, zipped=zipped)
    for config in (None, CONFIG):
        done = import_weights(tmp_path / "x.pth.tar", tmp_path / "x.safetensors", config)
        assert done.layout == "ACAR-Net" and not done.fit.missing and not done.fit.left
        assert done.beside == (["epoch", "optimizer", "scheduler"] if checkpoint else [])
        other = thin_net(seed=1)
        load_weights(other, tmp_path / "x.safetensors")
        assert same(other.state_dict(), net.state_dict())


@pytest.mark.parametrize("partial", [False, True])
def test_the_same_import_gives_the_same_bytes(tmp_path: Path, net: ActionNet, partial: bool) -> None:
    state = dict(net.state_dict())
    if partial:
        del state["head.fc1.weight"]
    write_acar_net(tmp_path / "x.pth.tar", state, checkpoint=False, zipped=True)
    found = set()
    for _ in range(6):  # a random order of two entries would be told with 97 %
        import_weights(tmp_path / "x.pth.tar", tmp_path / "x.safetensors", CONFIG, partial=partial)
        found.add((tmp_path / "x.safetensors").read_bytes())
    assert len(found) == 1


@pytest.mark.parametrize("layout", ["released", "checkpoint"])
@pytest.mark.parametrize("part", ["all", "backbone"])
def test_out_and_in_again(tmp_path: Path, net: ActionNet, layout: str, part: str) -> None:
    save_file(net.state_dict(), tmp_path / "ours.safetensors")
    arguments = [str(tmp_path / "ours.safetensors"), str(tmp_path / "out.pth.tar"), "--part", part]
    assert cli.main(["export-weights", *arguments, "--layout", layout]) == 0
    saved = torch.load(tmp_path / "out.pth.tar", weights_only=True)
    saved = saved["state_dict"] if layout == "checkpoint" else saved
    assert {
        "module.backbone.module.slow_conv1.weight",
        "slow_conv1.weight",
        "module.slow_conv1.weight",
    } & set(saved)
    import_weights(tmp_path / "out.pth.tar", tmp_path / "back.safetensors")
    expected = net.state_dict() if part == "all" else net.backbone.state_dict()
    assert same(load_file(tmp_path / "back.safetensors"), expected)


def test_exported_names_are_the_released_ones(shared: Path) -> None:
    for name, whole in (("full_r50", True), ("full_r101", True), ("slowfast101", False)):
        released = json.loads((shared / "golden" / f"keys_acar_{name}.json").read_text())["keys"]
        wrapped = {f"module.{key}" for key in released} if whole else set(released)
        own = [key.replace(".module.", ".") for key in released]
        assert {to_acar_net(key, whole=whole) for key in own} == wrapped


def test_only_networks_as_released_go_out(tmp_path: Path) -> None:
    model = THIN.model_copy(update={"head": THIN.head.model_copy(update={"encoder_norm": "group"})})
    save_file(build_network(model, 3).state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"no place for 4 of its weights \(head.norm1.bias"):
        export_weights(tmp_path / "x.safetensors", tmp_path / "out.pth.tar")
    assert not (tmp_path / "out.pth.tar").exists()
    export_weights(tmp_path / "x.safetensors", tmp_path / "out.pth.tar", part="backbone")
    write_caffe2(tmp_path / "x.pkl", thin_net().backbone.state_dict())
    with pytest.raises(UserError, match="run `acar import-weights` on it first"):
        export_weights(tmp_path / "x.pkl", tmp_path / "out2.pth.tar")


def test_the_report_says_what_matched_and_what_not(
    tmp_path: Path, net: ActionNet, capsys: pytest.CaptureFixture[str]
) -> None:
    write_caffe2(tmp_path / "x.pkl", net.backbone.state_dict())
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"model": THIN.model_dump(mode="json")}))
    config = ["--config", str(tmp_path / "c.yaml")]
    assert cli.main(["import-weights", str(tmp_path / "x.pkl"), str(tmp_path / "x.st"), *config]) == 0
    told = capsys.readouterr().out
    n = len(net.backbone.state_dict())
    counters = sum(name.endswith("tracked") for name in net.backbone.state_dict())
    assert "x.pkl: SlowFast (Caffe2), plain pickle" in told
    assert f"matched  {n - counters} of {n}, and {counters} counters of batch norm set to 0" in told
    assert "left     2: pred_w [400, 36], pred_b [400]" in told and "missing  0" in told
    assert f"beside   {n - counters + 2}: lr, model_iter and {n - counters} momenta" in told
    assert "depths: [1, 2, 1, 1], width: 16, fast_ratio: 8, lateral_kernel: 7, lateral_norm: true" in told


def test_another_shape_is_refused_unless_it_is_the_classifier(
    tmp_path: Path, net: ActionNet, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = "".join(f'item {{ name: "c{i}" id: {i} }}\n' for i in range(1, 4))
    (tmp_path / "labels.pbtxt").write_text(labels)
    files = {
        "source": "files", "videos": "v", "label_map": str(tmp_path / "labels.pbtxt"),
        "train": {"labels": "t"}, "val": {"labels": "v"},
    }  # fmt: skip
    config = Config.model_validate({"model": THIN.model_dump(), "data": files})
    source, target = tmp_path / "x.pth.tar", tmp_path / "x.st"
    write_acar_net(source, net.state_dict(), checkpoint=False, zipped=True)
    name = r"module.head.module.fc2.weight \[5, 16\], expected \[3, 16\]"
    with pytest.raises(UserError, match=name) as error:
        import_weights(source, target, config)
    assert "--drop-classifier" in str(error.value) and not target.exists()
    done = import_weights(source, target, config, drop_classifier=True)
    assert done.fit.dropped == ["head.fc2.weight"] and "head.fc2.weight" not in load_file(target)
    load_backbone_weights(thin_net(seed=1), target)
    wide = THIN.model_copy(update={"backbone": THIN.backbone.model_copy(update={"width": 24})})
    for drop in (False, True):
        with pytest.raises(
            UserError, match=r"\d+ of another shape: module.backbone.module.fast_conv1"
        ) as error:
            import_weights(source, target, CONFIG.model_copy(update={"model": wide}), drop_classifier=drop)
        assert "--drop-classifier" not in str(error.value)
        assert "width: 16" in str(error.value)


def test_missing_weights_are_refused_unless_allowed(
    tmp_path: Path, net: ActionNet, capsys: pytest.CaptureFixture[str]
) -> None:
    state = net.backbone.state_dict()
    for tail in ("weight", "running_mean", "num_batches_tracked"):
        del state[f"fast_res2.1.bn2.{tail}"]
    write_pyslowfast(tmp_path / "x.pyth", state, zipped=True)
    with pytest.raises(UserError, match=r"2 missing: fast_res2\.1\.bn2\.weight.*\n.*--partial"):
        import_weights(tmp_path / "x.pyth", tmp_path / "x.st")
    done = import_weights(tmp_path / "x.pyth", tmp_path / "x.st", partial=True)
    assert len(done.fit.missing) == 2 and "missing  2: fast_res2.1.bn2.weight" in str(done)
    other = thin_net(seed=1)
    fresh = other.backbone.get_parameter("fast_res2.1.bn2.weight").clone()
    load_backbone_weights(other, tmp_path / "x.st")
    assert "2 weights of the backbone start fresh" in capsys.readouterr().err
    assert torch.equal(other.backbone.get_parameter("fast_res2.1.bn2.weight"), fresh)
    assert torch.equal(other.backbone.slow_conv1.weight, net.backbone.slow_conv1.weight)


def test_trailing_sizes_of_one_may_be_absent(tmp_path: Path, net: ActionNet) -> None:
    state = net.backbone.state_dict()
    write_caffe2(tmp_path / "x.pkl", state)
    content = pickle.loads((tmp_path / "x.pkl").read_bytes())
    content["blobs"]["t_pool1_subsample_w"] = content["blobs"]["t_pool1_subsample_w"][..., 0, 0]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, 2))
    import_weights(tmp_path / "x.pkl", tmp_path / "x.st", CONFIG)
    assert same(load_file(tmp_path / "x.st"), state)


def test_what_is_nobodys_is_refused(tmp_path: Path, net: ActionNet) -> None:
    tiny = {f"slow_res{i}.0.conv1.weight": torch.zeros(1) for i in range(1, 5)}
    tiny |= {f"{n}.weight": torch.zeros(2, 1, 1, 1, 1) for n in ("slow_conv1", "fast_conv1", "Tconv1")}
    for value, message in (
        ({"layer1.0.conv1.weight": torch.zeros(2)}, "of no layout known here.*layer1.0.conv1.weight"),
        ({}, "no weights in it: an empty dictionary"),
        ({"epoch": 3}, "no weights in it; its keys are epoch"),
        ([torch.zeros(3)], "holds a list"),
        (
            {"slow_conv1.weight": torch.zeros(2), "module.slow_conv1.weight": torch.zeros(2)},
            "both mean slow_conv1",
        ),
        ({"slow_conv1.weight": torch.zeros(16, 3, 1, 7, 7)}, "no weights of slow_res1"),
        (tiny | {"slow_res1.999999999.conv1.weight": torch.zeros(1)}, "names block 999999999"),
        (tiny, "not a network that this program builds"),
    ):
        torch.save(value, tmp_path / "x.pth")
        with pytest.raises(UserError, match=message):
            import_weights(tmp_path / "x.pth", tmp_path / "x.st")
    one = np.zeros(1 << 20, np.float32)
    state = {pyslowfast_name(k): v.numpy() for k, v in net.backbone.state_dict().items()}
    named = {caffe2_name(k): v for k, v in state.items() if caffe2_name(k)}
    named |= {f"res5_{i}_branch2c_w": one for i in range(50)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"blobs": named}, 2))
    with pytest.raises(UserError, match=r"would unfold to 20\d MiB"):
        import_weights(tmp_path / "x.pkl", tmp_path / "x.st")
    save_file(net.backbone.state_dict(), tmp_path / "y.st")
    with pytest.raises(UserError, match="would overwrite"):
        import_weights(tmp_path / "y.st", tmp_path / "y.st")
    with pytest.raises(UserError, match="a folder"):
        import_weights(tmp_path / "y.st", tmp_path)
    with pytest.raises(UserError, match="a folder"):
        export_weights(tmp_path / "y.st", tmp_path)
    assert not (tmp_path / "x.st").exists()


MAPS = (
    "r50_kinetics_8x8_c2", "r50_ava_32x2_c2", "r101_kinetics_8x8_101_101_c2", "r101_ava_32x2_50_50_c2",
)  # fmt: skip


@pytest.mark.parametrize("model", MAPS)
def test_names_are_those_of_the_converters(shared: Path, model: str) -> None:
    rows = json.loads((shared / "golden" / f"map_caffe2_pyslowfast_acar_{model}.json").read_text())["rows"]
    for row in rows:
        caffe2, theirs, acar = row["caffe2"], row["pyslowfast"], row["acar"]
        if caffe2 is not None:
            assert from_caffe2(caffe2) == theirs
        if acar is not None:
            assert from_pyslowfast(theirs) == acar
        elif "head" not in theirs:  # normed laterals and non-local blocks of R101
            assert from_pyslowfast(theirs) is not None
    ours = [from_pyslowfast(row["pyslowfast"]) for row in rows if "head" not in row["pyslowfast"]]
    assert len(set(ours)) == len(ours) and None not in ours
    assert (
        from_pyslowfast("s4.pathway0_nonlocal6.conv_theta.weight") == "slow_res3_nonlocal.6.conv_theta.weight"
    )


@pytest.mark.parametrize(
    "name", ["res6_0_branch1_w", "pool1_subsample_w", "t_pred_w", "conv1_b", "res2_0_branch2d_w", "fc1000_w"]
)
def test_unknown_blobs_have_no_name(name: str) -> None:
    assert from_caffe2(name) is None
    assert from_pyslowfast(name) is None and from_pytorchvideo(name) is None


@pytest.mark.parametrize("classifier", ["left", "dropped"])
def test_i3d_comes_in(tmp_path: Path, classifier: str, capsys: pytest.CaptureFixture[str]) -> None:
    net = thin_net(model=THIN_I3D)
    write_flax_i3d(tmp_path / "i3d.ckpt", net.backbone.state_dict())
    config = Config.model_validate({"run": {"results": "absent"}, "model": THIN_I3D.model_dump()})
    for own in (None, config):
        done = import_weights(
            tmp_path / "i3d.ckpt", tmp_path / "i3d.st", own, drop_classifier=classifier == "dropped"
        )
        names = done.fit.left if classifier == "left" else done.fit.dropped
        assert sorted(names) == ["logits.conv3d.bias", "logits.conv3d.weight"]
        assert done.layout == "I3D (flax)" and not done.fit.missing and len(done.fit.counters) == 57
        assert done.network == "model.backbone: kind: i3d, width: 8"
        assert same(load_file(tmp_path / "i3d.st"), net.backbone.state_dict())
    other = thin_net(seed=1, model=THIN_I3D)
    load_backbone_weights(other, tmp_path / "i3d.st")
    assert same(other.backbone.state_dict(), net.backbone.state_dict())
    assert from_flax_i3d("params/Mixed_3b/Branch_9/Conv3d_0a_1x1/Conv_0/kernel") is None
    with pytest.raises(UserError, match=r"weights of i3d, the config's model.backbone.kind is slowfast"):
        import_weights(tmp_path / "i3d.ckpt", tmp_path / "x.st", CONFIG)
    save_file(thin_net().backbone.state_dict(), tmp_path / "slowfast.st")
    with pytest.raises(UserError, match=r"weights of slowfast, the config's model.backbone.kind is i3d"):
        import_weights(tmp_path / "slowfast.st", tmp_path / "x.st", config)


@pytest.mark.parametrize("whole", [False, True])
def test_our_own_i3d_comes_in_again(tmp_path: Path, whole: bool) -> None:
    net = thin_net(model=THIN_I3D)
    state = net.state_dict() if whole else net.backbone.state_dict()
    save_file(state, tmp_path / "ours.st")
    done = import_weights(tmp_path / "ours.st", tmp_path / "again.st")
    assert done.layout == "acar" and not done.fit.missing and not done.fit.left
    assert same(load_file(tmp_path / "again.st"), state)
    with pytest.raises(UserError, match="no place for"):
        export_weights(tmp_path / "ours.st", tmp_path / "out.pth.tar")


def test_scales_of_other_i3d_ports_must_be_one(tmp_path: Path) -> None:
    state = thin_net(model=THIN_I3D).backbone.state_dict()
    units = [name.removesuffix("running_var") for name in state if name.endswith("running_var")]
    scales = {f"{unit}weight": torch.ones_like(state[f"{unit}running_var"]) for unit in units}
    torch.save(state | scales, tmp_path / "rgb.pt")
    done = import_weights(tmp_path / "rgb.pt", tmp_path / "x.st")
    assert done.layout == "I3D (PyTorch)" and len(done.beside) == 57
    assert same(load_file(tmp_path / "x.st"), state)
    scales["Mixed_4b.b0.bn.weight"][3] = 0.9
    torch.save(state | scales, tmp_path / "rgb.pt")
    with pytest.raises(UserError, match=r"Mixed_4b\.b0\.bn\.weight: a scale of batch norm that is not 1"):
        import_weights(tmp_path / "rgb.pt", tmp_path / "y.st")


def test_i3d_of_another_shape_is_refused(tmp_path: Path) -> None:
    state = thin_net(model=THIN_I3D).backbone.state_dict()
    for name, value, message in (
        ("Mixed_3b.b1b.conv3d.weight", torch.zeros(16, 12, 1, 3, 3), "of another shape: Mixed_3b.b1b.conv3d"),
        ("Mixed_3b.b1b.conv3d.weight", None, "1 missing: Mixed_3b.b1b.conv3d.weight"),
        (
            "Conv3d_1a_7x7.conv3d.weight",
            torch.zeros(12, 3, 7, 7, 7),
            "not a network that this program builds",
        ),
        ("Conv3d_1a_7x7.conv3d.weight", torch.zeros(8), "no 3-D convolution"),
    ):
        changed = {n: v for n, v in state.items() if n != name} | ({} if value is None else {name: value})
        torch.save(changed, tmp_path / "x.pt")
        with pytest.raises(UserError, match=message):
            import_weights(tmp_path / "x.pt", tmp_path / "x.st")
        assert not (tmp_path / "x.st").exists()
