"""A survey (`acar.origins.status`) as text for people, or as JSON values for machines."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from acar.origins.record import Artefact, code_version
from acar.origins.status import RUNNING, STALE, UNFINISHED, UNKNOWN, Status, Survey, group_of

DIGITS = 7
MOST_REASONS = 3


def as_text(survey: Survey, *, every: bool = False, width: int = 120) -> str:
    """A table with a row an artefact, below the sums and who is at work.

    Args:
        survey: what was found.
        every: a row for each shard; otherwise shards in equal state share one.
        width: columns of the text.
    """
    rows = [[row] for row in survey.rows] if every else _shards_together(survey.rows)
    names = [_name([row.artefact for row in group]) for group in rows]
    name_width = max(len(name) for name in names)
    code_width = max(len("code"), *(len(row.code) for row in survey.rows))
    head = f"{'artefact':{name_width}}  {'state':10}  {'code':{code_width}}  "
    lines = [*_summary(survey), "", head + "made from (digests)"]
    for name, group in zip(names, rows, strict=True):
        first, texts = group[0], _made_from(group)
        start = f"{name:{name_width}}  {first.state:10}  {first.code:{code_width}}  "
        lines += _wrapped(texts, start, " " * len(start), width)
        lines += [f"{'':{name_width}}  {text}" for text in _reasons(first)]
    if any(row.state == UNKNOWN for row in survey.rows):
        lines += ["", "unknown: has no origin.json; an earlier version made it, or something else did"]
    return "\n".join(lines)


def as_json(survey: Survey) -> dict[str, Any]:
    """Everything, with whole digests."""
    return {
        "code": code_version(),
        "current": survey.is_current,
        "owners": survey.owners,
        "artefacts": [
            {
                "artefact": str(row.artefact),
                "stage": row.artefact.stage,
                "ids": row.artefact.ids,
                "state": row.state,
                "because": row.because,
                "made_from": row.made_from,
                "code": row.code or None,
            }
            for row in survey.rows
        ],
    }


def _summary(survey: Survey) -> list[str]:
    counts = Counter(row.state for row in survey.rows)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    lines = [f"{len(survey.rows)} artefacts: {states}; the code is {code_version()} now"]
    if survey.owners:
        lines.append("at work: " + ", ".join(f"{job} ({who})" for job, who in survey.owners.items()))
    return lines


def _shards_together(rows: Iterable[Status]) -> list[list[Status]]:
    """Neighbouring shards of equal state, for equal reasons, by equal code."""

    def alike(row: Status) -> tuple[Any, ...]:
        return row.artefact.stage, group_of(row.artefact), row.state, row.because, row.code

    return [list(group) for _, group in groupby(rows, key=alike)]


def _name(artefacts: Sequence[Artefact]) -> str:
    first, last = artefacts[0], artefacts[-1]
    return str(first) if first == last else f"{first}..{last.shard:03d}"


def _made_from(group: Sequence[Status]) -> list[str]:
    """`boxes 1a2b3c4` for each input, with the number of digests where the shards differ."""
    texts = []
    for name in group[0].made_from:
        digests = {row.made_from.get(name) for row in group}
        digest = next(iter(digests))
        one = digest[:DIGITS] if digest else "absent"
        texts.append(f"{name} {one}" if len(digests) == 1 else f"{name} ({len(digests)} digests)")
    return texts


def _reasons(row: Status) -> list[str]:
    shown = row.because[:MOST_REASONS]
    left = len(row.because) - len(shown)
    more = [f"and {left} more (--json names all)"] if left else []
    begins = {STALE: "because ", RUNNING: "", UNFINISHED: ""}.get(row.state, "")
    return [f"{begins}{text}" for text in shown] + more


def _wrapped(texts: Sequence[str], start: str, indent: str, width: int) -> list[str]:
    # Blanks inside a text must not be broken at.
    whole = ", ".join(text.replace(" ", "\0") for text in texts)
    lines = textwrap.wrap(
        whole, max(width, len(start) + 30), initial_indent=start, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\0", " ").rstrip() for line in lines] or [start.rstrip()]
