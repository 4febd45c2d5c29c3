"""A small data set for the tests of check-data."""

from __future__ import annotations

from pathlib import Path

from video_samples import tenths, write_source

from acar.config import Config, parse_config
from acar.data.check.survey import check_data

CLASSES = 'item { name: "stand" id: 1 group: "pose" }\nitem { name: "sit" id: 2 group: "pose" }\n'
CLASSES += 'item { name: "talk" id: 4 }\n'
TRAIN = """\
a,1,0.1,0.1,0.5,0.9,1,0
a,1,0.1,0.1,0.5,0.9,4,0
a,1,0.6,0.1,0.9,0.9,2,1
a,2,0.1,0.1,0.5,0.9,1,0
"""
VAL = "b,1,0.1,0.1,0.5,0.9,1,0\nb,2,0.1,0.1,0.5,0.9,4,0\nb,2,0.1,0.1,0.5,0.9,2,0\n"


class Place:
    """A data set of two four-second videos, and the config that names it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "videos").mkdir()
        for video in "ab":
            write_source(folder / "videos" / f"{video}.mp4", tenths(40))
        self.values: dict = {
            "run": {"results": str(folder / "results")},
            "data": {
                "source": "files", "videos": str(folder / "videos"), "label_map": self.write("map", CLASSES),
                "train": {"labels": self.write("train.csv", TRAIN)},
                "val": {"labels": self.write("val.csv", VAL)},
            },
            "ingest": {"fps": 10},
            "detector": {"source": "train"},
        }  # fmt: skip

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    @property
    def config(self) -> Config:
        return parse_config(self.values)

    def stops(self) -> list[str]:
        return [problem.text for problem in check_data(self.config).problems if problem.stops]

    def warnings(self) -> list[str]:
        return [problem.text for problem in check_data(self.config).problems if not problem.stops]
