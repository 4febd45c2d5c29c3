from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from acar.errors import UserError
from acar.leases import VISIBLE, Device, export, lease, lease_folder, visible_devices

REPOSITORY = Path(__file__).resolve().parents[2]
EIGHT = [Device(str(index), f"GPU-{index}") for index in range(8)]


def tokens(devices: list[Device]) -> list[str]:
    return [device.token for device in devices]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("", []),
        ("-1", []),
        ("1,-1,0", ["1"]),
        ("GPU-abc, MIG-def", ["GPU-abc", "MIG-def"]),
    ],
)
def test_what_a_scheduler_has_set_is_the_truth(visible, expected):
    environ = {} if visible is None else {VISIBLE: visible}
    assert tokens(visible_devices(environ, lambda: ["GPU-a", "GPU-b", "GPU-c"])) == expected


def test_devices_are_locked_by_uuid_where_it_is_known():
    """Two jobs that a scheduler confines to different devices both see a device 0."""
    one = visible_devices({VISIBLE: "0"}, lambda: ["GPU-a"])
    other = visible_devices({VISIBLE: "0"}, lambda: ["GPU-b"])
    assert one[0].identity == "GPU-a" and other[0].identity == "GPU-b"
    assert visible_devices({VISIBLE: "0"}, lambda: [])[0].identity == "0"


def test_leases_are_distinct_and_return(tmp_path):
    with (
        lease(3, devices=EIGHT, folder=tmp_path) as first,
        lease(5, devices=EIGHT, folder=tmp_path) as second,
    ):
        assert set(tokens(first)) | set(tokens(second)) == {str(index) for index in range(8)}
        with (
            pytest.raises(UserError, match=f"held by process {os.getpid()}"),
            lease(1, devices=EIGHT, folder=tmp_path, wait=False),
        ):
            raise AssertionError("a ninth device was leased")
    with lease(8, devices=EIGHT, folder=tmp_path, wait=False) as everything:
        assert len(everything) == 8


def test_a_lease_that_fails_holds_nothing(tmp_path):
    with lease(7, devices=EIGHT, folder=tmp_path):
        with pytest.raises(UserError), lease(2, devices=EIGHT, folder=tmp_path, wait=False):
            raise AssertionError("only one device was free")
        with lease(1, devices=EIGHT, folder=tmp_path, wait=False) as last:
            assert tokens(last) == ["7"]


def test_too_many_are_refused_or_clamped(tmp_path):
    with pytest.raises(UserError, match="9 GPUs were asked for"), lease(9, devices=EIGHT, folder=tmp_path):
        raise AssertionError("nine of eight devices were leased")
    with lease(9, at_most=True, devices=EIGHT, folder=tmp_path) as all_of_them:
        assert len(all_of_them) == 8


@pytest.mark.parametrize(("n", "devices"), [(0, EIGHT), (1, []), (8, [])])
def test_no_gpus_are_an_empty_lease(tmp_path, n, devices):
    with lease(n, devices=devices, folder=tmp_path / "unused") as none:
        assert none == []
    assert not (tmp_path / "unused").exists()


def test_waiting_ends_when_the_holder_lets_go(tmp_path, capsys):
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lease(1, devices=EIGHT[:1], folder=tmp_path):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    threading.Timer(0.2, done.set).start()
    with lease(1, devices=EIGHT[:1], folder=tmp_path, poll_s=0.02) as mine:
        assert tokens(mine) == ["0"]
    thread.join()
    assert "waiting for 1 of 1 GPUs; 0 is held by process" in capsys.readouterr().err


def test_a_killed_jobs_lease_frees_itself(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom acar.leases import Device, lease\n"
        "with lease(1, devices=[Device('0', 'GPU-0')], folder=Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError), lease(1, devices=EIGHT[:1], folder=tmp_path, wait=False):
            raise AssertionError("two processes lease one device")
        holder.send_signal(signal.SIGKILL)
    started = time.monotonic()
    with lease(1, devices=EIGHT[:1], folder=tmp_path, poll_s=0.02):
        assert time.monotonic() - started < 5


def test_a_lease_lives_through_exec(tmp_path):
    """`os.exec` of a launcher must not let the devices go."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom acar.leases import Device, lease\n"
        "with lease(1, devices=[Device('0', 'GPU-0')], folder=Path(sys.argv[1])):\n"
        "    os.execv(sys.executable, [sys.executable, '-c', 'print(1, flush=True); input()'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None and holder.stdout.readline() == "1\n"
        with pytest.raises(UserError), lease(1, devices=EIGHT[:1], folder=tmp_path, wait=False):
            raise AssertionError("the lease was lost at exec")
        holder.communicate("\n")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="ACAR_LEASES"),
        lease(1, devices=EIGHT, folder=tmp_path / "file" / "x"),
    ):
        raise AssertionError("leased without a lock file")


def test_export_hides_the_other_devices(monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1,2,3")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    export([EIGHT[2], EIGHT[3]])
    assert os.environ[VISIBLE] == "2,3" and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    monkeypatch.delenv("CUDA_DEVICE_ORDER")


def test_the_lock_folder_can_be_named(tmp_path):
    assert lease_folder({"ACAR_LEASES": str(tmp_path)}) == tmp_path
    assert lease_folder({}).name == f"acar-leases-{os.getuid()}"
