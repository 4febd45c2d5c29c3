"""Run stages on a disk that fills up, or that may not be written; a program of its own, since it limits itself.

    python full_disk.py MODE CONFIG MOST -- VERB ARGUMENT ... [-- VERB ARGUMENT ...]

MODE is one of

- `limited`: from a chosen file system call on (the opening for writing, making or renaming of something below
  the results, as Python's audit hook tells) no file of this process may grow beyond a few bytes (RLIMIT_FSIZE).
  Python, FFmpeg, Arrow, Zarr and torch all meet the kernel's own error then, with half-written files.
- `small`: the results lie in a tmpfs of few bytes, or of few file entries, made in steps that grow until the
  stage succeeds; before a rerun the tmpfs is enlarged in place. To be run under `unshare -rm`.
- `refused`: the results folder, but for `work/`, may not be written. To be run without CAP_DAC_OVERRIDE.

For each command the stage is broken at up to MOST places, and run again each time: the result must be that of an
unbroken run. Prints one JSON object a command: how many places there were, were tried and broke the stage, what
was said, and every problem.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CALLS = {"os.mkdir", "os.rename", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
LIMITS = (0, 600)  # bytes: nothing, or half of it
VOLATILE = {"resumed_from", "wall_s", "clips_per_s", "images_per_s", "elapsed_s"}


@dataclass
class Found:
    """What became of one command."""

    verb: str
    places: int = 0
    tried: int = 0
    broken: int = 0
    seconds: float = 0.0
    messages: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Disk:
    """Counts the file system calls below a folder; from the `full_at`-th on no file may pass `limit` bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self.full_at, self.limit, self.calls, self.counts = 0, 0, 0, False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.counts or (event != "open" and event not in CALLS):
            return
        path = arguments[0]
        if event == "open":
            _, mode, flags = arguments
            if not (bool(flags & WRITING) if isinstance(flags, int) else "r" not in str(mode)):
                return
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(self.folder):
            self.calls += 1
            if self.calls == self.full_at:
                limit_files(self.limit)

    @contextlib.contextmanager
    def full_from(self, call: int, limit: int = 0) -> Iterator[None]:
        """Be full from a call on; 0: never, only count."""
        self.full_at, self.limit, self.calls, self.counts = call, limit, 0, True
        try:
            yield
        finally:
            self.counts = False
            limit_files(resource.RLIM_INFINITY)


def limit_files(size: int) -> None:
    """Set how large this process's files may grow."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def run(command: list[str]) -> tuple[int, str]:
    """Exit status and what was said; -1 for an exception, which would print a trace."""
    from acar import cli

    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            return cli.main(command), said.getvalue()
        except Exception as error:
            return -1, f"{said.getvalue()}{type(error).__name__}: {error}"


def snapshot(results: Path) -> dict[str, str]:
    """Digest of every artefact, without how long it took and where it went on."""
    found = {}
    for path in sorted(results.rglob("*")):
        relative = path.relative_to(results)
        if not path.is_file() or relative.parts[0] == "work" or "tfevents" in path.name:
            continue
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            lines = content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()]
            content = "\n".join(json.dumps(_steady(json.loads(line))) for line in lines).encode()
        found[relative.as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(part) for key, part in value.items() if key not in VOLATILE}
    return value


def fill(results: Path, kept: Path) -> None:
    """Make the contents of `results` those of `kept`; the folder itself may be a mount point."""
    for path in results.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(kept, results, dirs_exist_ok=True)


def break_once(
    results: Path, command: list[str], expected: dict[str, str], found: Found, place: str, says: str,
    breaking: Callable[[], Any], mend: Callable[[], None],
) -> bool:  # fmt: skip
    """Run the command broken, then mended; notes problems. False if it did not break."""
    before = set(snapshot(results))
    with breaking():
        status, said = run(command)
    found.tried += 1
    last = said.strip().splitlines()[-1] if said.strip() else ""
    if status == 0:
        return False
    found.broken += 1
    found.messages.append(last)
    if status != 2 or says not in last or "run the same command again; finished work is kept" not in last:
        found.problems.append(f"{place}: status {status}: {said[-400:]}")
    left = {name: digest for name, digest in snapshot(results).items() if name not in before}
    halves = [name for name, digest in left.items() if expected.get(name) != digest]
    if halves:
        found.problems.append(f"{place}: half-written: {halves}")
    mend()
    status, said = run(command)
    now = snapshot(results)
    if status != 0 or now != expected:
        apart = sorted(name for name in {*now, *expected} if now.get(name) != expected.get(name))
        found.problems.append(f"{place}: the rerun ended with {status}, other files {apart}: {said[-300:]}")
    return True


def nothing() -> None:
    """Nothing to mend: the limit is gone."""


def limited(results: Path, command: list[str], most: int, kept: Path, found: Found) -> None:
    """Break the command at up to `most` of its calls."""
    disk = DISKS[0]
    with disk.full_from(0):
        status, said = run(command)
    assert status == 0, said
    expected, found.places = snapshot(results), disk.calls
    chosen = {1 + round(k * (found.places - 1) / max(most - 1, 1)) for k in range(most)}
    if most < found.places and command[0] in SEEN:  # the verb's other jobs: in the middle only
        chosen = {found.places // 2}
    SEEN.add(command[0])
    for call in sorted(chosen):
        fill(results, kept)
        limit = LIMITS[call % 2]
        break_once(results, command, expected, found, f"call {call} of {found.places}", "no space left",
                   lambda call=call, limit=limit: disk.full_from(call, limit), nothing)  # fmt: skip


def small(results: Path, command: list[str], most: int, kept: Path, found: Found) -> None:
    """Break the command by a tmpfs of few bytes, then by one of few file entries; twice as many each time."""
    status, said = run(command)
    assert status == 0, said
    expected = snapshot(results)
    entries = sum(1 for _ in kept.rglob("*")) + 1
    pages = sum(-(-path.stat().st_size // 4096) for path in kept.rglob("*") if path.is_file())
    for name, used, step in (("size", 4096 * pages, 4096), ("nr_inodes", entries, 1)):
        for doubling in range(most):
            count = used + step * 2**doubling
            with mounted(results, f"{name}={count}"):
                fill(results, kept)
                if not break_once(
                    results, command, expected, found, f"{name}={count}", "no space left", contextlib.nullcontext,
                    lambda name=name: mount("-o", f"remount,{name}=1073741824", str(results)),
                ):  # fmt: skip
                    break
            found.places += 1


def refused(results: Path, command: list[str], most: int, kept: Path, found: Found) -> None:
    """Run the command with everything read-only, then with `work/` writable."""
    status, said = run(command)
    assert status == 0, said
    expected = snapshot(results)
    for place, writable in (("everything", ()), ("all but work", ("work",))):
        fill(results, kept)
        break_once(results, command, expected, found, f"read-only: {place}", "permission denied",
                   lambda writable=writable: protected(results, writable), nothing)  # fmt: skip
    found.places = 2


@contextlib.contextmanager
def protected(folder: Path, writable: tuple[str, ...]) -> Iterator[None]:
    """Take the right to write from all folders but some."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        if path == folder or path.relative_to(folder).parts[0] not in writable:
            path.chmod(0o555)
    try:
        yield
    finally:
        for path in folders:
            path.chmod(0o755)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A tmpfs on `folder`."""
    mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(*arguments: str) -> None:
    """mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


DISKS: list[Disk] = []
SEEN: set[str] = set()
MODES = {"limited": limited, "small": small, "refused": refused}


def main(mode: str, config: str, most: str, *words: str) -> None:
    import torch

    torch.set_num_threads(1)
    results, kept = Path(config).parent, Path(config).parent.with_name("kept")
    DISKS.append(Disk(results))
    commands: list[list[str]] = []
    for word in words:
        if word == "--":
            commands.append([])
        else:
            commands[-1].append(word)
    for verb, *ids in commands:
        command, found, started = [verb, "--config", config, *ids], Found(verb), time.process_time()
        shutil.copytree(results, kept)
        MODES[mode](results, command, int(most), kept, found)
        found.seconds = round(time.process_time() - started, 1)
        found.messages = sorted(set(found.messages))
        print(json.dumps(asdict(found)), flush=True)
        fill(results, kept)
        shutil.rmtree(kept)
        status, said = run(command)
        assert status == 0, said


if __name__ == "__main__":
    main(*sys.argv[1:])
