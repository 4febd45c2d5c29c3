"""Every command of docs/checkpoints.md runs as written, on thin stand-ins of the files it names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from weights_layouts import thin_net, write_acar_net, write_caffe2, write_pyslowfast

from acar.cli import main
from acar.weights import commands

REPOSITORY = Path(__file__).resolve().parents[3]
TEXT = (REPOSITORY / "docs" / "checkpoints.md").read_text()
BLOCKS = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = list(dict.fromkeys(re.findall(r"`((?:acar) [^`]* [^`]*)`", TEXT) + BLOCKS.splitlines()))


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a thin file under each name."""
    net = thin_net()
    state, backbone = net.state_dict(), net.backbone.state_dict()
    write_caffe2(tmp_path / "SLOWFAST_8x8_R50.pkl", backbone)
    write_pyslowfast(tmp_path / "SLOWFAST_8x8_R50.pyth", backbone, zipped=True)
    torch.save(backbone, tmp_path / "SLOWFAST_R101_K700.pth.tar")
    write_acar_net(tmp_path / "AVA_SLOWFAST_R50_ACAR_HR2O.pth.tar", state, checkpoint=False, zipped=True)
    (tmp_path / "results" / "stage1").mkdir(parents=True)
    save_file(state, tmp_path / "results" / "stage1" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACAR_WEIGHTS", str(tmp_path / "cache"))

    def fetch(hosted: object, target: Path) -> Path:
        target.parent.mkdir(exist_ok=True)
        write_caffe2(target, backbone)
        return target

    import acar.weights.fetch

    monkeypatch.setattr(acar.weights.fetch, "fetch", fetch)
    return tmp_path


def test_the_page_names_a_command_a_kind_of_file() -> None:
    verbs = [command.split()[1] for command in COMMANDS if command.startswith("acar ")]
    assert verbs.count("import-weights") == 4 and {"fetch-weights", "export-weights"} <= set(verbs)
    assert sum(command.startswith("snakemake ") for command in COMMANDS) == 1
    assert commands.CATALOGUE.keys() >= {"slowfast_r50_8x8_k400"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("acar ")])
def test_command(stand_ins: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = shlex.split(command)[1:]
    assert main(arguments) == 0, command
    said = capsys.readouterr().out
    if arguments[0] == "import-weights":
        assert "missing  0" in said and load_file(stand_ins / arguments[2])


def test_the_run_is_planned_as_the_page_says(stand_ins: Path) -> None:
    """The workflow's own run of it, on a tiny network, is tests/workflow/test_taken_network.py."""
    run = next(shlex.split(command) for command in COMMANDS if command.startswith("snakemake "))
    named = [(REPOSITORY / part).read_text() for part in run if part.endswith(".yaml")]
    for path in re.findall(r"data/[\w./-]+", "\n".join(named)):
        is_val = "train" not in path and "weights/slowfast" not in path
        if is_val and Path(path).suffix:
            (stand_ins / path).parent.mkdir(parents=True, exist_ok=True)
            (stand_ins / path).touch()
    (stand_ins / "data/ava/videos").mkdir(parents=True)
    arguments = [str(REPOSITORY / part) if part.endswith(".yaml") else part for part in run[1:]]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--dry-run", *arguments],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    table = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert table == {
        "all": "1", "ingest": "16", "detect": "16", "train_stage1": "1", "predict": "16", "evaluate": "1",
        "report": "1", "total": "52",
    }  # fmt: skip
