"""Key frames against the times at which persons are looked for."""

from __future__ import annotations

import pytest
from check_place import TRAIN, VAL, Place

from acar.data.check.report import as_text
from acar.data.check.survey import check_data

BOX = "0.1,0.1,0.5,0.9"
HALVES = f"a,0.5,{BOX},1,0\na,1,{BOX},4,0\na,1,{BOX},2,0\na,2.5,{BOX},2,0\na,3.25\nz,1.5\n"


@pytest.mark.parametrize(
    ("key_frames", "memory", "source", "told"),
    [
        ("seconds", "acfb", "train", "looked for; set `data.key_frames: both`, or give boxes"),
        ("seconds", "none", "train", "looked for; set `data.key_frames: labelled` or `both`, or give boxes"),
        ("seconds", "acfb", "boxes", None),
        ("labelled", "none", "train", None),
        ("both", "acfb", "train", None),
        ("both", "none", "train", None),
    ],
)
def test_key_frames_between_seconds(
    place: Place, key_frames: str, memory: str, source: str, told: str | None
) -> None:
    place.write("train.csv", HALVES)
    place.values["data"]["key_frames"] = key_frames
    place.values["model"] = {"head": {"memory": memory}}
    if source == "boxes":
        boxes = place.write("boxes.csv", HALVES.replace("a,3.25\nz,1.5\n", "") + VAL)
        place.values["detector"] = {"source": "boxes", "boxes": {"train": boxes, "val": boxes}}
    survey = check_data(place.config)
    train, val = survey.splits
    assert (train.fractional, val.fractional) == (2, 0) and not survey.would_stop
    assert train.actors_per_key_frame() == {0: 2, 1: 3} and val.without_persons() == 0
    (unpeopled, *others) = [problem.text for problem in survey.problems]
    assert "1 video(s) have key frames without persons alone, so they are not used: z" in unpeopled
    assert len(others) == (told is not None) and all(told in text for text in others)
    rows = {line[:30].strip(): line[30:].split() for line in as_text(survey).splitlines()}
    assert rows["key frames without persons"] == ["2", "0"] and rows["at fractions of a second"] == ["2", "0"]


def test_val_labels_between_seconds_alone_cannot_be_scored(place: Place) -> None:
    place.write("val.csv", VAL.replace("b,1,", "b,1.5,").replace("b,2,", "b,2.5,"))
    (told,) = place.stops()
    assert "val.csv: 2 of 2 key frame(s) are not at a whole second" in told
    place.values["data"]["key_frames"] = "both"
    assert place.stops() == []


def test_key_frames_of_one_frame(place: Place) -> None:
    place.write("train.csv", TRAIN + "a,2.01,0.1,0.1,0.5,0.9,1,0\na,2.06,0.1,0.1,0.5,0.9,1,0\n")
    place.values["data"]["key_frames"] = "both"
    (told,) = place.warnings()
    assert "1 key frame(s) are shown by the same frame as the one before, at ingest.fps 10" in told
    place.values["ingest"]["fps"] = 100
    assert place.warnings() == []
