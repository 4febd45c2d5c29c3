"""The lock files of the leases: for all users of a machine, and no way to anybody's other files."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from acar.errors import UserError
from acar.jobs import leases
from acar.jobs.leases import Device, lease

REPOSITORY = Path(__file__).resolve().parents[3]
EIGHT = [Device(str(index), f"GPU-{index}") for index in range(8)]


def refused(folder: Path, told: str) -> None:
    with pytest.raises(UserError, match=told), lease(1, devices=EIGHT[:1], folder=folder):
        raise AssertionError("leased without a lock file")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / "x", "ACAR_LEASES")
    refused(tmp_path / "file", "Not a directory.*ACAR_LEASES")


def test_lock_files_are_for_all_users_whatever_the_umask(tmp_path):
    mask = os.umask(0o077)
    try:
        with lease(1, devices=EIGHT, folder=tmp_path / "deep" / "leases"):
            assert os.umask(0o077) == 0o077, "the umask is back"
    finally:
        os.umask(mask)
    folder = tmp_path / "deep" / "leases"
    assert stat.S_IMODE((folder / "GPU-0.lock").stat().st_mode) == 0o666
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_what_lies_in_a_lock_files_place_is_not_touched(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("years of work")
    lock = tmp_path / "leases" / "GPU-0.lock"
    lock.parent.mkdir()
    for put in (lock.symlink_to, lock.hardlink_to, lambda _: os.mkfifo(lock), lambda _: lock.mkdir()):
        put(precious)
        refused(lock.parent, "GPU-0.lock: (cannot be opened|is no lock file)")
        lock.rmdir() if lock.is_dir() else lock.unlink()
    assert precious.read_text() == "years of work"


def test_the_shared_folder_is_not_reached_by_a_link(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(leases, "DEFAULT_FOLDER", tmp_path / "acar-leases")
    monkeypatch.delenv("ACAR_LEASES", raising=False)
    with lease(1, devices=EIGHT[:1]):
        assert [file.name for file in (tmp_path / "acar-leases").iterdir()] == ["GPU-0.lock"]
    (tmp_path / "acar-leases").rename(tmp_path / "old")
    (tmp_path / "acar-leases").symlink_to(tmp_path / "elsewhere")
    refused(tmp_path / "acar-leases", "ACAR_LEASES")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_lock_file_that_was_removed_meanwhile_is_not_enough(tmp_path, monkeypatch):
    real, removed = fcntl.flock, []

    def remove_first(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(descriptor)
            (tmp_path / "GPU-0.lock").unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with lease(1, devices=EIGHT[:1], folder=tmp_path):
        assert removed
        with pytest.raises(UserError), lease(1, devices=EIGHT[:1], folder=tmp_path, wait=False):
            raise AssertionError("two locks on one device")


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    refused(tmp_path, "cannot be locked .No locks available.; set ACAR_LEASES to a folder on a local disk")


@pytest.mark.skipif(os.getuid() != 0, reason="needs to become another user")
def test_two_users_see_each_others_leases(tmp_path):
    """Also where the kernel guards other users' files in sticky folders, as most do (fs.protected_regular)."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom acar.errors import UserError\n"
        "from acar.jobs.leases import Device, lease\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
        "try:\n    with lease(1, devices=[Device('0', 'GPU-0')], folder=Path(sys.argv[1]), wait=False):\n"
        "        print('held')\nexcept UserError as error:\n    print(error)\n"
    )
    folder = Path(tempfile.mkdtemp()) / "leases"  # pytest's own folders are this user's alone
    folder.parent.chmod(0o755)

    def as_nobody() -> str:
        command = [sys.executable, "-c", program, str(folder)]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout

    try:
        with lease(1, devices=EIGHT[:1], folder=folder):
            assert f"0 is held by process {os.getpid()} of root on {socket.gethostname()}" in as_nobody()
        assert as_nobody() == "held\n"
        with lease(1, devices=EIGHT[:1], folder=folder, wait=False):
            assert (folder / "GPU-0.lock").read_text().startswith(f"{os.getpid()} of root")
        folder.chmod(0o700)
        assert "cannot be opened (Permission denied); set ACAR_LEASES to a folder that you can" in as_nobody()
    finally:
        shutil.rmtree(folder.parent)


def test_a_file_that_exists_is_not_opened_to_be_made(tmp_path, monkeypatch):
    """Kernels refuse that for another user's file in a folder like /tmp, with any right to write it."""
    real, asked = os.open, []

    def note(path: str, flags: int, *arguments: int, **options: int) -> int:
        asked.append((str(path), bool(flags & os.O_CREAT)))
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", note)
    for expected in ([False, True], [False]):
        asked.clear()
        with lease(1, devices=EIGHT[:1], folder=tmp_path):
            assert [made for path, made in asked if path == "GPU-0.lock"] == expected
