"""A sealed bank's manifest: read it with its checks, compare it with what a network needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from acar.bank.layout import ACTOR, FACTS, FORMAT, INDEX, MANIFEST, RELATION, grid_name
from acar.config import HeadConfig
from acar.errors import UserError
from acar.files import sha256_of

MANIFEST_KEYS = ["split", "d", "rows", "bytes", "videos", "seconds", "empty_seconds", "grids", "layout",
                 "provenance"]  # fmt: skip


MEMORY_ROWS = {"acfb": RELATION, "lfb": ACTOR}  # the array that each `model.head.memory` reads


def channels_read(head: HeadConfig) -> tuple[int, int]:
    """Channels d of the maps and c of the actor features that a head reads of a bank; 0: it reads none."""
    return (head.hidden_channels, 0) if head.memory == "acfb" else (0, head.reduce_channels)


def read_manifest(bank_folder: Path) -> dict[str, Any]:
    """The manifest of a sealed bank whose index and shards are the ones that were sealed.

    Raises:
        UserError: there is none, or the index or a shard is another one.
    """
    path = bank_folder / MANIFEST
    remedy = "run `acar seal-bank` for this split (rule seal_bank)"
    if not path.is_file():
        raise UserError(f"{bank_folder}: not a sealed bank (no {MANIFEST}); {remedy}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
        digests = {Path(INDEX): manifest["index_sha256"]}
        digests |= {Path(shard["name"]) / FACTS: shard["digest"] for shard in manifest["shards"]}
    except (ValueError, KeyError, TypeError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: cannot be read as a bank's manifest: {what}; {remedy}") from None
    if found != FORMAT:
        raise UserError(f"{path}: bank format {found}, this version of acar reads {FORMAT}; {remedy}")
    absent = [key for key in MANIFEST_KEYS if key not in manifest]
    if absent:
        raise UserError(f"{path}: has no {', '.join(absent)}, so it is not a bank's manifest; {remedy}")
    for relative, digest in digests.items():
        if not (bank_folder / relative).is_file() or sha256_of(bank_folder / relative) != digest:
            raise UserError(f"{bank_folder / relative}: missing or not the one that was sealed; {remedy}")
    return manifest


def check_compatible(
    manifest: Mapping[str, Any],
    *,
    d: int = 0,
    c: int = 0,
    split: str,
    grids: Iterable[tuple[int, int]] | None = None,
    weights_sha256: str | None = None,
) -> None:
    """Refuse a bank that does not fit the network, the videos, the split or the weights given.

    Args:
        manifest: of the bank.
        d: channels of the network's maps; 0: it reads none of the bank.
        c: channels of its actor features; 0: it reads none of the bank.
        split: the split that the bank must be of.
        grids: (H, W) that the bank must have, or None.
        weights_sha256: digest of the stage-1 weights that the bank must come from, or None.

    Raises:
        UserError: naming every difference.
    """
    source = manifest["provenance"]["weights_sha256"]
    wrong = []
    if manifest["split"] != split:
        wrong.append(f"is of split {manifest['split']!r}, expected {split!r}")
    if d and manifest["d"] != d:
        wrong.append(f"holds maps of d = {manifest['d']}, model.head.hidden_channels is {d}")
    if c and manifest.get("c", 0) != c:
        held = manifest.get("c", 0)
        wrong.append(
            f"holds {f'actor features of {held} channels' if held else 'no actor features (bank.rows)'}, "
            f"model.head.memory: lfb with reduce_channels {c} reads them"
        )
    missing = sorted({grid_name(*grid) for grid in grids or ()} - set(manifest["grids"]))
    if missing:
        wrong.append(f"has grids {', '.join(manifest['grids'])}, not {', '.join(missing)}")
    if weights_sha256 is not None and source != weights_sha256:
        wrong.append(f"comes from stage-1 weights {source[:12]}, expected {weights_sha256[:12]}")
    if wrong:
        raise UserError(
            f"the bank of split {manifest['split']!r} "
            + "; it ".join(wrong)
            + "; rerun extract_bank and seal_bank"
        )


def check_same_source(train_manifest: Mapping[str, Any], val_manifest: Mapping[str, Any]) -> None:
    """Refuse train and val banks of different stage-1 weights or settings: their maps do not mean the same.

    Raises:
        UserError: naming every difference.
    """
    ours, theirs = train_manifest["provenance"], val_manifest["provenance"]
    wrong = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    wrong += [k for k in ("d", "c") if train_manifest.get(k, 0) != val_manifest.get(k, 0)]
    if wrong:
        raise UserError(
            f"the train and val banks differ in {', '.join(wrong)}; expected the same stage-1 weights and "
            "settings; rerun extract_bank and seal_bank for both splits"
        )
