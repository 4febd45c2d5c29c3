"""The plain whole network and the plain relation network take our weights and give our values."""

from __future__ import annotations

import copy

import pytest
import torch
from plain.head import PlainHead
from plain.network import PlainNet, PlainSlowFast, plain_r50
from plain.relation_network import PlainRelationNetwork

from acar.config import BackboneConfig, HeadConfig, ModelConfig
from acar.models.net import build_network
from acar.models.relations.relation_network import RelationNetwork

BOXES = torch.tensor([[0.1, 0.1, 0.5, 0.9], [0.4, 0.2, 0.9, 0.8], [0.0, 0.0, 1.0, 1.0]])


def error(value: torch.Tensor, reference: torch.Tensor) -> float:
    return ((value - reference).abs().max() / reference.abs().max()).item()


def thin() -> tuple[PlainNet, torch.nn.Module]:
    backbone = PlainSlowFast(depths=(1, 2, 1, 2), width=8, fast_ratio=2)
    head = PlainHead(backbone.slow_channels, backbone.fast_channels, 5, reduce=16, hidden=8, dropout=0.0)
    plain = PlainNet(backbone, head)
    for module in plain.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.5)
    config = ModelConfig(
        backbone=BackboneConfig(depths=(1, 2, 1, 2), width=8, fast_ratio=2),
        head=HeadConfig(reduce_channels=16, hidden_channels=8, dropout=0.0),
    )
    ours = build_network(config, 5)
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def test_thin_networks_agree_in_values_and_gradients() -> None:
    torch.manual_seed(0)
    plain, ours = thin()
    frames = torch.randn(2, 3, 8, 64, 80)
    before = copy.deepcopy(dict(plain.named_buffers()))
    clip_index = torch.tensor([0, 0, 1])
    logits = {net: net.train()(frames, BOXES, clip_index) for net in (plain, ours)}
    for value in logits.values():
        value.square().sum().backward()
    assert error(logits[plain], logits[ours]) <= 1e-5
    gradients = dict(ours.named_parameters())
    for name, parameter in plain.named_parameters():
        assert error(parameter.grad, gradients[name].grad) <= 1e-3, name
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_whole_model_has_the_released_entries() -> None:
    with torch.device("meta"):
        plain, ours = plain_r50(60), build_network(ModelConfig(), 60)
    assert {k: v.shape for k, v in plain.state_dict().items()} == {
        k: v.shape for k, v in ours.state_dict().items()
    }


@pytest.mark.parametrize("downsample", [True, False])
def test_relation_networks_agree(downsample: bool) -> None:
    torch.manual_seed(0)
    plain = PlainRelationNetwork(12, 8, downsample)
    ours = RelationNetwork(12, 8, downsample)
    ours.load_state_dict(plain.state_dict())
    actors, context = torch.randn(5, 12), torch.randn(2, 12, 7, 9)
    clip_index = torch.tensor([0, 0, 0, 1, 1])
    values = {net: net(actors, context, clip_index) for net in (plain, ours)}
    for value in values.values():
        value.square().sum().backward()
    assert error(values[plain], values[ours]) <= 1e-5
    for name in ("conv1", "conv2"):
        assert error(getattr(plain, name).weight.grad, getattr(ours, name).weight.grad) <= 1e-4
