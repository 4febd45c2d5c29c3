"""check-data sees everything at once, says it by file and row, and knows whether a run would stop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from check_place import CLASSES, TRAIN, VAL, Place
from PIL import Image
from video_samples import tenths, write_source

from acar import cli
from acar.config import parse_config
from acar.data.check.report import as_text
from acar.data.check.survey import check_data


def test_a_good_data_set(place: Place) -> None:
    survey = check_data(place.config)
    assert survey.problems == [] and not survey.would_stop and survey.unused == []
    train, val = survey.splits
    assert (train.videos(), val.videos()) == (["a"], ["b"])
    assert train.seconds == pytest.approx(4, abs=0.11)
    assert train.actors_per_key_frame() == {1: 1, 2: 1} and val.actors_per_key_frame() == {1: 2}
    assert train.class_counts() == {1: 2, 2: 1, 4: 1}
    assert len(train.persons()) == 3
    text = as_text(survey)
    assert text.endswith("a run would work; 0 warning(s)")
    rows = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert (
        rows["label rows"] == ["4", "3"] and rows["key frames"] == ["2", "2"] and rows["boxes"] == ["3", "2"]
    )
    assert rows["seconds of video"] == ["4.0", "4.0"]
    assert "1 stand (pose)" in text


def test_all_problems_at_once(place: Place) -> None:
    lines = [
        "a,1,0.1,0.1,0.5,0.9,1,0",
        "a,1,0.1,0.1,0.5,0.9,1,0",  # repeated
        "a,1,0.1,0.1,1.5,0.9,1,0",  # out of range
        "a,1,10,20,30,40,1,0",  # the same
        "a,1,0.5,0.1,0.5,0.9,1,0",  # no area
        "a,1,0.1,wide,0.5,0.9,1,0",  # not a number
        "a,1,0.1",  # too few columns
        "a,1,0.1,0.1,0.5,0.9,9,0",  # a class beyond the map
        "a,1,0.1,0.1,0.5,0.9,3,0",  # a class in a gap of it
        "a,99,0.1,0.1,0.5,0.9,1,0",  # behind the end of the video
        "lost,1,0.1,0.1,0.5,0.9,1,0",
        "empty,1.5,0.1,0.1,0.5,0.9,1,0",
        "../b,1,0.1,0.1,0.5,0.9,1,0",
        "b,1,0.1,0.1,0.5,0.9,1,0",
    ]
    place.write("train.csv", "\n".join(lines) + "\n")
    (place.folder / "videos" / "empty.mp4").touch()
    (place.folder / "videos" / "spare.mp4").touch()
    place.values["model"] = {"backbone": {"weights": "no/such/file.safetensors"}}
    place.values["data"]["train"]["excluded"] = place.write("excluded.csv", "a;1\n")
    survey = check_data(place.config)
    stops = "\n".join(problem.text for problem in survey.problems if problem.stops)
    for told in (
        "train.csv, line 3: box 0.1,0.1,1.5,0.9 is outside the frame",
        "train.csv, line 4: box 10,20,30,40 is outside the frame",
        "train.csv, line 5: box 0.5,0.1,0.5,0.9 has no area",
        "train.csv, line 6: y1 is 'wide'",
        "train.csv, line 7: 3 columns",
        "1 repeated row(s): line 2 repeats line 1",
        "1 row(s) have classes that are not in the label map, whose last is 4: 9",
        "video `a`: it covers 0.00 to 3.90 s, its labels reach from 1 to 99 s",
        "1 of 5 video(s) have no usable source; put them there",
        "\nlost: no lost.mp4 (or other video file)",
        "empty.mp4: the file is empty",
        "video `../b`: ids name files below",
        "no/such/file.safetensors: no such file",
        "excluded.csv, line 1: 1 columns",
    ):
        assert told in stops, told
    warnings = "\n".join(problem.text for problem in survey.problems if not problem.stops)
    for told in (
        "1 row(s) have a class that the label map leaves out, so they are persons without an action: 3",
        "1 of 6 key frame(s) are not at a whole second, where alone persons are looked for",
        "1 video(s) are named by neither split's labels: spare.mp4",
        "1 video(s) are in both splits, so val does not measure what is new: b",
        "train.csv: 2 of 3 classes have no row: sit, talk",
    ):
        assert told in warnings, told
    train = survey.splits[0]
    assert (train.out_of_range, train.no_area, train.malformed, train.duplicates) == (2, 1, 2, 1)
    assert survey.would_stop and f"a run would stop: {sum(p.stops for p in survey.problems)}" in as_text(
        survey
    )


def test_on_error_skip_turns_bad_videos_and_repeats_into_warnings(place: Place) -> None:
    place.write("train.csv", TRAIN + "a,2,0.1,0.1,0.5,0.9,1,0\nlost,1,0.1,0.1,0.5,0.9,1,0\n")
    assert len(place.stops()) == 2
    place.values["ingest"]["on_error"] = "skip"
    assert place.stops() == []
    assert (
        sum("no usable source; left out" in text or "repeated row" in text for text in place.warnings()) == 2
    )
    (place.folder / "videos" / "b.mp4").unlink()
    (told,) = place.stops()
    assert "val.csv: not one of its 1 video(s) can be used" in told
    place.write("val.csv", "a,50,0.1,0.1,0.5,0.9,1,0\n")
    (told,) = place.stops()
    assert "val.csv: not one of its 1 video(s) can be used" in told
    assert any("val.csv: 1 video(s) do not hold all of their labels" in text for text in place.warnings())


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("map", "stand 1", "map, line 1: cannot read"),
        ("train.csv", "", "train.csv: no rows"),
        ("train.csv", b"\xe9,1\n", "train.csv, line 1: not UTF-8"),
        ("val.csv", "b,1,0.1,0.1,0.5,0.9,3,0\n", "val.csv: no row has a class of the label map"),
    ],
)
def test_a_file_that_cannot_be_used(place: Place, file: str, content: str | bytes, told: str) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (place.folder / file).write_bytes(data)
    assert any(told in text for text in place.stops()), place.stops()
    assert "a run would stop" in as_text(check_data(place.config))


def test_absent_files(place: Place) -> None:
    for file in ("map", "train.csv", "val.csv"):
        (place.folder / file).unlink()
    place.values["data"]["videos"] = str(place.folder / "nowhere")
    told = place.stops()
    assert len(told) == 4 and all("no such" in text for text in told)
    assert "a run would stop: 4" in as_text(check_data(place.config))


@pytest.mark.parametrize("labels", [None, "a,1,0.1,wide,0.5,0.9,1,0\n", "a,1\n"])
def test_absent_files_are_told_whatever_the_labels_are(place: Place, labels: str | None) -> None:
    data, absent = place.values["data"], {f"x{k}.csv" for k in range(4)}
    for k, split in enumerate(("train", "val")):
        (place.folder / f"{split}.csv").unlink()
        if labels is not None:
            place.write(f"{split}.csv", labels)
        data[split]["excluded"] = f"x{k}.csv"
    place.values["detector"] = {"source": "boxes", "boxes": {"train": "x2.csv", "val": "x3.csv"}}
    stops = place.stops()
    assert len(stops) == 6 and all(any(name in text for text in stops) for name in absent)


def test_malformed_exclusions_are_told_at_once(place: Place) -> None:
    place.values["data"]["val"]["excluded"] = place.write("excluded.csv", "b;1\nb,1\nb,soon\nb,late\n")
    told = "\n".join(place.stops())
    assert "excluded.csv, line 1: 1 columns" in told and "line 3: time" in told and "line 4: time" in told
    assert check_data(place.config).splits[1].excluded == {("b", 1.0)}


def test_poses(place: Place) -> None:
    place.write("val.csv", VAL + "b,1,0.1,0.1,0.5,0.9,2,0\nb,3,0.1,0.1,0.5,0.9,4,0\n")
    (told,) = place.warnings()
    assert "of 3 labelled persons 1 have several of the exclusive classes and 1 have none" in told
    place.values["data"]["class_groups"] = {"pose": ["stand", "stnad"]}
    assert any("data.class_groups.pose: no class of" in text and "'stand'" in text for text in place.stops())
    assert "groups of classes" not in as_text(check_data(place.config)) and "1 stand" in as_text(
        check_data(place.config)
    )


@pytest.mark.parametrize(
    ("groups", "classes", "source", "rows"),
    [
        (None, CLASSES, "of the label map", {"pose, exclusive": "2 3 2", "in no group": "1 1 1"}),
        ({"things": [4]}, CLASSES, "of data.class_groups",
         {"pose, exclusive": "0 0 0", "things": "1 1 1", "in no group": "2 3 2"}),
        (None, "1: stand\n2: sit\n4: talk\n", "none: neither data.class_groups nor the label map",
         {"pose, exclusive": "0 0 0", "in no group": "3 4 3"}),
        (None, "1: bend/bow (at the waist)\n4: dance\n12: stand\n17: carry/hold (an object)\n80: watch (a person)\n",
         "AVA's, since", {"pose, exclusive": "3 3 2", "object": "1 0 0", "person": "1 0 0", "in no group": "0 0 0"}),
    ],
)  # fmt: skip
def test_groups_and_where_they_come_from(
    place: Place, groups: dict | None, classes: str, source: str, rows: dict[str, str]
) -> None:
    place.write("map", classes)
    place.values["data"]["class_groups"] = groups
    lines = as_text(check_data(place.config)).splitlines()
    (at,) = [k for k, line in enumerate(lines) if line.startswith("groups of classes: ")]
    assert source in lines[at]
    table = lines[at + 2 : lines.index("", at)]
    assert {line[:19].strip(): " ".join(line[19:].split()) for line in table} == rows


def test_the_span(place: Place) -> None:
    place.values["data"]["span_s"] = [1, 1]
    place.values["ingest"]["margin_s"] = 0
    survey = check_data(place.config)
    assert [facts.unused_rows for facts in survey.splits] == [1, 2]
    stops = [problem.text for problem in survey.problems if problem.stops]
    assert len(stops) == 2 and all("(after the cut to data.span_s) 1.00 to 1.00 s" in text for text in stops)
    place.values["ingest"]["margin_s"] = 2
    assert place.stops() == []
    place.values["data"]["span_s"] = [100, 200]
    assert sum("no row is inside of data.span_s [100.0, 200.0]" in text for text in place.stops()) == 2


def test_frame_folders(place: Place) -> None:
    (place.folder / "videos" / "a.mp4").unlink()
    folder = place.folder / "videos" / "a"
    folder.mkdir()
    for number in range(1, 22):
        Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(folder / f"image_{number:06d}.jpg")
    assert check_data(place.config).splits[0].seconds == pytest.approx(2.1)
    (folder / "image_000007.jpg").unlink()
    (told,) = place.stops()
    assert "image_000007.jpg is missing" in told


def test_thousands_of_bad_videos_are_a_few_lines(place: Place) -> None:
    names = [f"v{number:04d}" for number in range(3000)]
    place.write("train.csv", TRAIN + "".join(f"{name},1,0.1,0.1,0.5,0.9,1,0\n" for name in names))
    for number, name in enumerate(names[:40]):
        source = place.folder / "videos" / f"{name}.mp4"
        if number % 2:
            source.symlink_to(place.folder / "videos" / "a.mp4")
        else:
            source.touch()
    place.write("val.csv", VAL + "".join(f"{name},7,0.1,0.1,0.5,0.9,1,0\n" for name in names[1:40:2]))
    text = as_text(check_data(place.config))
    for told in (
        "train.csv: 2960 of 3001 video(s) have no usable source",
        "v0040: no v0040.mp4",
        "and 2955 more",
        "train.csv: 20 video(s) cannot be read",
        "val.csv: 20 video(s) do not hold all of their labels",
        "and 15 more",
    ):
        assert told in text, told
    assert len(text.splitlines()) < 65


def test_the_command(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path = place.folder / "config.yaml"
    path.write_text(yaml.safe_dump(place.values))
    over = place.folder / "over.yaml"
    over.write_text(yaml.safe_dump({"data": {"label_map": str(place.folder / "none.pbtxt")}}))
    assert cli.main(["check-data", str(path)]) == 0
    assert "a run would work" in capsys.readouterr().out
    assert cli.main(["check-data", str(path), str(over)]) == 1
    assert "none.pbtxt: no such file" in capsys.readouterr().out
    assert cli.main(["check-data", "--config", str(path), "--no-videos"]) == 0
    assert "seconds of video" not in capsys.readouterr().out
    assert cli.main(["check-data"]) == 2
    assert capsys.readouterr().err.startswith("acar check-data: name the config")


def test_a_data_set_that_is_not_drawn_yet(tmp_path: Path) -> None:
    survey = check_data(parse_config({"run": {"results": str(tmp_path)}}))
    assert not survey.would_stop and "not drawn yet" in as_text(survey)


def test_nothing_heavy_is_imported() -> None:
    import subprocess
    import sys

    code = "import sys, acar.data.check.survey, acar.data.check.report; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_real_clips(shared: Path, tmp_path: Path) -> None:
    clips = shared / "data" / "ava_clips"
    lines = (clips / "labels.csv").read_text().splitlines(keepends=True)
    (tmp_path / "train.csv").write_text("".join(line for line in lines if line[0] in "12"))
    (tmp_path / "val.csv").write_text("".join(line for line in lines if line[0] == "3"))
    data = {
        "source": "files", "videos": str(clips), "label_map": str(clips / "label_map.pbtxt"),
        "class_groups": {"pose": ["bow", "stand", "sit", "walk"]}, "train": {"labels": str(tmp_path / "train.csv")},
        "val": {"labels": str(tmp_path / "val.csv")},
    }  # fmt: skip
    survey = check_data(parse_config({"data": data}))
    train, val = survey.splits
    assert not survey.would_stop and train.seconds == pytest.approx(22) and val.seconds == pytest.approx(11)
    assert len(train.labels) + len(val.labels) == 84
    assert len(train.persons()) + len(val.persons()) == 63
    assert sum(train.actors_per_key_frame().values()) + sum(val.actors_per_key_frame().values()) == 21


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["b,1,0.1,0.1,0.3,0.9,1", "b,1,0.5,0.1,0.9,0.9,1"], "of `stand` without a person id at second 0001"),
        (["b,1,0.1,0.1,0.3,0.9,1,7", "b,1,0.5,0.1,0.9,0.9,1,7"], "of `stand` of person `7` at second 0001"),
        (["b,1,0.1,0.1,0.3,0.9,1,7", "b,1,0.5,0.1,0.9,0.9,1,8"], None),
        (["b,1,0.1,0.1,0.3,0.9,1", "b,1,0.5,0.1,0.9,0.9,2", "b,2,0.1,0.1,0.3,0.9,1"], None),
        (["b,1,0.1,0.1,0.3,0.9,,7", "b,1,0.5,0.1,0.9,0.9,,7", "b,1,0.5,0.1,0.9,0.9,1,7"], None),
    ],
)
def test_tubes_have_a_box_a_frame(place: Place, lines: list[str], told: str | None) -> None:
    place.write("val.csv", "\n".join(lines) + "\n")
    assert place.stops() == []  # AVA's rules know no tubes
    place.values["evaluation"] = {"protocol": "ucf24"}
    stops = place.stops()
    assert [told in text for text in stops] == ([True] if told else [])
    assert all("1 row(s) are a second box" in text and "video `b`" in text for text in stops)
    place.values["data"]["val"]["excluded"] = place.write("excluded.csv", "b,1\nb,9\n")
    assert not any("second box" in text for text in place.stops())


def test_exclusions_of_other_videos_are_told(place: Place) -> None:
    place.values["data"]["train"]["excluded"] = place.write(
        "excluded.csv", "a,1\nghost,1\nghost,2\na.mp4,1\n"
    )
    assert place.stops() == []
    (told,) = [text for text in place.warnings() if "excluded.csv" in text]
    assert (
        "3 of 4 key frame(s) are of videos that" in told and "a.mp4, ghost; ids there look like 'a'" in told
    )
    place.write("excluded.csv", "a,1\na,77\n")
    assert not any("excluded.csv" in text for text in place.warnings())


def test_rows_alike_are_one_problem_and_no_remark_on_the_span(place: Place) -> None:
    place.write("train.csv", TRAIN.replace(",1,0\n", "\n").replace(",4,0\n", "\n").replace(",2,1\n", "\n"))
    (told,) = [text for text in place.stops() if "train.csv" in text]
    lines = told.splitlines()
    assert [", line 1: 6 columns" in lines[0], ", line 3: 6 columns" in lines[2]] == [True, True]
    assert lines[3:] == ["and 1 more such rows"] and "span_s" not in told
    assert as_text(check_data(place.config)).endswith("a run would stop: 1 problem(s), 1 warning(s)")
    place.write("train.csv", TRAIN)
    place.values["data"]["span_s"] = [30, 40]
    told = "\n".join(place.stops())
    assert "train.csv: no row is inside of data.span_s [30.0, 40.0]; correct that or the times" in told


def test_all_that_counts_is_excluded_or_left_out(place: Place) -> None:
    write_source(place.folder / "videos" / "c.mp4", tenths(40))
    place.write("train.csv", TRAIN + "c,1,0.1,0.1,0.5,0.9,1,0\nc,9,0.1,0.1,0.5,0.9,1,0\n")
    place.values["data"]["train"]["excluded"] = place.write("excluded.csv", "a,1\na,2\n")
    place.values["ingest"]["on_error"] = "skip"
    (told,) = place.stops()  # c is skipped: it has no second 9
    assert "every labelled key frame of" in told and told.endswith(
        "is excluded, or of a video that is left out"
    )
    place.write("excluded.csv", "a,1\n")
    assert place.stops() == []
    place.write("excluded.csv", "a,1\na,2\nc,1\nc,9\n")
    place.values["ingest"]["on_error"] = "stop"
    assert sum("excluded.csv: every labelled key frame of" in text for text in place.stops()) == 1
