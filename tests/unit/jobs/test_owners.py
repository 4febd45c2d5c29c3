from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from acar.errors import UserError
from acar.jobs.owners import LAUNCHER, LOCKS, OWNERS, join, living, own_run, sole_owner, take_over

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the locks of some Snakemake run."""
    (tmp_path / LOCKS).mkdir(parents=True)
    (tmp_path / LOCKS / "0.output.lock").write_text("results/data\n")
    return tmp_path


def other_process(folder: Path, call: str) -> subprocess.Popen[str]:
    program = "import sys\nfrom pathlib import Path\nfrom acar.jobs.owners import join, take_over\n"
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
    hold = "import sys,time; from pathlib import Path; from acar.jobs.owners import sole_owner\n"
    hold += f"with sole_owner(Path({str(lock)!r})):\n print('mine', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(UserError, match=f"pid {process.pid} on .* is at work on this"), sole_owner(lock):
        pass
    process.kill()
    process.wait()
    with sole_owner(lock):
        assert f"pid {os.getpid()}" in lock.read_text()


def test_a_results_folder_has_one_run(tmp_path):
    """The second is refused, with the first one's pid and host, also while only a job of it is alive."""
    owners = tmp_path / "results" / "work" / "owners"
    hold = "import sys; from pathlib import Path; from acar.jobs.owners import own_run, sole_owner\n"
    hold += "{}\n print(1, flush=True); input()"
    for name, call in (
        ("run", "own_run(Path(sys.argv[1]))\nif True:"),
        ("extract-bank-val-0", "with sole_owner(Path(sys.argv[1]) / 'extract-bank-val-0.lock'):"),
    ):
        process = subprocess.Popen(
            [sys.executable, "-c", hold.format(call), str(owners)], cwd=REPOSITORY, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout.readline() == "1\n"
        assert living(owners) == [f"{name} (pid {process.pid} on {socket.gethostname()})"]
        with pytest.raises(UserError, match=rf"results: {name} \(pid {process.pid} on .*run\.results"):
            own_run(owners)
        process.kill()
        process.wait()
        assert living(owners) == []
    program = "import sys; from pathlib import Path; from acar.jobs.owners import own_run; own_run(Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, str(owners)], cwd=REPOSITORY, check=True)


def test_who_looks_does_not_stand_in_the_way(tmp_path):
    lock = tmp_path / "predict.lock"
    lock.touch()
    with open(lock) as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.15, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with sole_owner(lock):
            assert f"pid {os.getpid()}" in lock.read_text()


def test_a_worker_dies_with_its_launcher(tmp_path):
    worker = "from acar.jobs.owners import die_with_parent; import os,time\n"
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


def test_a_worker_whose_launcher_went_before_it_began_stops(monkeypatch):
    """An adopted process has a parent too, but not the one that started it."""
    monkeypatch.setenv(LAUNCHER, str(os.getppid() + 100_000))
    program = "from acar.jobs.owners import die_with_parent; die_with_parent()"
    answer = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert answer.returncode != 0 and "the launcher of this process is gone" in answer.stderr


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "gone"
