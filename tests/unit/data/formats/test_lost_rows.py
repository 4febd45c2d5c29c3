"""Every row that a conversion reads and does not write is told: rows read less those lost are rows written."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acar.data.csv_files import write_csv
from acar.data.formats.annotations import Annotations, key_frames_of, rows_of
from acar.data.formats.convert import convert
from acar.data.formats.registry import FORMATS, Settings, read_annotations
from acar.data.label_map import ActionClass, LabelMap, write_label_map
from acar.data.tables import DETECTION_COLUMNS, LABEL_COLUMNS
from acar.errors import UserError

QUICK = settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLASSES = [{"name": "stand", "id": 12}, {"name": "talk", "id": 80}, {"name": "sit", "id": 11}]
KNOWN = LabelMap((ActionClass(12, "stand"), ActionClass(80, "talk")))
BOXES = [(0.1, 0.2, 0.3, 0.4), (0.125, 0.25, 0.5, 0.75)]

# Few values, so that many rows agree in some or all of them.
ROWS = st.lists(
    st.tuples(
        st.sampled_from("vw"), st.sampled_from([902.0, 903.5]), st.sampled_from(BOXES),
        st.sampled_from([None, 11, 12, 80]), st.sampled_from(["", "7"]), st.sampled_from([0.25, 0.5]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


def write_as_given(name: str, rows: list[tuple[Any, ...]], path: Path) -> None:
    """A file of a format with exactly these rows, also those that our own writers would write once."""
    if name in ("ava", "fair"):
        table = rows_of([(video, time_s, *box, *rest) for video, time_s, box, *rest in rows])
        write_csv(table[LABEL_COLUMNS if name == "ava" else DETECTION_COLUMNS], path, exact=True)
    elif name == "mmaction2":
        found: dict[str, list[tuple[float, ...]]] = {}
        for video, time_s, box, _, _, score in rows:
            found.setdefault(f"{video},{time_s:g}", []).append((*box, score))
        path.write_bytes(pickle.dumps({key: np.array(boxes) for key, boxes in found.items()}))
    elif name == "acar-net":
        places = {item["id"]: place for place, item in enumerate(CLASSES)}
        records = [
            {"video": video, "time": time_s, "labels": [{
                "bounding_box": box, "label": [] if action is None else [places[action]],
                "person_id": [actor] if actor else [],
            }]}
            for video, time_s, box, action, actor, _ in rows
        ]  # fmt: skip
        path.write_bytes(pickle.dumps((records, CLASSES)))
    else:
        names = {place: number for number, place in enumerate(sorted({row[:2] for row in rows}))}
        images = [{"id": number, "width": 1, "height": 1, "video": video, "time_s": time_s}
                  for (video, time_s), number in names.items()]  # fmt: skip
        boxes = [
            {"image_id": names[row[:2]], "bbox": [row[2][0], row[2][1], row[2][2] - row[2][0], row[2][3] - row[2][1]]}
            | ({} if row[3] is None else {"score": row[5]})
            for row in rows
        ]  # fmt: skip
        path.write_text(json.dumps({"images": images, "annotations": boxes}))


def counted(told: list[str], path: Path) -> int:
    """Rows of a file, as the conversion tells them."""
    (count,) = (re.search(r", (\d+) row\(s\)", line) for line in told if line.startswith(f"{path}: "))
    assert count is not None
    return int(count[1])


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
@QUICK
@given(rows=ROWS)
def test_rows_read_less_those_lost_are_rows_written(
    tmp_path: Path, source: str, target: str, rows: list[tuple[Any, ...]]
) -> None:
    before, after, classes = tmp_path / "before", tmp_path / "after", tmp_path / "classes"
    write_as_given(source, rows, before)
    write_label_map(KNOWN, classes, "list")
    told = convert(before, after, target, named=source, label_map=classes)
    lost = sum(int(match[1]) for line in told if (match := re.match(r"lost: (\d+) row\(s\) ", line)))
    assert counted(told, before) == len(rows)
    assert counted(told, after) == len(rows) - lost, told
    assert len(read_annotations(after, named=target).rows) == len(rows) - lost


BOX = "0.1,0.2,0.3,0.4"


@pytest.mark.parametrize(
    ("lines", "target", "told"),
    [
        (["v,1,B,12,7", "v,1,B,12,7", "v,2,B,12,7"], "ava", ["lost: 1 row(s) that repeat another"]),
        (
            ["v,1,B,12,0.5", "v,1,B,12,0.75"], "ava",
            ["lost: scores of 2 row(s)", "lost: 1 row(s) that differ from another in nothing but what is lost here"],
        ),
        (
            ["v,1,B,12,0.5", "v,1,B,12,0.75"], "acar-net",
            ["lost: scores of 2 row(s)", "lost: 1 row(s) that differ from another in nothing but what is lost here"],
        ),
        (["v,1,B,,7", "v,1,B,12,7"], "acar-net", ["lost: 1 row(s) without an action, of persons that have one"]),
        (
            ["v,1,B,12,7", "v,1,B,80,7"], "coco",
            [
                "lost: action ids of 2 row(s)", "lost: person ids of 2 row(s)",
                "lost: 1 row(s) that differ from another in nothing but what is lost here",
            ],
        ),
        (["v,1,B,12,7", "v,1,B,12,8"], "fair", [
            "lost: person ids of 2 row(s)",
            "lost: 1 row(s) that differ from another in nothing but what is lost here",
            "made up: score 1 of 1 row(s), which had none",
        ]),
        (["v,1,B,12,7", "v,2,B,12,8"], "ava", []),
    ],
)  # fmt: skip
def test_what_is_told(tmp_path: Path, lines: list[str], target: str, told: list[str]) -> None:
    (tmp_path / "before").write_text("".join(f"{line.replace('B', BOX)}\n" for line in lines))
    write_label_map(KNOWN, tmp_path / "classes", "list")
    found = convert(tmp_path / "before", tmp_path / "after", target, label_map=tmp_path / "classes")
    assert [line for line in found if "lost: names of" not in line][2:] == told


def test_key_frames_without_persons_that_others_name(tmp_path: Path) -> None:
    (tmp_path / "before").write_text(f"v,1\nv,2\nv,1\nv,3,{BOX},12\nv,3\n")
    told = convert(tmp_path / "before", tmp_path / "after", "ava")
    assert told[1] == "left out 2 row(s) without a person, of key frames that others name"
    assert told[2].endswith(
        "1 row(s), 1 box(es), 1 key frame(s), 1 video(s), and 2 key frame(s) without persons"
    )


def test_exclusions_that_repeat(tmp_path: Path) -> None:
    (tmp_path / "before").write_text("v,1\nv,01\nw,1\n\nv,1.0\n")
    told = convert(tmp_path / "before", tmp_path / "after", "exclusions")
    assert told[-1] == "lost: 2 row(s) that repeat another"
    assert (tmp_path / "after").read_text() == "v,0001\nw,0001\n"


@pytest.mark.parametrize("target", ["mmaction2", "acar-net", "coco"])
@pytest.mark.parametrize("column", ["video", "actor_id"])
def test_ids_that_would_not_be_read_are_not_written(tmp_path: Path, target: str, column: str) -> None:
    rows = rows_of([("v", 902, *BOXES[0], None, "7", None)]).assign(**{column: "a\x07b"})
    FORMATS["ava"].write(Annotations(rows), tmp_path / "before", Settings())
    if column == "actor_id" and target != "acar-net":  # which have no room for it
        assert convert(tmp_path / "before", tmp_path / "after", target)
        return
    with pytest.raises(UserError, match=r"after: not written: the id 'a\\x07b' has a control character"):
        convert(tmp_path / "before", tmp_path / "after", target)


def test_ids_of_key_frames_without_persons_are_looked_at_too(tmp_path: Path) -> None:
    FORMATS["ava"].write(
        Annotations(rows_of([]), nobody=key_frames_of([("a\x07b", 1.0)])), tmp_path / "before", Settings()
    )
    (tmp_path / "before").write_text((tmp_path / "before").read_text() + f"v,1,{BOX},,\n")
    with pytest.raises(UserError, match="the id"):
        convert(tmp_path / "before", tmp_path / "after", "coco")


@pytest.mark.parametrize("actor", ["0", "007", "9" * 15, "9" * 16, "9" * 30, "9" * 5000])
def test_long_numbers_of_persons_stay(tmp_path: Path, actor: str) -> None:
    rows = rows_of([("v", 902, *BOXES[0], None, actor, None)])
    FORMATS["acar-net"].write(Annotations(rows), tmp_path / "x", Settings())
    assert read_annotations(tmp_path / "x", named="acar-net").rows["actor_id"].tolist() == [actor]
