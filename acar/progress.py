"""Progress with an ETA: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LINE_EVERY_S = 10.0


class Progress(Generic[Item]):
    """Count up to `total`; iterate over it, or call `update` by hand and `close` at the end."""

    def __init__(self, items: Iterable[Item] | None, *, total: int, desc: str, unit: str = "it") -> None:
        self.items, self.total, self.desc, self.unit = items, total, desc, unit
        self.done, self.note = 0, ""
        self.started = self.last_line = time.monotonic()
        self.first = 0
        self.bar: Any = tqdm(total=total, desc=desc, unit=unit) if sys.stderr.isatty() else None

    def resume_at(self, done: int) -> None:
        """Start counting from work that an earlier run has done."""
        self.done = self.first = done
        if self.bar is not None:
            self.bar.update(done)

    def update(self, n: int = 1, note: str = "") -> None:
        """Count `n` more; `note` is shown behind the figures."""
        self.done, self.note = self.done + n, note or self.note
        if self.bar is not None:
            self.bar.update(n)
            if note:
                self.bar.set_postfix_str(note)
            return
        now = time.monotonic()
        if now - self.last_line >= LINE_EVERY_S or self.done >= self.total:
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
