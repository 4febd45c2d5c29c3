"""The names of the annotation formats, for the command line; imports nothing."""

from __future__ import annotations

DOES = {
    "ava": "AVA label csv (v2.1, v2.2, Kinetics)",
    "fair": "csv of boxes with scores, as FAIR's for AVA",
    "mmaction2": "mmaction2 proposal pickle",
    "acar-net": "ACAR-Net annotation pickle",
    "coco": "COCO-json person boxes",
}
LABEL_MAP, EXCLUSIONS = "label-map", "exclusions"
DIALECTS = ("item", "label", "list")
TARGETS = (*DOES, *(f"{LABEL_MAP}-{name}" for name in DIALECTS), EXCLUSIONS)
SOURCES = (*DOES, LABEL_MAP, EXCLUSIONS)
