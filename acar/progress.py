"""Progress with an ETA: a bar on a terminal, a plain line every few seconds elsewhere.

Plain lines come at most every 10 s, and at the end. The environment variable `ACAR_PROGRESS_EVERY_S` sets
another number of seconds; 0 prints a line at every update, for whoever follows a log by program.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from acar.errors import UserError

Item = TypeVar("Item")
LINE_EVERY_S = 10.0
EVERY_VARIABLE = "ACAR_PROGRESS_EVERY_S"


class Progress(Generic[Item]):
    """Count up to `total`; iterate over it, or call `update` by hand and `close` at the end.

    Raises:
        UserError: `ACAR_PROGRESS_EVERY_S` is not a number of seconds.
    """

    def __init__(self, items: Iterable[Item] | None, *, total: int, desc: str, unit: str = "it") -> None:
        self.items, self.total, self.desc, self.unit = items, total, desc, unit
        self.done, self.note = 0, ""
        self.every_s = _line_every_s()
        self.started = self.last_line = time.monotonic()
        self.first = 0
        self.bar: Any = tqdm(total=total, desc=desc, unit=unit) if sys.stderr.isatty() else None

    def resume_at(self, done: int, where: str | None = None) -> None:
        """Start counting from work that an earlier run has done, and say so; nothing at 0.

        Args:
            done: how much of `total`.
            where: for the line, e.g. "at iteration 200 of 320"; by default "after 3 of 8 videos".
        """
        if not done and where is None:
            return
        self.done = self.first = done
        line = f"{self.desc}: going on {where or f'after {done} of {self.total} {self.unit}'}"
        if self.bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self.bar.write(line, file=sys.stderr)
            self.bar.initial = self.bar.n = done  # of tqdm's rate, too
            self.bar.refresh()

    def update(self, n: int = 1, note: str = "") -> None:
        """Count `n` more; `note` is shown behind the figures."""
        self.done, self.note = self.done + n, note or self.note
        if self.bar is not None:
            self.bar.update(n)
            if note:
                self.bar.set_postfix_str(note)
            return
        now = time.monotonic()
        if now - self.last_line >= self.every_s or self.done >= self.total:
            self.last_line = now
            self._line(now)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()

    def __iter__(self) -> Iterator[Item]:
        assert self.items is not None
        for item in self.items:
            yield item
            self.update()
        self.close()

    def _line(self, now: float) -> None:
        spent = now - self.started
        rate = (self.done - self.first) / spent if spent > 0 else 0.0
        left = f"{(self.total - self.done) / rate:.0f} s left" if rate > 0 else "?"
        tail = f", {self.note}" if self.note else ""
        print(f"{self.desc}: {self.done}/{self.total} {self.unit}, {left}{tail}", file=sys.stderr, flush=True)


def progress(
    items: Iterable[Item] | None = None, *, total: int, desc: str, unit: str = "it"
) -> Progress[Item]:
    """A `Progress`; see there."""
    return Progress(items, total=total, desc=desc, unit=unit)


def _line_every_s() -> float:
    text = os.environ.get(EVERY_VARIABLE, "").strip()
    if not text:
        return LINE_EVERY_S
    try:
        every_s = float(text)
    except ValueError:
        every_s = -1.0
    if not 0.0 <= every_s < float("inf"):
        raise UserError(f"{EVERY_VARIABLE}={text}: expected seconds between progress lines, 0 or more")
    return every_s
