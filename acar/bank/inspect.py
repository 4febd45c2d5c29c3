"""What is in a bank, or in one shard of it, as text for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acar.bank.layout import FACTS, MANIFEST
from acar.bank.manifest import read_manifest
from acar.bank.scan import run_all, scan_file
from acar.bank.seal import Shard, describe_grid, describe_shard, load_shard
from acar.errors import UserError


def describe(folder: str | Path) -> str:
    """Rows, bytes, grids, fill and provenance of a sealed bank (by its manifest) or one shard (read whole).

    Raises:
        UserError: the folder is neither, or the bank is not the one that was sealed; names what is there.
    """
    folder = Path(folder)
    try:
        if (folder / FACTS).is_file():
            return _describe_one_shard(folder)
        if (folder / MANIFEST).is_file():
            return _describe_sealed(folder, read_manifest(folder))
    except (KeyError, TypeError, AttributeError) as error:
        name = FACTS if (folder / FACTS).is_file() else MANIFEST
        raise UserError(
            f"{folder / name}: not of a bank that this program wrote ({type(error).__name__}: {error}); rerun "
            "extract_bank and seal_bank"
        ) from None
    found = sorted(path.parent.name for path in folder.glob(f"shard-*/{FACTS}"))
    if found:
        raise UserError(
            f"{folder}: not sealed yet; finished shards: {', '.join(found)}. Inspect one of them, or run "
            "`acar seal-bank` for this split first"
        )
    raise UserError(
        f"{folder}: neither a bank ({MANIFEST}) nor a shard of one ({FACTS}); pass results/bank/SPLIT"
    )


def _describe_sealed(folder: Path, manifest: Mapping[str, Any]) -> str:
    lines = [
        f"{folder}: sealed bank of split {manifest['split']}",
        *_totals(manifest),
        *_grid_table(manifest["grids"]),
        "",
        f"{'shard':<12}{'rows':>10}{'MiB':>10}{'videos':>8}  facts digest   boxes digest",
    ]
    for shard in manifest["shards"]:
        lines.append(
            f"{shard['name']:<12}{shard['rows']:>10}{_mib(shard['bytes']):>10}{shard['videos']:>8}"
            f"  {shard['digest'][:12]}   {shard['boxes_sha256'][:12]}"
        )
    return "\n".join([*lines, "", *_origin(manifest["provenance"]), *_layout(manifest["layout"])])


def _describe_one_shard(folder: Path) -> str:
    try:
        number = int(folder.resolve().name.rpartition("-")[2])
        shard = load_shard(folder, number)
    except UserError as error:
        raise UserError(f"{folder}: {error}; rerun extract_bank for this shard") from None
    except ValueError:
        raise UserError(f"{folder}: expected a folder named shard-NNN") from None
    entry, origin = describe_shard(shard), shard.facts["origin"]
    empty = int((shard.seconds["actors"] == 0).sum())
    totals = entry | {
        "d": shard.facts["d"],
        "c": shard.facts.get("c", 0),
        "seconds": len(shard.seconds),
        "empty_seconds": empty,
    }
    lines = [
        f"{folder}: shard {origin['shard']} of split {origin['split']} (on its own; a sealed bank has all)",
        *_totals(totals),
        *_grid_table(_grids_of(shard)),
    ]
    return "\n".join([*lines, "", *_origin(origin), *_layout(shard.facts["layout"])])


def _grids_of(shard: Shard) -> dict[str, dict[str, Any]]:
    """As the manifest's `grids`, of one shard; reads every map."""
    files = shard.facts["files"]
    tasks = [
        (scan_file, (shard.folder, name, entry, shard.facts["shard_rows"])) for name, entry in files.items()
    ]
    scans = run_all(tasks, "inspect_bank")
    damaged = [scan.problem for scan in scans if scan.problem]
    if damaged:
        raise UserError(f"{shard.folder}: {'; '.join(damaged)}; rerun extract_bank for shard {shard.number}")
    return {grid: describe_grid(grid, [shard], scans) for grid in shard.facts["rows"]}


def _totals(found: Mapping[str, Any]) -> list[str]:
    per_second = found["rows"] / found["seconds"] if found["seconds"] else 0.0
    return [
        f"rows      {found['rows']} {_contents(found)}, float16",
        f"size      {_mib(found['bytes'])} MiB",
        f"videos    {found['videos']}",
        f"seconds   {found['seconds']}, {found['empty_seconds']} with no row; {per_second:.2f} rows a second",
        "",
    ]


def _contents(found: Mapping[str, Any]) -> str:
    parts = [f"maps of d = {found['d']}"] if found["d"] else []
    parts += [f"actor features of c = {found['c']}"] if found.get("c") else []
    return " and ".join(parts)


def _grid_table(grids: Mapping[str, Mapping[str, Any]]) -> list[str]:
    heads = f"{'rows':>10}{'MiB':>10}{'videos':>8}{'nonzero':>10}{'mean':>11}{'min':>11}{'max':>11}"
    lines = [f"{'grid HxW':<12}{heads}"]
    for grid, entry in grids.items():
        fill = entry["fill"]
        values = [fill[name] for name in ("nonzero_fraction", "mean", "min", "max")]
        shown = ["-" if value is None else f"{value:.4g}" for value in values]
        lines.append(
            f"{grid:<12}{entry['rows']:>10}{_mib(entry['bytes']):>10}{entry['videos']:>8}"
            f"{shown[0]:>10}{shown[1]:>11}{shown[2]:>11}{shown[3]:>11}"
        )
    return lines


def _origin(origin: Mapping[str, Any]) -> list[str]:
    return ["comes from", *(f"  {key:<16}{value}" for key, value in sorted(origin.items()))]


def _layout(layout: Mapping[str, Any]) -> list[str]:
    return ["stored with", *(f"  {key:<16}{value}" for key, value in sorted(layout.items()))]


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f}"
