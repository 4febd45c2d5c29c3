"""An imported box file against labels, videos, bank and thresholds."""

from __future__ import annotations

import pytest
from check_place import TRAIN, VAL, Place

from acar.data.check.survey import check_data


def test_a_box_file(place: Place) -> None:
    place.write("boxes.csv", "a,1,0.1,0.1,0.5,0.9,,0.95\na,7,0.1,0.1,0.5,0.9,,0.95\n")
    place.write("others.csv", "B,1,0.1,0.1,0.5,0.9,,0.95\nB,1,0.1,0.1,5,9,,0.95\n")
    boxes = {"train": str(place.folder / "boxes.csv"), "val": str(place.folder / "others.csv")}
    place.values["detector"] = {"source": "boxes", "boxes": boxes}
    survey = check_data(place.config)
    train, val = survey.splits
    assert (train.n_boxes, train.boxes_without) == (2, 1) and (val.n_boxes, val.boxes_without) == (1, 2)
    stops = "\n".join(problem.text for problem in survey.problems if problem.stops)
    assert "others.csv, line 2: box 0.1,0.1,5,9 is outside the frame" in stops
    assert "1 of 1 videos have no box" in stops and "ids in the file look like 'B'" in stops
    place.values["predict"] = {"min_score": 0.99}
    place.write(
        "others.csv",
        VAL.replace(",1,0\n", ",,0.5\n").replace(",4,0\n", ",,0.5\n").replace(",2,0\n", ",,0.5\n"),
    )
    (told,) = place.stops()
    assert "no box reaches predict.min_score 0.99 (best of" in told
    boxes["train"] = str(place.folder / "absent.pkl")
    assert any("absent.pkl: no such file" in text for text in place.stops())


def test_box_files_of_other_times(place: Place) -> None:
    place.write("train.csv", TRAIN + "a,2.5,0.1,0.1,0.5,0.9,1,0\n")
    place.write("val.csv", VAL.replace("b,1,", "b,1.083333,").replace("b,2,", "b,2.5,"))
    row = "{},{},0.1,0.1,0.5,0.9,,0.95\n"
    train = place.write("boxes.csv", row.format("a", 1) + row.format("a", 2.49))
    val = place.write("others.csv", row.format("b", 1.0833) + row.format("b", 3))
    place.values["detector"] = {"source": "boxes", "boxes": {"train": train, "val": val}}
    place.values["data"]["key_frames"] = "both"
    (told,) = place.warnings()
    assert "boxes.csv: none of the 1 labelled key frame(s) between whole seconds has a box" in told
    assert "such as 2.5 of `a`, whose nearest box is at 2.49" in told
    (told,) = place.stops()
    assert "others.csv: none of the 2 labelled key frame(s) between whole seconds has a box" in told
    assert "such as 1.083333 of `b`, whose nearest box is at 1.0833" in told
    place.values["data"]["span_s"] = [0, 3]  # second 3 is scored then, if in vain
    assert place.stops() == [] and len(place.warnings()) == 2
    place.values["data"]["span_s"] = None
    place.write("val.csv", "b,2\nb,3\n" + VAL.replace("b,1,", "b,1.083333,").replace("b,2,", "b,2.5,"))
    assert place.stops() == []  # where the labels say that nobody is, a box is scored, too


def test_a_bank_without_boxes_at_whole_seconds(place: Place) -> None:
    text = TRAIN.replace("a,1,", "a,1.5,").replace("a,2,", "a,2.5,")
    place.write("train.csv", text)
    boxes = {"train": place.write("boxes.csv", text), "val": place.write("others.csv", VAL)}
    place.values["detector"] = {"source": "boxes", "boxes": boxes}
    place.values["data"]["key_frames"] = "both"
    (told,) = place.stops()
    assert "boxes.csv: 1 of 1 videos have no box of at least bank.min_score 0.5 at a whole second" in told
    assert (
        "so the train split's bank has no row at all: a; none of its 3 boxes lies at a whole second" in told
    )
    place.values["model"] = {"head": {"memory": "none"}}
    assert place.warnings() == [] and place.stops() == []
    place.values["model"] = {"head": {"memory": "acfb"}}
    place.write("train.csv", text + VAL.replace("b,1,", "b,1.5,"))
    place.write("boxes.csv", text + VAL)
    (told,) = [told for told in place.warnings() if "bank" in told]
    assert "boxes.csv: 1 of 2 videos have no box" in told and "so the bank has no rows of them: a" in told
    assert place.stops() == []


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("row", "span_s", "told"),
    [
        (
            "{},1,0.1,0.1,0.5,0.9,,0.3",
            None,
            "bank.min_score is 0.5, best of 1 boxes 0.3; lower bank.min_score",
        ),
        (
            "{},1,0.1,0.1,0.5,0.9,,0.3\n{},2.5,0.1,0.1,0.5,0.9,,0.9",
            None,
            "best of 1 boxes 0.3 at whole seconds",
        ),
        ("{},1,0.1,0.1,0.5,0.9,,0.9\n{},2,0.1,0.1,0.5,0.9,,0.3", [2, 3], "inside of data.span_s [2.0, 3.0]"),
        ("z,1,0.1,0.1,0.5,0.9,,0.9", None, "1 of 1 videos have no box of at least detector.keep_score"),
        ("{},1,0.1,0.1,0.5,0.9,,0.9", [2, 3], "a whole second inside of data.span_s [2.0, 3.0]"),
    ],
)
def test_a_split_without_a_row_in_the_bank_stops(
    place: Place, split: str, row: str, span_s: list[float] | None, told: str
) -> None:
    good = {"train": place.write("good_a.csv", TRAIN), "val": place.write("good_b.csv", VAL)}
    place.values["detector"] = {"source": "boxes", "boxes": good}
    place.values["data"]["span_s"] = span_s
    assert place.stops() == []
    boxes = place.write("bad.csv", row.replace("{}", {"train": "a", "val": "b"}[split]) + "\n")
    place.values["detector"]["boxes"] = {**good, split: boxes}
    place.values["predict"] = {"min_score": 0.1}
    assert any(told in text for text in place.stops()), place.stops()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_whose_boxes_are_all_beyond_its_videos_stops(place: Place, split: str) -> None:
    good = {"train": place.write("good_a.csv", TRAIN), "val": place.write("good_b.csv", VAL)}
    video = {"train": "a", "val": "b"}[split]
    rows = "".join(f"{video},{second},0.1,0.1,0.5,0.9,,0.95\n" for second in (4, 101, 102))
    place.values["detector"] = {
        "source": "boxes", "boxes": {**good, split: place.write("far.csv", rows)}
    }  # fmt: skip
    (told,) = [text for text in place.stops() if "bank" in text]
    assert "far.csv: 1 of 1 videos have no box of at least bank.min_score 0.5 at a whole second, so" in told
    assert f"so the {split} split's bank has no row at all: {video}; all of their 3 boxes lie beyond" in told
    place.values["model"] = {"head": {"memory": "none"}}
    assert len(place.stops()) == (split == "val")  # a training has the labels' boxes
    place.write("far.csv", rows + f"{video},2,0.1,0.1,0.5,0.9,,0.95\n")
    assert place.stops() == []


def test_a_val_split_of_which_no_good_box_is_scored_stops(place: Place) -> None:
    rows = "b,1,0.1,0.1,0.5,0.9,,0.3\nb,101,0.1,0.1,0.5,0.9,,0.95\n"
    boxes = {"train": place.write("a.csv", TRAIN), "val": place.write("b.csv", rows)}
    place.values["detector"] = {"source": "boxes", "boxes": boxes}
    place.values |= {"model": {"head": {"memory": "none"}}, "predict": {"min_score": 0.5}}
    (told,) = place.stops()
    assert (
        "b.csv: none of the 0 box(es) of at least predict.min_score 0.5 that the videos hold lies at a time"
        in told
    )
    place.values["predict"] = {"min_score": 0.3}
    assert place.stops() == []


def test_boxes_of_a_video_that_is_skipped_are_no_rows_of_the_bank(place: Place) -> None:
    place.write("train.csv", TRAIN + "lost,1,0.1,0.1,0.5,0.9,1,0\n")
    boxes = place.write("boxes.csv", "lost,1,0.1,0.1,0.5,0.9,,0.95\na,1,0.1,0.1,0.5,0.9,,0.2\n")
    place.values["detector"] = {
        "source": "boxes",
        "boxes": {"train": boxes, "val": place.write("b.csv", VAL)},
    }
    assert not any("bank" in text for text in place.stops())  # the video has to be put there
    place.values["ingest"]["on_error"] = "skip"
    (told,) = place.stops()
    assert (
        "so the train split's bank has no row at all: a; bank.min_score is 0.5, best of 1 boxes 0.2" in told
    )


def test_a_file_of_low_scores_is_not_called_empty(place: Place) -> None:
    low = place.write("low.csv", "b,1,0.1,0.1,0.5,0.9,,0.01\nb,2,0.1,0.1,0.5,0.9,,0.02\n")
    place.values["detector"] = {
        "source": "boxes",
        "boxes": {"train": place.write("a.csv", TRAIN), "val": low},
    }
    assert any("all of the file's are below (best of 2 boxes 0.02)" in text for text in place.stops())
    place.write("low.csv", "")
    assert any("the file has no boxes" in text for text in place.stops())


def test_boxes_beyond_their_videos_are_told(place: Place) -> None:
    row = "{},{},0.1,0.1,0.5,0.9,,0.95\n"
    train = place.write("boxes.csv", "".join(row.format("a", time_s) for time_s in (1, 2, 3, 4)))
    val = place.write("others.csv", "".join(row.format("b", time_s) for time_s in (1, 2, 50)))
    place.values["detector"] = {"source": "boxes", "boxes": {"train": train, "val": val}}
    (told,) = place.warnings()  # second 4 is a frame behind the last one: no frame rate is told by that
    assert "others.csv: 1 video(s) do not hold all of their boxes" in told and place.stops() == []
    assert "\nvideo `b`: it covers 0.00 to 3.90 s, its boxes reach from 1 to 50 s" in told
    place.values["data"]["span_s"] = [0, 3]
    assert place.warnings() == [] and place.stops() == []


def test_boxes_of_skipped_videos_are_in_no_bank(place: Place) -> None:
    (place.folder / "videos" / "c.mp4").touch()
    place.write("train.csv", TRAIN + "c,1,0.1,0.1,0.5,0.9,1,0\n")
    row = "{},1,0.1,0.1,0.5,0.9,,0.95\n"
    boxes = {
        "train": place.write("boxes.csv", row.format("a") + row.format("c")),
        "val": place.write("v.csv", VAL),
    }
    place.values["detector"] = {"source": "boxes", "boxes": boxes}
    place.values["ingest"]["on_error"] = "skip"
    assert place.stops() == [] and not any("bank" in text for text in place.warnings())
    place.write("boxes.csv", row.format("c"))
    (told,) = place.stops()
    assert "1 of 1 videos have no box of at least bank.min_score 0.5 at a whole second" in told
    (place.folder / "videos" / "b.mp4").unlink()
    assert not any("box(es) of at least predict.min_score" in text for text in place.stops())
