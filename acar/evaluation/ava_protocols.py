"""The ways in which published code scores the same AVA files differently (docs/evaluation.md tells why)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from acar.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """What an evaluator does where evaluators differ.

    Attributes:
        name: as `--protocol` takes it.
        rows_per_image: so many best-scored rows of an image count; None: all.
        unannotated_images: detections on images without ground truth are false positives; otherwise they are
            ignored.
        any_row_annotates: an image has ground truth if any row of the file names it; otherwise only if a row
            with a class of the label map does.
        single_precision: boxes and scores are rounded to float32, and degenerate detections stay as false
            positives (inverted ones are refused, as that evaluator stops at them).
        counts_excluded: ground truth at excluded images still counts among the positives.
        needs_rows: a class without a single row on the evaluated images is undefined, not 0.
    """

    name: str
    rows_per_image: int | None = 50
    unannotated_images: bool = True
    any_row_annotates: bool = True
    single_precision: bool = False
    counts_excluded: bool = False
    needs_rows: bool = False

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Boxes or scores in the evaluator's precision: float32 or float64, of the same shape."""
        return values.astype(np.float32 if self.single_precision else np.float64, copy=False)


RELEASED = Protocol("released")
"""The evaluator that comes with the authors' code (ACAR-Net d684203, calc_mAP.py)."""

ACTIVITYNET = Protocol("activitynet", unannotated_images=False)
"""ActivityNet's present script (82304fa, get_ava_performance.py); exclusions are taken out beforehand."""

MMACTION2 = Protocol(
    "mmaction2",
    rows_per_image=None,
    unannotated_images=False,
    any_row_annotates=False,
    single_precision=True,
    counts_excluded=True,
    needs_rows=True,
)
"""mmaction2's (1.x, mmaction/evaluation/functional/ava_utils.py), frames without ground truth ignored."""

PROTOCOLS = {protocol.name: protocol for protocol in (RELEASED, ACTIVITYNET, MMACTION2)}


def protocol_named(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        UserError: there is none.
    """
    if name not in PROTOCOLS:
        raise UserError(f"protocol {name!r} is not known; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
