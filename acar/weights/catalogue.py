"""Publicly hosted weights by name, and where fetched ones lie. Imports no torch.

The addresses are those of the model zoos of PySlowFast and PyTorchVideo. Neither publishes sizes or digests of
these files, so none is claimed; whoever knows one passes it to `acar fetch-weights --sha256`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from acar.errors import UserError

CACHE_VARIABLE = "ACAR_WEIGHTS"
_HOST = "https://dl.fbaipublicfiles.com"
_SLOWFAST = f"{_HOST}/pyslowfast/model_zoo"
_MULTIGRID = f"{_HOST}/pyslowfast/pyslowfast/model_zoo/multigrid/model_zoo"
_VIDEO = f"{_HOST}/pytorchvideo/model_zoo/kinetics"


@dataclass(frozen=True)
class Hosted:
    """A file on the web.

    Attributes:
        url: its address.
        what: network and training data, for people.
        size: bytes, if published.
        sha256: hex digest, if published.
    """

    url: str
    what: str
    size: int | None = None
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of its address."""
        return self.url.split("?")[0].rstrip("/").rsplit("/", 1)[-1]


CATALOGUE: dict[str, Hosted] = {
    "slowfast_r50_4x16_k400": Hosted(
        f"{_SLOWFAST}/kinetics400/SLOWFAST_4x16_R50.pkl", "SlowFast R50 4x16, Kinetics-400"
    ),
    "slowfast_r50_8x8_k400": Hosted(
        f"{_SLOWFAST}/kinetics400/SLOWFAST_8x8_R50.pkl", "SlowFast R50 8x8, Kinetics-400"
    ),
    "slowfast_r50_8x8_k400_stepwise": Hosted(
        f"{_MULTIGRID}/Kinetics/SLOWFAST_8x8_R50_stepwise.pkl",
        "SlowFast R50 8x8, Kinetics-400, step schedule",
    ),
    "slowfast_r50_8x8_k400_multigrid": Hosted(
        f"{_MULTIGRID}/Kinetics/SLOWFAST_8x8_R50_stepwise_multigrid.pkl",
        "SlowFast R50 8x8, Kinetics-400, multigrid training",
    ),
    "slowfast_r50_8x8_k400_video": Hosted(
        f"{_VIDEO}/SLOWFAST_8x8_R50.pyth", "SlowFast R50 8x8, Kinetics-400, by PyTorchVideo"
    ),
    "slowfast_r101_8x8_k400_video": Hosted(
        f"{_VIDEO}/SLOWFAST_8x8_R101.pyth", "SlowFast R101 8x8, Kinetics-400, by PyTorchVideo"
    ),
    "slowfast_r101_16x8_50_50_k400_video": Hosted(
        f"{_VIDEO}/SLOWFAST_16x8_R101_50_50.pyth", "SlowFast R101 16x8 50_50, Kinetics-400, by PyTorchVideo"
    ),
    **{
        f"slowfast_r101_{clip}_50_50_{short}": Hosted(
            f"{_SLOWFAST}/ava/{folder}SLOWFAST_{clip}_R101_50_50{version}.pkl",
            f"SlowFast R101 {clip} 50_50 with non-local blocks, {data}",
        )
        for clip, version, ava in (("32x2", "", "22"), ("32x2", "_v2.1", "21"), ("64x2", "", "22"))
        for folder, short, data in (
            ("pretrain/", "k600" + ("_v21" if ava == "21" else ""), "Kinetics-600"),
            ("", f"ava{ava}", f"AVA v2.{ava[1]}"),
        )
    },
}


def cache_folder() -> Path:
    """Where fetched weights lie: `$ACAR_WEIGHTS`, else `~/.cache/acar`."""
    named = os.environ.get(CACHE_VARIABLE, "").strip()
    return Path(named).expanduser() if named else Path.home() / ".cache" / "acar"


def weights_path(weights: str) -> Path:
    """The file that `model.backbone.weights` or `stage1.weights` means: a name of the catalogue, or a path."""
    return cache_folder() / f"{weights}.safetensors" if weights in CATALOGUE else Path(weights)


def check_fetched(weights: str | None, key: str = "model.backbone.weights") -> None:
    """Refuse a name whose file is not there, before anything else is done; `key` is the config's.

    Raises:
        UserError: a name of the catalogue that is not fetched yet, or a name that it does not have.
    """
    if weights is None or weights_path(weights).exists():
        return
    if weights in CATALOGUE:
        raise UserError(
            f"{key}: {weights} is not in {cache_folder()}; run `acar fetch-weights {weights}` "
            f"where there is a network, or set {CACHE_VARIABLE} to the folder that holds it"
        )
    if "/" not in weights and not Path(weights).suffix:
        raise UserError(f"{key}: {weights}: no such file, and {unknown_name(weights)}")


def unknown_name(name: str) -> str:
    """What to say of a name that the catalogue does not have."""
    near = difflib.get_close_matches(name.lower(), CATALOGUE, n=1)
    hint = f"did you mean {near[0]}?" if near else "`acar fetch-weights --list` shows them"
    return f"no weights of this name are hosted; {hint}"
