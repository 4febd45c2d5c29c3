"""Compare ways of doing the same: interleaved rounds in one process, peak memory in a fresh process each.

A shared machine's speed drifts by a quarter within minutes, so times of separate runs say little. Here every round
runs each variant once, in turning order, and what is reported is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], object]
MIB = 2**20


@dataclass(frozen=True)
class Ratio:
    """How many times as long one variant takes as another: median over rounds, least and most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Run with `n` threads of torch, then as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleave(variants: Mapping[str, Work], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of each variant in each round; the order turns, so that none always runs first."""
    spent: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(warm_up):
        for work in variants.values():
            work()
    order = list(variants)
    for _ in range(rounds):
        for name in order:
            start = time.perf_counter()
            variants[name]()
            spent[name].append(time.perf_counter() - start)
        order.append(order.pop(0))
    return spent


def ratio(times: Sequence[float], base: Sequence[float]) -> Ratio:
    """`times` over `base`, round by round."""
    each = [a / b for a, b in zip(times, base, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


def plain_and_ours(
    spent: Mapping[str, Sequence[float]], allowed: float, peak: Mapping[str, float]
) -> dict[str, object]:
    """Columns of a table that holds `ours` against `plain`: their seconds, peaks, ratio, and share of the allowed."""
    gain = ratio(spent["plain"], spent["ours"])
    return {
        "plain, s": statistics.median(spent["plain"]),
        "ours, s": statistics.median(spent["ours"]),
        "plain / ours": gain,
        "allowed by count": allowed,
        "share reached": f"{gain.median / allowed:.0%}",
        "plain peak, MiB": peak["plain"],
        "ours peak, MiB": peak["ours"],
    }


def peak_mib(prepare: Callable[..., Work], *arguments: Any, n_threads: int = 1, repeats: int = 2) -> float:
    """Memory that work adds at its peak, MiB: in a fresh process, less what it holds after `prepare(*arguments)`.

    `prepare` builds modules and inputs and returns the work; it must be a module's function, its arguments picklable.
    The work runs `repeats` times (gradients are there from the second on). Linux only.

    Raises:
        concurrent.futures.process.BrokenProcessPool: the process died, for instance for lack of memory.
    """
    # Freed tensors go back to the system at once; glibc's default keeps some, now more, now fewer.
    with _environment("MALLOC_MMAP_THRESHOLD_", str(64 * 1024)), fresh_process() as pool:
        return pool.submit(_added_at_peak, prepare, arguments, n_threads, repeats).result()


def fresh_process() -> ProcessPoolExecutor:
    """A pool of one process that shares nothing with this one."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _added_at_peak(
    prepare: Callable[..., Work], arguments: tuple[Any, ...], n_threads: int, repeats: int
) -> float:
    torch.set_num_threads(n_threads)
    work = prepare(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from what is held now
    held = _memory_mib("VmRSS")
    for _ in range(repeats):
        work()
    return _memory_mib("VmHWM") - held


def _memory_mib(field: str) -> float:
    # Not getrusage: its maximum survives exec, so a child of a large process would report its parent's.
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """A Markdown table of rows with the same keys; floats to three significant digits."""
    print("| " + " | ".join(rows[0]) + " |")
    print("| " + " | ".join("---" for _ in rows[0]) + " |")
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row.values()) + " |")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def save_json(path: Path | None, command: Sequence[str], tables: Mapping[str, object]) -> None:
    """Write the tables with the command and the machine's facts, if a path is given."""
    if path is None:
        return
    facts = {
        "command": list(command),
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }
    path.write_text(json.dumps(facts | dict(tables), indent=1, default=vars) + "\n")
