"""Config files merged as `snakemake --configfile` merges them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from acar.config import Config, parse_config
from acar.errors import UserError


def merged_config(paths: Sequence[Path]) -> Config:
    """The typed config of some files, the later one winning, key by key.

    Raises:
        UserError: a file cannot be read as a config, or the result does not fit the typed config.
    """
    # Snakemake's own reading and merging, so that both always agree; imported here since it takes a second.
    from snakemake.common.configfile import load_configfile
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import update_config

    merged: dict[str, Any] = {}
    for path in paths:
        try:
            update_config(merged, load_configfile(path))
        except (OSError, ValueError, WorkflowError) as error:  # ValueError: bytes that are not UTF-8
            raise UserError(f"{path}: cannot be read as a config: {error}") from None
    return parse_config(merged, source=" + ".join(map(str, paths)))
