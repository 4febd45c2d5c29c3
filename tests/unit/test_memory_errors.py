"""An allocation that fails ends a subcommand with what to lower; any other error is none of these."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from acar import cli
from acar.cli import STAGES
from acar.config import Config
from acar.memory_errors import _REMEDIES, out_of_memory


def too_much() -> RuntimeError:
    """Torch's own words on this platform."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    return refused.value


@pytest.mark.parametrize(
    "error", [too_much(), torch.OutOfMemoryError("CUDA out of memory.\nMore."), MemoryError()]
)
def test_the_key_to_lower_is_named(error: BaseException) -> None:
    told = str(out_of_memory(error, "predict"))
    assert "lower predict.batch_clips, or the largest of predict.short_sides_px" in told and "\n" not in told
    assert "larger machine" in str(out_of_memory(error, "evaluate"))


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("can't allocate memory")])
def test_other_errors_are_bugs(error: BaseException) -> None:
    assert out_of_memory(error, "predict") is None


def test_every_stage_on_a_gpu_has_a_key_that_exists() -> None:
    assert set(_REMEDIES) == {stage.verb for stage in STAGES if stage.gpu}
    values = Config().model_dump()
    for remedy in _REMEDIES.values():
        section, key = remedy.split(" ")[0].rstrip(",").split(".")
        assert key in values[section]


def test_the_command_line_says_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise too_much()

    monkeypatch.setattr(cli, "_inspect_bank", fails)
    assert cli.main(["inspect-bank", "--bank", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("acar inspect-bank: out of memory (") and said.count("\n") == 1
