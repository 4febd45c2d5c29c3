from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from workflow_runs import REPOSITORY

CPU_STAGES = ("synthesize", "ingest", "seal_bank", "evaluate", "report")
TORCH_PINS = {"torch", "torchvision", "safetensors", "tensorboard"}


def _pins(lines: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in lines)


def _project_pins() -> dict[str, str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return _pins(project["dependencies"])


def _environment_pins(name: str) -> dict[str, str]:
    parts = yaml.safe_load((REPOSITORY / "envs" / f"{name}.yaml").read_text())["dependencies"]
    return _pins(next(part["pip"] for part in parts if isinstance(part, dict)))


def test_the_gpu_environment_has_the_projects_pins():
    assert _environment_pins("gpu") == _project_pins()


def test_the_cpu_environment_has_them_without_torch():
    expected = {name: pin for name, pin in _project_pins().items() if name not in TORCH_PINS}
    assert _environment_pins("cpu") == expected


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_environments_install_the_project_itself(name):
    assert "--no-deps --editable ." in (REPOSITORY / "envs" / f"{name}.post-deploy.sh").read_text()


def test_rules_of_the_cpu_environment_do_without_torch():
    text = "\n".join(path.read_text() for path in (REPOSITORY / "rules").glob("*.smk"))
    found = re.findall(r"rule (\w+):(?:(?!\brule \w+:).)*?envs/cpu\.yaml", text, re.DOTALL)
    assert set(found) == set(CPU_STAGES)
    program = "import importlib, sys\n"
    program += f"for name in {CPU_STAGES}: importlib.import_module('acar.stages.' + name)\n"
    program += f"print(sorted({TORCH_PINS} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
