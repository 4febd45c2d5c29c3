"""`acar export-weights`: our safetensors to a file that ACAR-Net's own code loads."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from acar.errors import UserError
from acar.files import write_bytes_atomic
from acar.weights.containers import opened
from acar.weights.names import is_whole, to_acar_net
from acar.weights.recognise import recognise

LAYOUTS = ("released", "checkpoint")
MOST_LISTED = 6


def export_weights(
    source: str | Path, target: str | Path, *, layout: str = "released", part: str = "all"
) -> int:
    """Write weights in ACAR-Net's layout, in torch's old form, which every torch reads.

    Args:
        source: our safetensors (or any file that `import_weights` reads) of a network or a backbone.
        target: the file to write, e.g. `ours.pth.tar`, atomically.
        layout: `released`: a flat dictionary, as `model_zoo/*.pth.tar` (a network, names with `module.`) and
            `pretrained/*.pth.tar` (a backbone, bare names) are loaded; `checkpoint`: beside an epoch under
            `state_dict`, as its training saves and `resume_path` reads.
        part: `all`, or `backbone` to write only that of a network.

    Returns:
        How many weights were written.

    Raises:
        UserError: ACAR-Net has no such weights (group norm, other relation operators, non-local blocks).
    """
    source, target = Path(source), Path(target)
    if target.is_dir():
        raise UserError(f"{target}: a folder; expected the name of a file to write")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{target}: would overwrite the file that is read; give another name")
    with opened(source) as content:
        found = recognise(content, source)
        if found.layout not in ("acar", "ACAR-Net"):
            raise UserError(f"{source}: {found.layout}; run `acar import-weights` on it first")
        whole = is_whole(found.weights)
        ours = found.weights
        if whole and part == "backbone":
            ours = {n.removeprefix("backbone."): v for n, v in ours.items() if n.startswith("backbone.")}
            whole = False
        named = {name: to_acar_net(name, whole=whole) for name in ours}
        unknown = [name for name, theirs in named.items() if theirs is None]
        if unknown:
            few = ", ".join(unknown[:MOST_LISTED]) + (", ..." if len(unknown) > MOST_LISTED else "")
            raise UserError(
                f"{source}: ACAR-Net's networks have no place for {len(unknown)} of its weights ({few}); only "
                "networks built as released (batch norm, HR2O of table 1) can go back"
            )
        state: OrderedDict[str, Any] = OrderedDict(
            (theirs, ours[name].tensor().clone()) for name, theirs in named.items() if theirs is not None
        )
    saved: Any = state
    if layout == "checkpoint":
        prefixed = OrderedDict((k if whole else f"module.{k}", v) for k, v in state.items())
        saved = {"epoch": 0, "state_dict": prefixed}
    buffer = io.BytesIO()  # torch's own writer hides why a write failed
    torch.save(saved, buffer, _use_new_zipfile_serialization=False)
    write_bytes_atomic(target, buffer.getbuffer())
    return len(state)
