from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_gpus import fake_gpus, uuid

from acar.errors import UserError
from acar.jobs.leases import VISIBLE, Device, export, installed_gpus, lease, lease_folder, visible_devices

REPOSITORY = Path(__file__).resolve().parents[3]
EIGHT = [Device(str(index), f"GPU-{index}") for index in range(8)]


def tokens(devices: list[Device]) -> list[str]:
    return [device.token for device in devices]


SPELLED_OUT = ["GPU-a1", "GPU-a2", "GPU-b1"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, {"0": "GPU-a1", "1": "GPU-a2", "2": "GPU-b1"}),
        ("2,0", {"2": "GPU-b1", "0": "GPU-a1"}),
        ("", {}),
        ("-1", {}),
        ("NoDevFiles", {}),
        ("1,-1,0", {"1": "GPU-a2"}),
        ("0, 2", {"0": "GPU-a1", "2": "GPU-b1"}),
        ("0,3,1", {"0": "GPU-a1"}),  # CUDA stops at an index beyond what exists
        ("0,0", {"0": "GPU-a1"}),
        ("01,1", {"1": "GPU-a2"}),
        ("GPU-a2,GPU-b", {"GPU-a2": "GPU-a2", "GPU-b1": "GPU-b1"}),  # an abbreviation is locked by the whole
        ("GPU-b,GPU-b1", {"GPU-b1": "GPU-b1"}),
        ("GPU-b,GPU-a,GPU-a1", {"GPU-b1": "GPU-b1"}),  # GPU-a could be two
        ("GPU-b,GPU-c", {"GPU-b1": "GPU-b1"}),
        ("0,GPU-b,GPU-a1", {"GPU-a1": "GPU-a1", "GPU-b1": "GPU-b1"}),
        ("MIG-x,MIG-GPU-a1/0/1,MIG-x", {"MIG-x": "MIG-x", "MIG-GPU-a1/0/1": "MIG-GPU-a1/0/1"}),
    ],
)
def test_what_a_scheduler_has_set_is_the_truth(visible, expected):
    environ = {} if visible is None else {VISIBLE: visible}
    found = visible_devices(environ, lambda: SPELLED_OUT)
    assert {device.token: device.identity for device in found} == expected
    assert tokens(found) == list(expected)


def test_without_a_driver_the_scheduler_is_believed():
    found = visible_devices({VISIBLE: "5,GPU-ab,MIG-c,5"}, lambda: [])
    assert [device.identity for device in found] == ["5", "GPU-ab", "MIG-c"]


def test_where_reading_stopped_is_said(capsys):
    visible_devices({VISIBLE: "0,7,1"}, lambda: SPELLED_OUT)
    assert (
        "`7` is none of the 3 GPUs here, and CUDA stops reading there: 1 can be used"
        in capsys.readouterr().err
    )
    visible_devices({VISIBLE: "0,-1"}, lambda: SPELLED_OUT)
    assert capsys.readouterr().err == ""


def test_numbers_in_an_order_that_only_cuda_knows_are_refused():
    by_speed = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    with pytest.raises(UserError, match="name them by UUID"):
        visible_devices({VISIBLE: "1,0", **by_speed}, lambda: SPELLED_OUT)
    assert len(visible_devices({VISIBLE: "GPU-b", **by_speed}, lambda: SPELLED_OUT)) == 1
    assert len(visible_devices({VISIBLE: "0", **by_speed}, lambda: ["GPU-a1"])) == 1
    assert len(visible_devices(by_speed, lambda: SPELLED_OUT)) == 3  # ours to number: `export` sets the order


def test_devices_are_locked_by_uuid_where_it_is_known():
    """Two jobs that a scheduler confines to different devices both see a device 0."""
    one = visible_devices({VISIBLE: "0"}, lambda: ["GPU-a"])
    other = visible_devices({VISIBLE: "0"}, lambda: ["GPU-b"])
    assert one[0].identity == "GPU-a" and other[0].identity == "GPU-b"
    assert visible_devices({VISIBLE: "0"}, lambda: [])[0].identity == "0"


def test_the_driver_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", fake_gpus(tmp_path / "eight", 8))
    assert installed_gpus() == [uuid(number) for number in range(8)]
    monkeypatch.setenv("PATH", fake_gpus(tmp_path / "none", 0))
    if not Path("/proc/driver/nvidia/gpus").exists():
        assert installed_gpus() == []


def test_two_spellings_of_one_device_exclude_each_other(tmp_path):
    spelled = [visible_devices({VISIBLE: text}, lambda: SPELLED_OUT) for text in ("2", "GPU-b", "GPU-b1")]
    for mine in spelled:
        for other in spelled:
            with (
                lease(1, devices=mine, folder=tmp_path),
                pytest.raises(UserError),
                lease(1, devices=other, folder=tmp_path, wait=False),
            ):
                raise AssertionError("one device was leased by two names")


def test_a_device_named_twice_is_not_waited_for(tmp_path):
    twice = visible_devices({VISIBLE: "1,1"}, lambda: SPELLED_OUT)
    with lease(2, at_most=True, devices=twice, folder=tmp_path, wait=False) as devices:
        assert tokens(devices) == ["1"]
    with (
        pytest.raises(UserError, match="2 GPUs were asked for and 1 can be seen"),
        lease(2, devices=twice, folder=tmp_path),
    ):
        raise AssertionError("one device was leased twice")


def test_a_process_uses_one_mig_device(tmp_path, capsys):
    parts = visible_devices({VISIBLE: "MIG-a,MIG-b"}, lambda: ["GPU-a"])
    with (
        lease(1, devices=parts, folder=tmp_path) as one,
        lease(8, at_most=True, devices=parts, folder=tmp_path, wait=False) as other,
    ):
        assert tokens([*one, *other]) == ["MIG-a", "MIG-b"]
    assert (
        "8 GPUs are offered and CUDA shows a process one MIG device only: using 1" in capsys.readouterr().err
    )
    with pytest.raises(UserError, match="one MIG device"), lease(2, devices=parts, folder=tmp_path):
        raise AssertionError("two MIG devices were leased to one process")


def test_leases_are_distinct_and_return(tmp_path):
    with (
        lease(3, devices=EIGHT, folder=tmp_path) as first,
        lease(5, devices=EIGHT, folder=tmp_path) as second,
    ):
        assert set(tokens(first)) | set(tokens(second)) == {str(index) for index in range(8)}
        with (
            pytest.raises(UserError, match=f"held by process {os.getpid()} of .* on "),
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


def test_too_many_are_refused_or_clamped(tmp_path, capsys):
    with pytest.raises(UserError, match="9 GPUs were asked for"), lease(9, devices=EIGHT, folder=tmp_path):
        raise AssertionError("nine of eight devices were leased")
    with lease(9, at_most=True, devices=EIGHT, folder=tmp_path) as all_of_them:
        assert len(all_of_them) == 8
    assert capsys.readouterr().err == (
        "9 GPUs are offered and 8 can be seen (0, 1, 2, 3, 4, 5, 6, 7): using 8\n"
    )


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
    said = capsys.readouterr().err
    assert said.count("waiting for 1 of 1 GPUs; 0 is held by process") == 1
    assert "min so far" not in said


def test_a_long_wait_is_mentioned_again(tmp_path, capsys):
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lease(1, devices=EIGHT[:1], folder=tmp_path):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    threading.Timer(0.5, done.set).start()
    with lease(1, devices=EIGHT[:1], folder=tmp_path, poll_s=0.01, remind_s=0.1):
        thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 6
    for line in lines:
        assert f"0 is held by process {os.getpid()} of " in line
    assert "waiting for 1 of 1 GPUs (0 min so far); " in lines[-1]


def test_a_killed_jobs_lease_frees_itself(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom acar.jobs.leases import Device, lease\n"
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
        "import os, sys\nfrom pathlib import Path\nfrom acar.jobs.leases import Device, keep_through_exec, lease\n"
        "with lease(1, devices=[Device('0', 'GPU-0')], folder=Path(sys.argv[1])):\n"
        "    keep_through_exec()\n"
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


def test_a_killed_jobs_children_do_not_keep_its_lease(tmp_path):
    """Not even one that was started with all file descriptors."""
    program = (
        "import subprocess, sys, time\nfrom pathlib import Path\nfrom acar.jobs.leases import Device, lease\n"
        "with lease(1, devices=[Device('0', 'GPU-0')], folder=Path(sys.argv[1])):\n"
        "    child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "    print(child.pid, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        holder.kill()
        holder.wait()
        try:
            with lease(1, devices=EIGHT[:1], folder=tmp_path, wait=False) as free:
                assert tokens(free) == ["0"]
            os.kill(child, 0)  # it lives on
        finally:
            os.kill(child, signal.SIGKILL)


def test_export_hides_the_other_devices(monkeypatch):
    monkeypatch.setenv(VISIBLE, "0,1,2,3")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    export([EIGHT[2], EIGHT[3]])
    assert os.environ[VISIBLE] == "2,3" and os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_the_lock_folder_can_be_named(tmp_path):
    assert lease_folder({"ACAR_LEASES": str(tmp_path)}) == tmp_path
    assert lease_folder({}) == lease_folder({"TMPDIR": str(tmp_path)}) == Path("/tmp/acar-leases")
