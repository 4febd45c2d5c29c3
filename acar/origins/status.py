"""Which artefacts of a run are there, what they were made from, and whether that still holds (`acar status`).

An artefact is current if its `origin.json` names today's config and inputs, and if all that it is made from is
current. Code may differ: it is shown, but reruns nothing (README). Reads small files only; never imports torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from acar.bank.source import rebuilt_is_the_same
from acar.config import Config
from acar.jobs.owners import living
from acar.origins.record import (
    Artefact,
    Digests,
    Input,
    artefacts,
    config_of,
    inputs_of,
    read_origin,
)
from acar.paths import Paths
from acar.provenance import digest_of

CURRENT, STALE, MISSING, UNKNOWN = "current", "stale", "missing", "unknown"
RUNNING, UNFINISHED = "running", "unfinished"
# What is made from such an artefact cannot be current.
NOT_THERE = (STALE, MISSING, RUNNING, UNFINISHED)


@dataclass(frozen=True)
class Status:
    """One artefact's state.

    Attributes:
        state: `current`; `stale`: not what would be made now; `missing`; `unfinished`: begun, nobody at work;
            `running`; `unknown`: it has no origin.json, so another version or hand made it.
        because: what differs, for `stale`; who is at work, for `running`; how far it is, for both that begun.
        made_from: digest by input name, and of the config; None where an input was absent.
        code: version of the code that made it.
    """

    artefact: Artefact
    state: str
    because: list[str] = field(default_factory=list)
    made_from: dict[str, str | None] = field(default_factory=dict)
    code: str = ""


@dataclass(frozen=True)
class Survey:
    """All artefacts of a run in the order of the pipeline, and who is at work on it."""

    rows: list[Status]
    owners: dict[str, str]  # job (or `run`: Snakemake itself) to pid and host

    @property
    def is_current(self) -> bool:
        """Whether nothing is left to make."""
        return all(row.state == CURRENT for row in self.rows)


def survey(config: Config) -> Survey:
    """Look at every artefact that the config asks for."""
    owners = dict(_split_owner(text) for text in living(Paths.of(config).owners))
    surveyor = _Surveyor(config)
    return Survey([surveyor.look_at(a, owners.get(a.job)) for a in artefacts(config)], owners)


def _split_owner(text: str) -> tuple[str, str]:
    job, _, who = text.partition(" ")
    return job, who.strip("()")


class _Surveyor:
    """Looks at one artefact after another, what it is made from first."""

    def __init__(self, config: Config) -> None:
        self.config, self.paths = config, Paths.of(config)
        self.digests, self.states = Digests(self.paths), dict[Artefact, str]()
        self.rebuilt_is_the_same = cache(partial(rebuilt_is_the_same, config))

    def look_at(self, artefact: Artefact, owner: str | None) -> Status:
        """Its state; `owner` is who is at work on it now."""
        status = self._status(artefact, owner)
        self.states[artefact] = status.state
        return status

    def _status(self, artefact: Artefact, owner: str | None) -> Status:
        is_there = all(file.is_file() for file in artefact.main_files(self.paths))
        origin = read_origin(artefact.folder(self.paths)) if is_there else None
        progress = work_in_progress(self.config, artefact)
        if origin is None:
            begun = UNFINISHED if progress else MISSING
            state = RUNNING if owner else UNKNOWN if is_there else begun
            return Status(artefact, state, [*filter(None, [owner]), *progress])
        made_from = {**origin["inputs"], "config": digest_of(origin["config"])}
        code = str(origin.get("code", ""))
        if owner:
            return Status(artefact, RUNNING, [owner, *progress], made_from, code)
        because = [
            *_config_changes(origin["config"], config_of(self.config, artefact)),
            *self._input_changes(artefact, origin["inputs"]),
        ]
        return Status(artefact, STALE if because else CURRENT, [*because, *progress], made_from, code)

    def _input_changes(self, artefact: Artefact, then: Mapping[str, str | None]) -> list[str]:
        because, inputs = [], inputs_of(self.config, artefact)
        for given in inputs:
            if given.only_looked_at:
                continue
            now, upstream = self.digests.of(given), self._upstream(artefact, given)
            if given.name not in then:
                because.append(f"input `{given.name}` is new")
            elif now is None and not upstream:
                because.append(f"input `{given.name}` cannot be read{_where(given)}")
            elif now is not None and now != then[given.name]:
                because.append(f"input `{given.name}` is another one{_where(given)}")
            because += upstream
        gone = then.keys() - {given.name for given in inputs}
        because += [f"`{name}` is no input any more" for name in sorted(gone)]
        return list(dict.fromkeys(because))

    def _upstream(self, artefact: Artefact, given: Input) -> list[str]:
        """The artefacts of one input that are not current, summed up by group and state."""
        found: dict[tuple[str, str], list[Artefact]] = {}
        for source in given.artefacts:
            state = self.states.get(source, CURRENT)
            if state in NOT_THERE and not self._can_only_become_the_same(source, state):
                found.setdefault((group_of(source), state), []).append(source)
        return [_said(artefact, group, state, sources) for (group, state), sources in found.items()]

    def _can_only_become_the_same(self, source: Artefact, state: str) -> bool:
        # Snakemake, too, leaves what reads a bank alone while the bank is only to be rebuilt as it was.
        is_sealed = source.stage == "seal_bank" and state == STALE
        return is_sealed and self.rebuilt_is_the_same(source.config_split)


def _config_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _flat(then), _flat(now)
    # A key that was null and has parts now is told by its parts.
    gone = [key for key in old.keys() - new.keys() if not any(other.startswith(f"{key}.") for other in new)]
    return [
        f"`{key}` is {_shown(new, key)}, was {_shown(old, key)}"
        for key in [*new, *gone]
        if key not in old or key not in new or old[key] != new[key]
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        has_parts = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if has_parts else {f"{prefix}{key}": value}
    return flat


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "absent"
    text = json.dumps(values[key], ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."


def _where(given: Input) -> str:
    source = given.sources[0]
    return f": {source}" if isinstance(source, Path) else ""


def group_of(artefact: Artefact) -> str:
    """The name of all shards together, or that of the only one."""
    return str(artefact).rpartition("/")[0] if "shard" in artefact.ids else str(artefact)


def _said(of: Artefact, group: str, state: str, sources: list[Artefact]) -> str:
    if "shard" in of.ids and [source.shard for source in sources if "shard" in source.ids] == [of.shard]:
        return f"its shard of `{group}` is {state}"
    return (
        f"`{sources[0]}` is {state}"
        if len(sources) == 1
        else f"{len(sources)} shards of `{group}` are {state}"
    )


def work_in_progress(config: Config, artefact: Artefact) -> list[str]:
    """How far it is, in one sentence; nothing where none was begun."""
    folder = artefact.work(Paths.of(config))
    if folder is None or not folder.is_dir():
        return []
    checkpoint, log = folder / "checkpoint.pt", folder / "metrics.jsonl"
    said = []
    if artefact.stage in ("train_stage1", "train_stage2"):
        settings = config.stage1 if artefact.stage == "train_stage1" else config.stage2
        said.append(f"iteration {_last_iteration(log)} of {settings.iterations}")
    if artefact.stage.startswith("train"):
        said.append(_size_and_age(checkpoint) if checkpoint.is_file() else "no checkpoint yet")
    else:
        said.append(f"{_finished_videos(artefact, folder)} videos finished")
    return [f"work in progress: {', '.join(said)}"]


def _last_iteration(log: Path) -> int:
    """The last whole line's; a checkpoint itself can only be read with torch."""
    for line in reversed(_lines(log)):
        try:
            return int(json.loads(line)["iteration"])
        except (ValueError, KeyError, TypeError):
            continue  # cut off by a kill
    return 0


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def _size_and_age(file: Path) -> str:
    status = file.stat()
    minutes = max(0.0, time.time() - status.st_mtime) / 60
    return f"checkpoint of {status.st_size / 2**20:.1f} MiB, {minutes:.0f} min old"


def _finished_videos(artefact: Artefact, folder: Path) -> int:
    if artefact.stage == "extract_bank":  # the journal's first line is its head
        return max(0, len(_lines(folder / "journal.jsonl")) - 1)
    kept = folder.glob("facts/**/*.json" if artefact.stage == "ingest" else "*.parquet")
    return sum(1 for _ in kept)
