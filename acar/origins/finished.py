"""Jobs that finished after their Snakemake was killed: what they made is taken up, not made again.

Snakemake deletes the outputs of a job whose end it did not see before it runs the job again. Artefacts appear
whole or not at all, so one that is there is finished: it is set aside before, and put back by the job itself.
"""

from __future__ import annotations

import base64
import binascii
import shutil
import sys
from pathlib import Path
from typing import Any

from acar.config import Config
from acar.files import replace_folder
from acar.origins.record import Artefact, artefacts, origin_of, read_origin
from acar.paths import Paths

INCOMPLETE = Path(".snakemake/incomplete")
"""Where Snakemake keeps one file an output of a running job, named by the output's path in base 64."""


def set_aside_finished(config: Config, folder: Path = Path()) -> list[Artefact]:
    """Move the finished artefacts whose jobs Snakemake takes for broken off below `work/finished`.

    Args:
        config: the merged config.
        folder: Snakemake's working folder. Nobody may be at work on the results: `own_run` has proved it.

    Returns:
        Those that were moved.
    """
    paths, marked = Paths.of(config), _marked(folder / INCOMPLETE)
    moved = []
    for artefact in artefacts(config):
        declared = artefact.declared(paths)
        if str(declared) in marked and (folder / declared).is_dir() and read_origin(folder / declared):
            replace_folder(folder / declared, folder / _aside(paths, artefact))
            moved.append(artefact)
    return moved


def take_up_finished(config: Config, stage: str, ids: dict[str, Any]) -> bool:
    """Put back what a job of the same origin has finished; True if there was such a thing.

    Anything else that was set aside is removed.
    """
    paths, artefact = Paths.of(config), Artefact(stage, **ids)
    aside = _aside(paths, artefact)
    if not aside.is_dir():
        return False
    found = {key: value for key, value in (read_origin(aside) or {}).items() if key != "contents"}
    if found != origin_of(config, stage, **ids):
        shutil.rmtree(aside)
        return False
    replace_folder(aside, artefact.folder(paths))
    print(f"{artefact}: was finished when its run was killed; taken up as it is", file=sys.stderr, flush=True)
    return True


def _aside(paths: Paths, artefact: Artefact) -> Path:
    return paths.work("finished") / artefact.job


def _marked(incomplete: Path) -> set[str]:
    """The outputs that Snakemake takes for incomplete. A long name is cut into folders that begin with `@`."""
    found = set()
    for file in incomplete.rglob("*"):
        name = "".join(part.removeprefix("@") for part in file.relative_to(incomplete).parts)
        if file.is_file():
            try:
                found.add(base64.urlsafe_b64decode(name).decode("utf-8"))
            except (binascii.Error, UnicodeDecodeError):
                continue  # a file of another kind
    return found
