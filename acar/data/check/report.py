"""`acar check-data`'s page of text. Never imports torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acar.data.check.facts import SplitFacts, Survey
from acar.data.class_groups import POSE

INDENT = "  "
MOST_ACTORS = 10  # a key frame, each with a line of its own


def as_text(survey: Survey) -> str:
    """The facts of both splits side by side, the classes, the histogram, then all problems and the verdict."""
    parts: list[str] = []
    if survey.splits:
        parts += [_facts(survey), _groups(survey), _classes(survey), _histogram(survey.splits)]
    stops = [problem.text for problem in survey.problems if problem.stops]
    warnings = [problem.text for problem in survey.problems if not problem.stops]
    for title, texts in (("a run would stop at", stops), ("warnings", warnings)):
        if texts:
            parts.append("\n".join([title, *map(_item, texts)]))
    told = f"{len(warnings)} warning(s)"
    verdict = f"a run would stop: {len(stops)} problem(s), {told}" if stops else f"a run would work; {told}"
    return "\n\n".join([part for part in parts if part] + [verdict])


def _item(text: str) -> str:
    """A problem with its further lines below it."""
    return f"{INDENT}- " + text.replace("\n", f"\n{INDENT * 3}")


def _facts(survey: Survey) -> str:
    lines: list[tuple[str, Callable[[SplitFacts], object]]] = [
        ("labelled videos", lambda s: len(s.videos())),
        ("  without a source", lambda s: len(s.missing)),
        ("  unreadable", lambda s: len(s.unreadable)),
        ("seconds of video", lambda s: None if s.seconds is None else f"{s.seconds:.1f}"),
        ("key frames", lambda s: _count(s, lambda: len(s.key_frames()))),
        ("  at fractions of a second", lambda s: s.fractional),
        ("  excluded, labelled", lambda s: s.excluded_labelled),
        ("key frames without persons", lambda s: _count(s, s.without_persons)),
        ("boxes", lambda s: _count(s, lambda: len(s.persons()))),
        ("label rows", lambda s: _count(s, lambda: len(s.labels))),  # type: ignore[arg-type]
        ("  outside of data.span_s", lambda s: s.unused_rows),
        ("  box out of range", lambda s: s.out_of_range),
        ("  box without area", lambda s: s.no_area),
        ("  repeated", lambda s: s.duplicates),
        ("  otherwise malformed", lambda s: s.malformed),
        ("boxes of the box file", lambda s: s.n_boxes),
        ("  labelled key frames without", lambda s: None if s.n_boxes is None else s.boxes_without),
    ]
    rows = [(name, *(_shown(value(facts)) for facts in survey.splits)) for name, value in lines]
    rows = [row for row in rows if any(cell != "-" for cell in row[1:])]
    if survey.unread:
        unused = f"\nnot read, so not looked at: {', '.join(survey.unread)} (stage1.weights, and no stage 2)"
    else:
        unused = f"\nvideos of no split: {len(survey.unused)}"
    return _columns([("", *(facts.split for facts in survey.splits)), *rows]) + unused


def _count(facts: SplitFacts, value: Callable[[], int]) -> int | None:
    return None if facts.labels is None else value()


_GROUPS_FROM = {
    "config": "of data.class_groups",
    "label map": "of the label map",
    "AVA's": "AVA's, since the label map has its classes and no groups",
    "none": "none: neither data.class_groups nor the label map names any",
}


def _groups(survey: Survey) -> str:
    """Where the groups come from; of each its classes and its label rows."""
    if survey.label_map is None or survey.group_source is None:
        return ""
    groups = survey.label_map.groups()
    members = {f"{POSE}, exclusive": groups.get(POSE, [])}
    members |= {name: ids for name, ids in groups.items() if name != POSE}
    members["in no group"] = sorted(set(survey.label_map.ids).difference(*groups.values()))
    counts = [facts.class_counts() for facts in survey.splits]
    rows = [
        (name, str(len(ids)), *(_shown(sum(found.get(number, 0) for number in ids)) for found in counts))
        for name, ids in members.items()
    ]
    table = _columns([("rows of each group", "classes", *(facts.split for facts in survey.splits)), *rows])
    return f"groups of classes: {_GROUPS_FROM[survey.group_source]}\n{table}"


def _classes(survey: Survey) -> str:
    counts = [facts.class_counts() for facts in survey.splits]
    classes = survey.label_map.classes if survey.label_map is not None else ()
    known = {item.id for item in classes}
    rows = [
        (
            f"{item.id} {item.name}" + (f" ({item.group})" if item.group else ""),
            *(_shown(c.get(item.id, 0)) for c in counts),
        )
        for item in classes
    ]
    for number in sorted(set().union(*counts) - known):
        rows.append((f"{number} (not in the label map)", *(_shown(c.get(number, 0)) for c in counts)))
    return _columns([("rows of each class", *(facts.split for facts in survey.splits)), *rows])


def _histogram(splits: Sequence[SplitFacts]) -> str:
    found = [facts.actors_per_key_frame() for facts in splits]
    sizes = sorted(set().union(*found))
    rows = []
    for size in [size for size in sizes if size <= MOST_ACTORS]:
        rows.append((str(size), *(_shown(counts.get(size, 0)) for counts in found)))
    if sizes and sizes[-1] > MOST_ACTORS:
        beyond = [sum(n for size, n in counts.items() if size > MOST_ACTORS) for counts in found]
        rows.append((f"{MOST_ACTORS + 1} to {sizes[-1]}", *map(_shown, beyond)))
    return _columns([("key frames by persons", *(facts.split for facts in splits)), *rows])


def _shown(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    """A table: the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(max(width, 8)) for cell, width in zip(row[1:], widths[1:])),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
