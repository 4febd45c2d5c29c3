"""Leases on GPUs: an advisory lock a device, so that two jobs never compute on the same one.

Snakemake counts GPUs but hands out no numbers, so two running jobs would both take device 0. Each job leases
its devices here before torch starts. The lock is the kernel's (flock): a killed job's lease frees itself.
Never imports torch.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import random
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from acar.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
BY_BUS = "PCI_BUS_ID"
FOLDER = "ACAR_LEASES"
# One folder for all users of the machine. Not under TMPDIR, which schedulers set to another folder for each job.
DEFAULT_FOLDER = Path("/tmp/acar-leases")
POLL_S = 0.25
REMIND_S = 180.0

# Locks that this process holds; they pass to the program that replaces it only if asked to.
_held: set[int] = set()


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
        # A driver in trouble can hang the tool; the driver's files below answer then.
        with suppress(subprocess.TimeoutExpired, OSError):
            answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
            if answer.returncode == 0:
                return [line.strip() for line in answer.stdout.splitlines() if line.startswith("GPU-")]
    found = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        uuid = re.search(r"GPU UUID:\s*(\S+)", file.read_text(encoding="utf-8"))
        found.append(uuid.group(1) if uuid else f"gpu-at-{file.parent.name}")
    return found


def visible_devices(
    environ: Mapping[str, str] = os.environ, installed: Callable[[], Sequence[str]] | None = None
) -> list[Device]:
    """The devices this process may use: those of `CUDA_VISIBLE_DEVICES` if it is set, else all.

    The list is read as CUDA reads it: it ends at the first device that does not exist, which is said on
    stderr; a UUID may be abbreviated. A device named twice counts once.

    Args:
        environ: the environment.
        installed: lists the machine's GPUs by UUID in PCI order; None: `installed_gpus`.

    Raises:
        UserError: the list begins with what is no GPU here, or holds numbers that, by `CUDA_DEVICE_ORDER`,
            are not those of the PCI order.
    """
    uuids = list((installed or installed_gpus)())
    if VISIBLE not in environ:
        return [Device(str(index), uuid) for index, uuid in enumerate(uuids)]
    tokens = [part.strip() for part in environ[VISIBLE].split(",")]
    _check_order(environ, tokens, uuids)
    found: dict[str, Device] = {}
    for token in tokens:
        device = _device(token, uuids)
        if device is None:
            hidden = token in ("", "-1", "NoDevFiles")  # ends the list or hides all; the last is Slurm's
            if not hidden and uuids and not found:
                raise UserError(
                    f"{VISIBLE}={environ[VISIBLE]}: `{token}` is none of the {len(uuids)} GPUs here; expected "
                    f"numbers from 0 or UUIDs such as {uuids[0]}; to compute on the CPU leave it empty, or set "
                    "run.device: cpu"
                )
            if not hidden:
                _say(
                    f"{VISIBLE}={environ[VISIBLE]}: `{token}` is none of the {len(uuids)} GPUs here, and CUDA "
                    f"stops reading there: {len(found)} can be used"
                )
            break
        found.setdefault(device.identity, device)
    return _spelled_alike(list(found.values()))


def lease_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the lock files lie: `ACAR_LEASES`, or a folder that all users of the machine share."""
    return Path(environ.get(FOLDER) or DEFAULT_FOLDER)


@contextmanager
def job_lease(wanted: int, device: Literal["auto", "cpu", "cuda"], *, at_most: bool = False) -> Iterator[int]:
    """Hold a job's GPUs and hide all others from torch; yields their number, 0 for the CPU.

    Args:
        wanted: GPUs granted to the job, as by `--gpus`.
        device: `run.device` of the config.
        at_most: the job can do with fewer.

    Raises:
        UserError: `wanted` is negative, more than there are (without `at_most`), or 0 for `cuda`.
    """
    if wanted < 0:
        raise UserError(f"--gpus {wanted}: expected 0 or more")
    if wanted == 0 and device == "cuda":
        raise UserError(
            "run.device is `cuda` and no GPU was granted (--gpus 0, or snakemake --resources gpu=0); grant one, "
            "or set run.device to `auto` or `cpu`"
        )
    if wanted == 0 or device == "cpu":
        export([])
        yield 0
        return
    with lease(wanted, at_most=at_most) as devices:
        if devices:
            export(devices)
        yield len(devices)


@contextmanager
def lease(
    n: int,
    *,
    at_most: bool = False,
    wait: bool = True,
    devices: Sequence[Device] | None = None,
    folder: Path | None = None,
    poll_s: float = POLL_S,
    remind_s: float = REMIND_S,
) -> Iterator[list[Device]]:
    """Hold `n` devices; yields them, or none where there are no GPUs or `n` is 0.

    All are taken at once or none is, so two waiting jobs cannot block each other.

    Args:
        n: how many.
        at_most: take all devices where there are fewer than `n`, and say so, instead of refusing.
        wait: until other jobs let go, saying who holds what; else refuse at once.
        devices: to choose from; None: `visible_devices()`.
        folder: of the lock files; None: `lease_folder()`.
        poll_s: seconds between two attempts.
        remind_s: seconds between two messages on what is waited for.

    Raises:
        UserError: there are fewer than `n` devices, they are taken (without `wait`), or the folder cannot
            be written or is not safe.
    """
    devices = visible_devices() if devices is None else devices
    wanted = _how_many(n, devices, at_most)
    if wanted == 0:
        yield []
        return
    folder = lease_folder() if folder is None else folder
    locks = _acquire(wanted, devices, folder, poll_s if wait else None, remind_s)
    _held.update(descriptor for _, descriptor in locks)
    try:
        yield [device for device, _ in locks]
    finally:
        _held.difference_update(descriptor for _, descriptor in locks)
        _close(locks)


def export(devices: Sequence[Device]) -> None:
    """Make these the only GPUs that torch will see in this process and its children."""
    os.environ[VISIBLE] = ",".join(device.token for device in devices)
    # Indices here are the driver's; CUDA's own default order is by speed.
    os.environ[ORDER] = BY_BUS


def keep_through_exec() -> None:
    """Let the program that replaces this process (`os.exec`) go on holding its leases.

    Without this a lease ends with the process: no child inherits it, so none outlives a killed job with it.
    """
    for descriptor in _held:
        os.set_inheritable(descriptor, True)


def _check_order(environ: Mapping[str, str], tokens: Sequence[str], uuids: Sequence[str]) -> None:
    order = environ.get(ORDER, BY_BUS)
    if order != BY_BUS and len(uuids) > 1 and any(token.isdecimal() for token in tokens):
        raise UserError(
            f"{VISIBLE}={environ[VISIBLE]} with {ORDER}={order}: which GPUs these numbers mean is known to CUDA "
            f"only; name them by UUID (nvidia-smi -L), or set {ORDER}={BY_BUS}"
        )


def _device(token: str, uuids: Sequence[str]) -> Device | None:
    """What one entry of `CUDA_VISIBLE_DEVICES` names; None if nothing. Without a driver all is believed."""
    if token.isascii() and token.isdecimal():
        index = int(token)
        if not uuids:
            return Device(str(index), str(index))
        return Device(str(index), uuids[index]) if index < len(uuids) else None
    if token.startswith("MIG-"):  # a part of a GPU, which the driver does not list among GPUs
        return Device(token, token)
    if not token.startswith("GPU-"):
        return None
    if not uuids:
        return Device(token, token)
    matches = [uuid for uuid in uuids if uuid.startswith(token)]
    return Device(matches[0], matches[0]) if len(matches) == 1 else None


def _spelled_alike(devices: list[Device]) -> list[Device]:
    """CUDA and torch read a list of numbers or one of UUIDs, not one of both."""
    if len({device.token.isdecimal() for device in devices}) < 2:
        return devices
    return [Device(device.identity, device.identity) for device in devices]


def _how_many(n: int, devices: Sequence[Device], at_most: bool) -> int:
    """How many devices to take: `n`, or with `at_most` as many as a process can use."""
    usable, why = (
        len(devices),
        f"{len(devices)} can be seen ({', '.join(device.token for device in devices)})",
    )
    if any(device.token.startswith("MIG-") for device in devices):
        usable, why = 1, "CUDA shows a process one MIG device only"
    if n <= usable or not devices:
        return min(n, len(devices))
    if not at_most:
        raise UserError(
            f"{n} GPUs were asked for and {why}; ask for fewer (--gpus, --processes), or check {VISIBLE}"
        )
    _say(f"{n} GPUs are offered and {why}: using {usable}")
    return usable


def _acquire(
    wanted: int, devices: Sequence[Device], folder: Path, poll_s: float | None, remind_s: float
) -> list[tuple[Device, int]]:
    started = time.monotonic()
    say_at = started
    while True:
        locks, holders = _try(wanted, devices, folder)
        if locks:
            return locks
        if poll_s is None:
            raise UserError(f"{wanted} of {len(devices)} GPUs are not free; {holders} (locks in {folder})")
        now = time.monotonic()
        if now >= say_at:
            since = f" ({(now - started) / 60:.0f} min so far)" if say_at > started else ""
            say_at = now + remind_s
            print(
                f"waiting for {wanted} of {len(devices)} GPUs{since}; {holders}", file=sys.stderr, flush=True
            )
        time.sleep(poll_s * random.uniform(0.5, 1.5))


def _try(wanted: int, devices: Sequence[Device], folder: Path) -> tuple[list[tuple[Device, int]], str]:
    """Lock the first free `wanted` devices or none; also says who holds the others."""
    locks: list[tuple[Device, int]] = []
    holders = []
    try:
        for device in devices:
            descriptor, holder = _lock(device, folder)
            if descriptor is None:
                holders.append(f"{device.token} is held by process {holder}")
            else:
                locks.append((device, descriptor))
            if len(locks) == wanted:
                return locks, ""
    except BaseException:
        _close(locks)
        raise
    _close(locks)
    return [], ", ".join(holders)


def _close(locks: Sequence[tuple[Device, int]]) -> None:
    for _, descriptor in locks:
        os.close(descriptor)


def _lock(device: Device, folder: Path) -> tuple[int | None, str]:
    """A descriptor that holds the device's lock, or None and who holds it."""
    path = folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', device.identity)}.lock"
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:  # removed meanwhile: the next job would lock a new file
                os.close(descriptor)
                continue
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "?"
            os.close(descriptor)
            return None, holder
        except OSError as error:
            os.close(descriptor)
            raise UserError(
                f"{path}: cannot be locked ({error.strerror}); set {FOLDER} to a folder on a local disk"
            ) from None
        with suppress(OSError):  # a full disk: the lock holds all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} of {_user()} on {socket.gethostname()}\n".encode(), 0)
        return descriptor, ""


def _open(path: Path) -> int:
    """Open a lock file, made if need be, for all users; never another file in its place.

    Raises:
        UserError: it cannot be opened, is a link, or is no file of its own.
    """
    try:
        folder = _open_folder(path.parent)
        try:
            descriptor = _open_or_make(path.name, folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be opened ({error.strerror}); set {FOLDER} to a folder that you can write, the same "
            "for all who share these GPUs"
        ) from None
    found = os.fstat(descriptor)
    # Whoever may write the folder could have put a link to somebody's file there, to have it overwritten.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise UserError(f"{path}: is no lock file (a link or a special file); remove it, or set {FOLDER}")
    return descriptor


def _open_folder(folder: Path) -> int:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), _modes_as_given():
        folder.mkdir(mode=0o1777)  # as /tmp: all may add files, none may remove another's
    # A folder that the user named may well be reached by a link.
    follow = os.O_NOFOLLOW if folder == DEFAULT_FOLDER else 0
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | follow)


def _open_or_make(name: str, folder: int) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        # In this order: kernels refuse O_CREAT on another user's file in a sticky folder (fs.protected_regular).
        with suppress(FileNotFoundError):
            return os.open(name, flags, dir_fd=folder)
        with suppress(FileExistsError), _modes_as_given():
            return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)


@contextmanager
def _modes_as_given() -> Iterator[None]:
    # A mode set afterwards would leave a moment in which another user is shut out.
    mask = os.umask(0)
    try:
        yield
    finally:
        os.umask(mask)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        return f"user {os.getuid()}"
