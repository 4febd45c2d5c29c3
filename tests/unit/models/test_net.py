from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from acar.config import ModelConfig
from acar.errors import UserError
from acar.models.hr2o import BankBatch
from acar.models.net import ActionNet, build_network, load_backbone_weights, load_weights

CONFIG = ModelConfig.model_validate(
    {
        "backbone": {
            "depths": (1, 1, 1, 1), "width": 8, "spatial_strides": (1, 2, 1, 1), "norm": "group",
        },
        "head": {"reduce_channels": 16, "hidden_channels": 8, "hr2o_depth": 2, "encoder_norm": "group"},
    }
)  # fmt: skip
FRAMES = torch.randn(3, 3, 4, 48, 56, generator=torch.Generator().manual_seed(1))
BOXES = torch.tensor([[0.1, 0.1, 0.5, 0.9], [0.4, 0.2, 0.8, 1.0], [0.0, 0.0, 1.0, 1.0], [0.2, 0.1, 0.3, 0.4]])
CLIP = torch.tensor([0, 0, 0, 2])
NONE = torch.zeros(0, dtype=torch.int64)


@pytest.fixture(scope="module")
def net() -> ActionNet:
    torch.manual_seed(0)
    return build_network(CONFIG, n_classes=5).eval()


@torch.no_grad()
def test_a_clip_gives_the_same_alone_and_in_a_batch(net: ActionNet) -> None:
    rows = torch.tensor([0, 0, 1, 2])
    bank = BankBatch(net.first_order(FRAMES, BOXES, CLIP), rows)
    for memory in (None, bank):
        together = net(FRAMES, BOXES, CLIP, memory)
        assert together.shape == (4, 5)
        for clip in (0, 2):
            own = memory and BankBatch(
                memory.maps[rows == clip], torch.zeros(int((rows == clip).sum()), dtype=torch.int64)
            )
            mine = CLIP.eq(clip)
            alone = net(
                FRAMES[clip : clip + 1], BOXES[mine], torch.zeros(int(mine.sum()), dtype=torch.int64), own
            )
            torch.testing.assert_close(together[mine], alone, rtol=1e-4, atol=1e-5)


def test_no_actors_give_no_rows_but_gradients_for_every_weight() -> None:
    net = build_network(CONFIG, n_classes=5)
    logits = net(FRAMES[:1], torch.zeros(0, 4), NONE)
    assert logits.shape == (0, 5)
    logits.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.head.parameters())
    assert net.first_order(FRAMES[:1], torch.zeros(0, 4), NONE).shape == (0, 8, 2, 3)
    bank = BankBatch(torch.randn(2, 8, 2, 3), torch.zeros(2, dtype=torch.int64))
    assert net(FRAMES[:1], torch.zeros(0, 4), NONE, bank).shape == (0, 5)


@torch.no_grad()
def test_an_empty_bank_differs_from_no_bank(net: ActionNet) -> None:
    empty = BankBatch(torch.zeros(0, 8, 2, 3), NONE)
    maps = net.first_order(FRAMES, BOXES, CLIP)
    context = net.head.context(net.features(FRAMES))
    expected = net.head.classify(net.head.actors(context, BOXES, CLIP), maps)
    torch.testing.assert_close(net(FRAMES, BOXES, CLIP, empty), expected)
    assert not torch.allclose(net(FRAMES, BOXES, CLIP), expected)


@torch.no_grad()
def test_half_precision_rows_are_read(net: ActionNet) -> None:
    maps = net.first_order(FRAMES, BOXES, CLIP)
    full, half = (net(FRAMES, BOXES, CLIP, BankBatch(m, CLIP)) for m in (maps, maps.half()))
    torch.testing.assert_close(full, half, rtol=1e-2, atol=1e-2)


def test_attention_of_every_block_sums_to_one(net: ActionNet) -> None:
    bank = BankBatch(torch.randn(5, 8, 2, 3), torch.tensor([0, 0, 0, 0, 1]))
    for memory, width in ((None, 3), (bank, 4)):
        blocks = net.attention(FRAMES, BOXES, CLIP, memory)
        assert len(blocks) == 2
        for weights, valid in blocks:
            assert weights.shape == (4, width, 2, 3) and valid.shape == (4, width)
            assert valid.sum(1).tolist() == ([3, 3, 3, 1] if memory is None else [4, 4, 4, 0])
            torch.testing.assert_close(weights.sum(1), valid.any(1).float()[:, None, None].expand(4, 2, 3))


def test_weights_come_back(tmp_path: Path, net: ActionNet) -> None:
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    other = build_network(CONFIG, n_classes=5).eval()
    load_weights(other, tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(other(FRAMES, BOXES, CLIP), net(FRAMES, BOXES, CLIP))


@pytest.mark.parametrize("whole", [True, False])
def test_backbone_weights_from_either_file(tmp_path: Path, net: ActionNet, whole: bool) -> None:
    save_file((net if whole else net.backbone).state_dict(), tmp_path / "w.safetensors")
    other = build_network(CONFIG, n_classes=7)
    load_backbone_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.backbone.slow_conv1.weight, net.backbone.slow_conv1.weight)


def test_wrong_weights_are_named(tmp_path: Path, net: ActionNet) -> None:
    state = dict(net.state_dict())
    for i in range(7):
        state[f"extra{i}"] = torch.zeros(1)
    del state["head.fc1.weight"]
    state["head.fc2.weight"] = torch.zeros(3, 16)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError) as error:
        load_weights(net, tmp_path / "w.safetensors")
    message = str(error.value)
    assert "1 missing: head.fc1.weight" in message
    assert "7 unexpected: extra0, extra1, extra2, extra3, extra4, ..." in message
    assert "head.fc2.weight (3, 16), expected (5, 16)" in message


def test_unreadable_weights_are_refused(tmp_path: Path, net: ActionNet) -> None:
    with pytest.raises(UserError, match="no such weights file"):
        load_weights(net, tmp_path / "absent.safetensors")
    (tmp_path / "w.pth").write_bytes(b"not this format at all")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_weights(net, tmp_path / "w.pth")
