"""What is wrong with a file: raised at the first problem, or collected for `acar check-data`. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from acar.errors import UserError

SHOWN = 3
"""So many places are named of each kind of problem."""
OUT_OF_RANGE = "out of range"
NO_AREA = "no area"
MALFORMED = "malformed"


@dataclass
class Finding:
    """One kind of problem of one file.

    Attributes:
        path: the file.
        kind: `OUT_OF_RANGE`, `NO_AREA` or `MALFORMED`.
        count: how many rows or entries have it.
        told: place and complaint of the first few.
    """

    path: Path
    kind: str
    count: int = 0
    told: list[str] = field(default_factory=list)


class Findings:
    """The problems of some files, by file and kind, in the order in which they were met."""

    def __init__(self) -> None:
        self._found: dict[tuple[Path, str], Finding] = {}

    def add(self, path: Path, kind: str, told: Iterable[str], count: int) -> None:
        """Note `count` problems, of which `told` describes the first few."""
        finding = self._found.setdefault((path, kind), Finding(path, kind))
        finding.count += count
        finding.told += list(told)[: SHOWN - len(finding.told)]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def of(self, path: Path) -> bool:
        """Whether there is any problem of a file."""
        return any(known == path for known, _ in self._found)

    def count(self, kind: str) -> int:
        """Problems of a kind, over all files."""
        return sum(finding.count for finding in self._found.values() if finding.kind == kind)


def complain(
    path: Path, place: str, complaint: str, found: Findings | None, kind: str = MALFORMED, count: int = 1
) -> None:
    """Note a problem at a place of a file.

    Raises:
        UserError: `found` is None, so that the first problem ends the reading.
    """
    if found is None:
        raise UserError(f"{path}, {place}: {complaint}")
    found.add(path, kind, [f"{place}: {complaint}"], count)
