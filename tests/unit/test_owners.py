from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acar.errors import UserError
from acar.owners import LOCKS, OWNERS, join, sole_owner, take_over

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


def test_one_owner_at_a_time_and_the_next_after_a_kill(tmp_path):
    lock = tmp_path / "owners" / "train-stage1.lock"
    hold = "import sys,time; from pathlib import Path; from acar.owners import sole_owner\n"
    hold += f"with sole_owner(Path({str(lock)!r})):\n print('mine', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(UserError, match=f"pid {process.pid} on .* is at work on this"), sole_owner(lock):
        pass
    process.kill()
    process.wait()
    with sole_owner(lock):
        assert f"pid {os.getpid()}" in lock.read_text()


def test_a_worker_dies_with_its_launcher(tmp_path):
    worker = "from acar.owners import die_with_parent; import os,time\n"
    worker += "die_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    launcher = (
        f"import subprocess,sys; subprocess.run([sys.executable, '-c', {worker!r}], start_new_session=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists() and "Z" not in state_of(pid):
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in state_of(pid)


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "gone"
