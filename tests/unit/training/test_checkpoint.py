"""A checkpoint that cannot be trusted is refused with the way out; nothing is ever resumed from it in silence."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from acar.errors import UserError
from acar.training.checkpoint import MAGIC, Checkpointer, Tally, read_checkpoint, write_checkpoint


def network(width: int = 3) -> nn.Module:
    torch.manual_seed(width)
    return nn.Linear(width, 2)


def optimizer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture
def saved(tmp_path: Path) -> Checkpointer:
    checkpoints, net = Checkpointer(tmp_path / "work", "source"), network()
    tally = Tally(1.5, 4, 2, 1, {"v@3": 1})
    checkpoints.save(7, net, optimizer(net), tally)
    return checkpoints


def test_what_was_saved_comes_back(saved):
    net = network(3)
    nn.init.zeros_(net.weight)
    assert saved.restore(net, optimizer(net)) == (7, Tally(1.5, 4, 2, 1, {"v@3": 1}))
    assert torch.equal(net.weight, network(3).weight)


def test_without_one_and_with_one_of_another_source_it_starts_anew(saved, capsys):
    net = network()
    assert Checkpointer(saved.folder / "none", "source").restore(net, optimizer(net)) == (0, Tally())
    assert Checkpointer(saved.folder, "other").restore(net, optimizer(net)) == (0, Tally())
    assert "of other inputs or settings; starting anew" in capsys.readouterr().err


def refused(checkpoints: Checkpointer, told: str, net: nn.Module | None = None) -> None:
    net = net or network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError) as error:
        checkpoints.restore(net, optimizer(net))
    assert str(error.value).startswith(f"{checkpoints.path}: ") and told in str(error.value)
    assert "remove this file to start the training afresh" in str(error.value)
    assert before.keys() == net.state_dict().keys()


def test_every_flipped_bit_is_noticed(saved):
    whole = saved.path.read_bytes()
    for place in range(len(MAGIC), len(whole), 37):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        saved.path.write_bytes(damaged)
        refused(saved, "is damaged or cut off")


@pytest.mark.parametrize("kept", [30, 100, -1])
def test_a_cut_is_noticed(saved, kept):
    saved.path.write_bytes(saved.path.read_bytes()[:kept])
    refused(saved, "is damaged or cut off")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x00" * 500, None], ids=["empty", "text", "zeros", "torch's"]
)
def test_what_is_no_checkpoint_of_ours(saved, content):
    if content is None:
        stream = io.BytesIO()
        torch.save({"state_dict": network().state_dict()}, stream)
        content = stream.getvalue()
    saved.path.write_bytes(content)
    refused(saved, "is not a checkpoint of this version of acar")


def test_a_checkpoint_of_something_else(saved):
    write_checkpoint(saved.path, {"run_key": "x", "iteration": 3})
    refused(saved, "holds a dict without net, optimizer, source, tally")
    write_checkpoint(saved.path, [1, 2])  # type: ignore[arg-type]
    refused(saved, "holds a list without")


def test_another_network_or_optimizer_under_the_same_source(saved):
    refused(saved, "is of another network or optimizer (Error(s) in loading state_dict", network(4))
    net = network()
    state = read_checkpoint(saved.path, set())
    state["optimizer"]["param_groups"][0]["params"] = [0, 1, 2, 3]
    write_checkpoint(saved.path, state)
    refused(saved, "is of another network or optimizer", net)
    write_checkpoint(saved.path, state | {"tally": {"what": 1}})
    refused(saved, "is of another network or optimizer", net)


def test_a_full_disk_keeps_the_older_checkpoint(saved, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("acar.files._sync", full)
    net = network()
    with pytest.raises(
        UserError, match=r"checkpoint.pt: no space left; .* free now at .*; free space and run the same"
    ):
        saved.save(8, net, optimizer(net), Tally())
    assert saved.restore(net, optimizer(net))[0] == 7
    assert [path.name for path in saved.folder.iterdir()] == ["checkpoint.pt"]


def test_the_log_is_cut_behind_the_checkpoint_and_loses_torn_lines(saved):
    lines = ['{"iteration": 2, "loss": 1.0}', '{"iteration": 4, "lo', "\x00\x00", '{"iteration": 6, "loss": 0.5}',
             '{"iteration": 8, "loss": 0.4}', "[1]"]  # fmt: skip
    saved.log.write_bytes("\n".join(lines).encode() + b"\xff")
    saved.cut_log(7)
    assert saved.log.read_text() == lines[0] + "\n" + lines[3] + "\n"
    saved.append_log({"iteration": 8})
    assert saved.log.read_text().endswith('{"iteration": 8}\n')
    saved.cut_log(0)
    assert saved.log.read_text() == ""
