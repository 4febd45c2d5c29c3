"""Leases on GPUs: an advisory lock a device, so that two jobs never compute on the same one.

Snakemake counts GPUs but hands out no numbers, so two running jobs would both take device 0. Each job leases
its devices here before torch starts. The lock is the kernel's (flock): a killed job's lease frees itself.
Never imports torch.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from acar.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
FOLDER = "ACAR_LEASES"
POLL_S = 1.0


@dataclass(frozen=True)
class Device:
    """One GPU.

    Attributes:
        token: what `CUDA_VISIBLE_DEVICES` calls it: an index or a UUID.
        identity: what it is locked by: its UUID where that is known, since jobs that a scheduler confines to
            different devices all call theirs `0`.
    """

    token: str
    identity: str


def installed_gpus() -> list[str]:
    """UUIDs of the GPUs that the driver shows this process, in PCI order; empty without a driver."""
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.split()
    found = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        uuid = re.search(r"GPU UUID:\s*(\S+)", file.read_text(encoding="utf-8"))
        found.append(uuid.group(1) if uuid else f"gpu-at-{file.parent.name}")
    return found


def visible_devices(
    environ: Mapping[str, str] = os.environ, installed: Callable[[], Sequence[str]] = installed_gpus
) -> list[Device]:
    """The devices this process may use: those of `CUDA_VISIBLE_DEVICES` if it is set, else all.

    Args:
        environ: the environment.
        installed: lists the machine's GPUs by UUID.
    """
    uuids = installed()
    if VISIBLE not in environ:
        return [Device(str(index), uuid) for index, uuid in enumerate(uuids)]
    devices = []
    for token in (part.strip() for part in environ[VISIBLE].split(",")):
        if token in ("", "-1"):  # CUDA, too, ignores what follows an impossible device
            break
        known = token.isdecimal() and int(token) < len(uuids)
        devices.append(Device(token, uuids[int(token)] if known else token))
    return devices


def lease_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the lock files lie: `ACAR_LEASES`, or a folder of this user's among the temporary files."""
    return Path(environ.get(FOLDER) or Path(tempfile.gettempdir()) / f"acar-leases-{os.getuid()}")


@contextmanager
def lease(
    n: int,
    *,
    at_most: bool = False,
    wait: bool = True,
    devices: Sequence[Device] | None = None,
    folder: Path | None = None,
    poll_s: float = POLL_S,
) -> Iterator[list[Device]]:
    """Hold `n` devices; yields them, or none where there are no GPUs or `n` is 0.

    All are taken at once or none is, so two waiting jobs cannot block each other.

    Args:
        n: how many.
        at_most: take all devices where there are fewer than `n`, instead of refusing.
        wait: until other jobs let go; else refuse at once.
        devices: to choose from; None: `visible_devices()`.
        folder: of the lock files; None: `lease_folder()`.
        poll_s: seconds between two attempts.

    Raises:
        UserError: there are fewer than `n` devices, they are taken (without `wait`), or the folder cannot
            be written.
    """
    devices = visible_devices() if devices is None else devices
    folder = lease_folder() if folder is None else folder
    if n > len(devices) > 0 and not at_most:
        raise UserError(
            f"{n} GPUs were asked for (--gpus) and {len(devices)} can be seen "
            f"({', '.join(device.token for device in devices)}); ask for fewer, or check {VISIBLE}"
        )
    wanted = min(n, len(devices))
    if wanted == 0:
        yield []
        return
    locks = _acquire(wanted, devices, folder, wait, poll_s)
    try:
        yield [device for device, _ in locks]
    finally:
        for _, descriptor in locks:
            os.close(descriptor)


def export(devices: Sequence[Device]) -> None:
    """Make these the only GPUs that torch will see in this process and its children."""
    os.environ[VISIBLE] = ",".join(device.token for device in devices)
    # The indices above are the driver's; CUDA's own default order is by speed.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def _acquire(
    wanted: int, devices: Sequence[Device], folder: Path, wait: bool, poll_s: float
) -> list[tuple[Device, int]]:
    said = False
    while True:
        locks, holders = _try(wanted, devices, folder)
        if locks:
            return locks
        if not wait:
            raise UserError(f"{wanted} of {len(devices)} GPUs are not free; {holders} (locks in {folder})")
        if not said:
            said = True
            print(f"waiting for {wanted} of {len(devices)} GPUs; {holders}", file=sys.stderr, flush=True)
        time.sleep(poll_s * random.uniform(0.5, 1.5))


def _try(wanted: int, devices: Sequence[Device], folder: Path) -> tuple[list[tuple[Device, int]], str]:
    """Lock the first free `wanted` devices or none; also says who holds the others."""
    locks: list[tuple[Device, int]] = []
    holders = []
    for device in devices:
        descriptor, holder = _lock(device, folder)
        if descriptor is None:
            holders.append(f"{device.token} is held by process {holder}")
        else:
            locks.append((device, descriptor))
        if len(locks) == wanted:
            return locks, ""
    for _, descriptor in locks:
        os.close(descriptor)
    return [], ", ".join(holders)


def _lock(device: Device, folder: Path) -> tuple[int | None, str]:
    """A descriptor that holds the device's lock, or None and the holder's process id."""
    path = folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', device.identity)}.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be opened ({error.strerror}); set {FOLDER} to a folder you can write"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "?"
        os.close(descriptor)
        return None, holder
    # A process that replaces this one (exec) goes on holding the lease.
    os.set_inheritable(descriptor, True)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
    return descriptor, ""
