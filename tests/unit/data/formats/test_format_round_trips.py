"""What is written in a format is read again as it was; what a format has no room for is said to be lost."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acar.data.formats.annotations import Annotations, in_order, key_frames_of, rows_of
from acar.data.formats.convert import convert
from acar.data.formats.frame_names import FrameNames
from acar.data.formats.registry import DIALECTS, FORMATS, Settings, format_of, read_annotations
from acar.data.label_map import ActionClass, LabelMap, read_label_map, write_label_map
from acar.data.tables import read_excluded, write_excluded
from acar.errors import UserError

QUICK = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
CLASSES = LabelMap(tuple(ActionClass(i, f"class {i}") for i in (1, 2, 5, 80)))
HOLDS = {
    "ava": {"action", "actor", "nobody"},
    "fair": {"action", "score"},
    "mmaction2": {"score"},
    "acar-net": {"action", "actor", "classes"},
    "coco": {"score", "nobody"},
}
KEY_FRAME = ["video", "time_s"]


def texts(**kwargs: int) -> st.SearchStrategy[str]:
    """Ids of videos and persons: printable, with the letters that csv and frame names trip over."""
    letters = st.sampled_from("aZ09-_.,;:\"'% é日/")
    return st.text(letters, **kwargs).filter(lambda text: text == text.strip())


numbers = st.floats(0, 1)
times = st.one_of(st.integers(0, 2000).map(float), st.integers(0, 2_000_000_000).map(lambda n: n / 1e6))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, ...]:
    (x1, x2), (y1, y2) = (
        sorted(draw(st.lists(numbers, min_size=2, max_size=2, unique=True))) for _ in range(2)
    )
    return x1, y1, x2, y2


@st.composite
def tables(draw: st.DrawFn, holds: set[str]) -> pd.DataFrame:
    """Persons at key frames, each with some actions or none; rows in any order."""
    rows: dict[tuple, tuple] = {}
    for _ in range(draw(st.integers(1, 6))):
        place = draw(texts(min_size=1, max_size=6)), draw(times), *draw(boxes())
        actor = draw(texts(max_size=3)) if "actor" in holds else ""
        score = draw(numbers) if "score" in holds else None
        chosen = draw(st.sets(st.sampled_from(CLASSES.ids), max_size=3)) if "action" in holds else set()
        if place in rows:
            continue
        for action in sorted(chosen) or [None]:
            rows[(*place, action)] = (*place, action, actor, score)
        rows[place] = ()
    listed = [row for row in rows.values() if row]
    return rows_of(draw(st.permutations(listed)))


@st.composite
def empty_key_frames(draw: st.DrawFn, holds: set[str], rows: pd.DataFrame) -> pd.DataFrame:
    """Key frames where nobody is, some of videos that have rows; none if the format does not hold them."""
    videos = st.one_of(texts(min_size=1, max_size=6), st.sampled_from(rows["video"].tolist()))
    places = st.lists(st.tuples(videos, times), max_size=4 if "nobody" in holds else 0)
    taken = set(rows[KEY_FRAME].itertuples(index=False, name=None))
    return key_frames_of(place for place in draw(places) if (place[0], round(place[1], 6)) not in taken)


def same_key_frames(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    tables = [table.drop_duplicates().sort_values(KEY_FRAME, ignore_index=True) for table in (found, wanted)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.parametrize("name", FORMATS)
@QUICK
@given(data=st.data())
def test_write_and_read_is_the_identity(tmp_path: Path, name: str, data: st.DataObject) -> None:
    rows = data.draw(tables(HOLDS[name]))
    nobody = data.draw(empty_key_frames(HOLDS[name], rows))
    classes = CLASSES if name == "acar-net" else None
    path = tmp_path / "x.any"
    FORMATS[name].write(Annotations(rows, classes, nobody=nobody), path, Settings())
    again = FORMATS[name].read(path, None, Settings())
    same_key_frames(again.nobody, nobody)
    if name == "coco":  # which keeps sizes, not second corners
        pd.testing.assert_frame_equal(in_order(again.rows), in_order(rows), rtol=0, atol=1e-9)
    else:
        pd.testing.assert_frame_equal(in_order(again.rows), in_order(rows), check_exact=True)
    assert again.label_map == classes


def test_scores_of_1_do_not_pass_for_ids(tmp_path: Path) -> None:
    """As in mmaction2's own test file, whose every score is 1."""
    rows = rows_of([("v", 902, 0, 0, 1, 1, None, "", 1.0), ("v", 902, 0, 0, 0.5, 1, 3, "", 0.0)])
    FORMATS["fair"].write(Annotations(rows), tmp_path / "x", Settings())
    assert (tmp_path / "x").read_text() == "v,0902,0,0,1,1,,1.0\nv,0902,0,0,0.5,1,3,0.0\n"
    assert format_of(tmp_path / "x") == "fair"
    pd.testing.assert_frame_equal(read_annotations(tmp_path / "x").rows, rows)


def test_formats_hold_what_the_round_trips_are_made_of() -> None:
    assert {name: set(item.holds) for name, item in FORMATS.items()} == HOLDS


def is_like_a_score(actor: str) -> bool:
    try:
        float(actor)
    except ValueError:
        return False
    return not actor.strip().lstrip("+-").isascii() or not actor.strip().lstrip("+-").isdigit()


@pytest.mark.parametrize("name", FORMATS)
@QUICK
@given(data=st.data())
def test_what_was_written_is_recognised(tmp_path: Path, name: str, data: st.DataObject) -> None:
    rows = data.draw(tables(HOLDS[name]))
    if name == "ava":  # persons' ids such as 0.5, 1e3 or nan could be scores
        rows = rows.assign(
            actor_id=["p" + actor if is_like_a_score(actor) else actor for actor in rows["actor_id"]]
        )
    nobody = data.draw(empty_key_frames(HOLDS[name], rows))
    FORMATS[name].write(Annotations(rows, CLASSES, nobody=nobody), tmp_path / "x", Settings())
    assert format_of(tmp_path / "x") == name


@pytest.mark.parametrize("size_px", [(1, 1), (640, 480), (341, 257)])
@QUICK
@given(data=st.data())
def test_coco_in_pixels(tmp_path: Path, size_px: tuple[int, int], data: st.DataObject) -> None:
    rows = data.draw(tables({"score"}))
    FORMATS["coco"].write(Annotations(rows), tmp_path / "x.json", Settings(size_px=size_px))
    again = read_annotations(tmp_path / "x.json")
    pd.testing.assert_frame_equal(in_order(again.rows), in_order(rows), rtol=0, atol=1e-9)


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=12
)


@st.composite
def label_maps(draw: st.DrawFn, name: st.SearchStrategy[str], group: st.SearchStrategy) -> LabelMap:
    ids = draw(st.sets(st.integers(1, 999_999_999), min_size=1, max_size=6))
    called = draw(st.lists(name.filter(lambda text: text.strip()), min_size=len(ids), max_size=len(ids)))
    paired = zip(sorted(ids), called, strict=True)
    return LabelMap(tuple(ActionClass(number, text, draw(group)) for number, text in paired))


@pytest.mark.parametrize("dialect", ["item", "label"])
@QUICK
@given(data=st.data())
def test_label_maps_in_text_protobuf(tmp_path: Path, dialect, data: st.DataObject) -> None:
    groups = st.one_of(st.none(), st.sampled_from(["pose", "object", "person"]), names.filter(bool))
    label_map = data.draw(label_maps(names, groups))
    write_label_map(label_map, tmp_path / "m", dialect)
    assert read_label_map(tmp_path / "m") == label_map
    assert format_of(tmp_path / "m") == "label-map"


@QUICK
@given(data=st.data())
def test_label_maps_as_plain_lists(tmp_path: Path, data: st.DataObject) -> None:
    one_line = names.filter(lambda text: text == text.strip() and len(text.splitlines()) == 1)
    label_map = data.draw(label_maps(one_line, st.none()))
    write_label_map(label_map, tmp_path / "m", "list")
    assert read_label_map(tmp_path / "m") == label_map
    assert format_of(tmp_path / "m") == "label-map"


@QUICK
@given(excluded=st.sets(st.tuples(texts(min_size=1, max_size=6), times)))
def test_exclusions(tmp_path: Path, excluded: set[tuple[str, float]]) -> None:
    write_excluded(excluded, tmp_path / "e.csv")
    assert read_excluded(tmp_path / "e.csv") == {(video, round(time_s, 6)) for video, time_s in excluded}
    if excluded:
        assert format_of(tmp_path / "e.csv") == "exclusions"


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_every_conversion_keeps_the_boxes_and_says_what_is_lost(
    tmp_path: Path, source: str, target: str
) -> None:
    box = (0.125, 0.25, 0.5, 0.75)
    rows = rows_of([
        ("v", 902.0, *box, 1 if "action" in HOLDS[source] else None, "7" if "actor" in HOLDS[source] else "",
         0.5 if "score" in HOLDS[source] else None),
        ("w", 903.5, *box, None, "", 0.25 if "score" in HOLDS[source] else None),
    ])  # fmt: skip
    nobody = key_frames_of([("v", 904.0), ("u", 901.25)] if "nobody" in HOLDS[source] else [])
    FORMATS[source].write(Annotations(rows, CLASSES, nobody=nobody), tmp_path / "source", Settings())
    write_label_map(CLASSES, tmp_path / "classes", "list")
    told = convert(
        tmp_path / "source", tmp_path / "target", target, named=source, label_map=tmp_path / "classes"
    )
    written = read_annotations(tmp_path / "target", named=target)
    again = written.rows
    is_lost = len(nobody) > 0 and "nobody" not in HOLDS[target]
    assert ("lost: 2 key frame(s) without persons" in told) == is_lost
    assert any(line.endswith("3 video(s), and 2 key frame(s) without persons") for line in told) == (
        len(nobody) > 0
    )
    same_key_frames(written.nobody, nobody.iloc[:0] if is_lost else nobody)
    places = ["video", "time_s", "x1", "y1", "x2", "y2"]
    pd.testing.assert_frame_equal(again[places], rows[places])
    for what, column in (("action", "action ids"), ("actor", "person ids"), ("score", "scores")):
        is_lost = what in HOLDS[source] and what not in HOLDS[target]
        assert any(line.startswith(f"lost: {column}") for line in told) == is_lost, told
        if what in HOLDS[source] and what in HOLDS[target]:
            kept = {"action": "action_id", "actor": "actor_id", "score": "score"}[what]
            pd.testing.assert_series_equal(again[kept], rows[kept])
    made_up = "score" not in HOLDS[source] and target in ("fair", "mmaction2")
    assert any(line.startswith("made up") for line in told) == made_up


@pytest.mark.parametrize("target", DIALECTS)
def test_classes_out_of_an_acar_net_pickle(tmp_path: Path, target: str) -> None:
    rows = rows_of([("v", 902, 0, 0, 1, 1, 5, "0", None)])
    FORMATS["acar-net"].write(Annotations(rows, CLASSES), tmp_path / "a.pkl", Settings())
    told = convert(tmp_path / "a.pkl", tmp_path / "m", target)
    assert told[-1] == "lost: 1 row(s) of boxes: a label map has classes alone"
    assert read_label_map(tmp_path / "m") == CLASSES


def test_records_say_where_the_frames_lie(tmp_path: Path) -> None:
    """As `data_path.json` of the reference values has them: second 902 of frames cut at 900 is image 61."""
    import pickle

    rows = rows_of([("v", 902, 0, 0, 1, 1, 5, "0", None), ("v", 901, 0, 0, 1, 1, 1, "0", None)])
    FORMATS["acar-net"].write(Annotations(rows, CLASSES), tmp_path / "a.pkl", Settings())
    records, classes = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert [record["time"] for record in records] == [901, 902]
    assert [record["mid_frame"] for record in records] == [31, 61]
    assert [record["start_frame"] for record in records] == [1, 16]
    assert [record["n_frames"] for record in records] == [76, 91]
    assert records[0]["format_str"] % 5 == "image_000005.jpg" and records[0]["frame_rate"] == 30.0
    assert records[1]["labels"] == [{"bounding_box": [0.0, 0.0, 1.0, 1.0], "label": [2], "person_id": [0]}]
    assert classes[2] == {"name": "class 5", "id": 5}
    early = FrameNames(fps=25, first_s=0, pattern="img_%05d.jpg")
    FORMATS["acar-net"].write(Annotations(rows, CLASSES), tmp_path / "b.pkl", Settings(frames=early))
    records, _ = pickle.loads((tmp_path / "b.pkl").read_bytes())
    assert records[0]["mid_frame"] == 901 * 25 + 1 and records[0]["frame_rate"] == 25


@pytest.mark.parametrize("name", ["acar-net", "mmaction2"])
def test_key_frames_without_persons_of_pickles_are_kept(tmp_path: Path, name: str) -> None:
    """The formats' own programs may need a person, so they are not written there."""
    value = {
        "acar-net": (
            [{"video": "v", "time": 3, "labels": []}, {"video": "w", "time": 1.5, "labels": ()}],
            [],
        ),
        "mmaction2": {"v,0003": np.zeros((0, 5)), "w,1.5": []},
    }[name]
    (tmp_path / "x").write_bytes(pickle.dumps(value))
    assert read_annotations(tmp_path / "x", named=name).nobody.to_numpy().tolist() == [["v", 3.0], ["w", 1.5]]


def test_an_image_whose_only_box_is_a_crowd_is_not_without_persons(tmp_path: Path) -> None:
    rows = rows_of([("v", 2, 0, 0, 1, 1, None, "", 0.5), ("v", 3, 0, 0, 1, 1, None, "", 0.5)])
    nobody = key_frames_of([("v", 4.0)])
    FORMATS["coco"].write(Annotations(rows, nobody=nobody), tmp_path / "x", Settings())
    value = json.loads((tmp_path / "x").read_text())
    value["annotations"][1]["iscrowd"] = 1
    (tmp_path / "x").write_text(json.dumps(value))
    same_key_frames(read_annotations(tmp_path / "x").nobody, nobody)


def test_a_key_frame_with_rows_is_not_without_persons() -> None:
    rows = rows_of([("v", 2, 0, 0, 1, 1, None, "", 0.5)])
    found = Annotations(rows, nobody=key_frames_of([("v", 2.0), ("v", 3.0), ("v", 3.0000000001), ("w", 2.0)]))
    assert found.nobody.to_numpy().tolist() == [["v", 3.0], ["w", 2.0]]
    assert (found.n_key_frames(), found.n_videos()) == (1, 2)


@pytest.mark.parametrize("target", ["mmaction2", "coco"])
def test_of_several_scores_the_best_is_kept_and_the_others_are_told(tmp_path: Path, target: str) -> None:
    box = (0.125, 0.25, 0.5, 0.75)
    rows = rows_of([("v", 2, *box, k, "", score) for k, score in ((1, 0.25), (2, 0.75), (3, 0.5), (4, 0.75))])
    FORMATS["fair"].write(Annotations(rows), tmp_path / "source", Settings())
    told = convert(tmp_path / "source", tmp_path / "target", target)
    assert "lost: 2 row(s) of boxes with several scores, of which the best is kept" in told
    assert read_annotations(tmp_path / "target").rows["score"].tolist() == [0.75]
    FORMATS["fair"].write(Annotations(rows.assign(score=0.5)), tmp_path / "source", Settings())
    assert not any(
        "several scores" in line for line in convert(tmp_path / "source", tmp_path / "target", target)
    )


@pytest.mark.parametrize("target", ["acar-net", "coco"])
def test_images_before_the_first_are_refused(tmp_path: Path, target: str) -> None:
    for rows, nobody in (([("v", 899.9, 0, 0, 1, 1, None, "", None)], []), ([], [("v", 84.5)])):
        if nobody and target == "acar-net":
            continue  # which has no room for them
        annotations = Annotations(rows_of(rows), CLASSES, nobody=key_frames_of(nobody))
        with pytest.raises(UserError, match=r"would be image -\d+ by --first-second 900 and --fps 30"):
            FORMATS[target].write(annotations, tmp_path / "x", Settings(FrameNames(first_s=900)))
    assert not (tmp_path / "x").exists()
