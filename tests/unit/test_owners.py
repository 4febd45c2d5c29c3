from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from acar.owners import LOCKS, OWNERS, join, take_over

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the locks of some Snakemake run."""
    (tmp_path / LOCKS).mkdir(parents=True)
    (tmp_path / LOCKS / "0.output.lock").write_text("results/data\n")
    return tmp_path


def other_process(folder: Path, call: str) -> subprocess.Popen[str]:
    program = "import sys\nfrom pathlib import Path\nfrom acar.owners import join, take_over\n"
    program += f"{call}\nprint(1, flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    return process


def test_abandoned_locks_are_removed(folder, capsys):
    assert take_over(folder) is True
    assert list((folder / LOCKS).iterdir()) == []
    assert "a Snakemake run that is gone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call", ["take_over(Path(sys.argv[1]), jobs_run_here=False)", "join(Path(sys.argv[1]))"]
)
def test_locks_stay_while_a_run_or_one_of_its_jobs_lives(folder, call):
    (folder / OWNERS).touch()
    with other_process(folder, call) as owner:
        assert take_over(folder) is False
        assert (folder / LOCKS / "0.output.lock").is_file()
        owner.kill()


def test_locks_go_once_the_owner_was_killed(folder):
    (folder / OWNERS).touch()
    with other_process(folder, "join(Path(sys.argv[1]))") as owner:
        owner.kill()
    assert take_over(folder) is True


def test_locks_stay_where_jobs_may_wait_in_a_queue(folder):
    assert take_over(folder, jobs_run_here=False) is False
    assert (folder / LOCKS / "0.output.lock").is_file()


def test_a_job_outside_a_run_owns_nothing(tmp_path):
    join(tmp_path)
    assert list(tmp_path.iterdir()) == []
