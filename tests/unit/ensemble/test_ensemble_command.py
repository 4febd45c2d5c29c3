"""`acar ensemble` on files and folders, right and wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from acar.cli import main
from acar.data.detection_files import read_any_detections, write_detection_files, write_detection_parquet
from acar.data.tables import BOX_COLUMNS, DETECTION_COLUMNS, read_detections
from acar.ensemble.sources import files_of_run

BOX = "0.100000,0.100000,0.500000,0.900000"
MAP = """
item { name: "stand" id: 1 group: "pose" }
item { name: "sit" id: 2 group: "pose" }
item { name: "talk" id: 3 }
"""


def rows(*scores: float, video: str = "a", box: str = BOX) -> str:
    return "".join(
        f"{video},0902,{box},{number},{score:.6f}\n" for number, score in enumerate(scores, start=1)
    )


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name, text in (("a.csv", rows(0.8, 0.2, 0.9)), ("b.csv", rows(0.5, 0.5, 0.5, box="0.1,0.1,0.5,0.9"))):
        (tmp_path / name).write_text(text)
    return [tmp_path / "a.csv", tmp_path / "b.csv"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "both.csv"


def run(runs: list[Path], out: Path, *more: str) -> int:
    return main(["ensemble", *map(str, runs), "--out", str(out), *more])


def predictions(seed: int, n_actors: int = 30) -> pd.DataFrame:
    """What `predict` writes: three videos, random boxes, four classes each."""
    draw = np.random.default_rng(seed)
    corners = np.sort(draw.random((n_actors, 2, 2)), axis=1).reshape(n_actors, 4).repeat(4, axis=0)
    table = pd.DataFrame(corners, columns=BOX_COLUMNS)
    table["video"] = pd.array([f"v{number % 3}" for number in range(n_actors)], dtype="str").repeat(4)
    table["time_s"] = (draw.integers(900, 910, n_actors) + draw.choice([0.0, 0.5], n_actors)).repeat(4)
    table["action_id"] = np.tile(np.arange(1, 5), n_actors)
    table["score"] = draw.random(len(table)) ** 3
    return table[DETECTION_COLUMNS]


def test_the_summary_and_the_file(files: list[Path], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(files, out, "--weights", "2", "1") == 0
    assert out.read_text() == rows(0.7, 0.3, 0.766667)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split() for line in printed[:3]] == [
        ["weight", "rows", "key", "frames", "run"],
        ["0.6667", "3", "1", str(files[0])],
        ["0.3333", "3", "1", str(files[1])],
    ]
    assert printed[3:] == [
        "mean of scores",
        "3 rows in every run, 0 in some only; 0 box(es) differ between runs by rounding",
        f"{out}: 3 rows",
    ]


def test_logits_and_the_label_map(
    files: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map").write_text(MAP)
    assert run(files, out, "--average", "logits", "--labelmap", str(tmp_path / "map")) == 0
    assert out.read_text() == rows(0.666667, 0.333333, 0.75)
    assert "mean of logits, classes 1, 2 as exclusive ones (softmax)" in capsys.readouterr().out
    assert run(files, out, "--average", "logits") == 0
    assert out.read_text() == rows(0.666667, 0.333333, 0.75)  # two classes: their odds are their ratio
    assert "each class by itself (no class is known to be exclusive: --labelmap)" in capsys.readouterr().out


def test_groups_of_another_label_map(
    files: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list").write_text("1: stand\n2: sit\n3: talk\n")
    (tmp_path / "map").write_text(MAP)
    more = ["--average", "logits", "--labelmap", str(tmp_path / "list")]
    assert run(files, out, *more) == 0
    assert "each class by itself" in capsys.readouterr().out
    assert run(files, out, *more, "--groups", str(tmp_path / "map")) == 0
    assert "classes 1, 2 as exclusive" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labelmap", "groups", "told"),
    [
        (
            "1: stand\n2: sit\n3: talk\n",
            "1: stand\n",
            "no class of {labelmap} is in its group `pose`, so none",
        ),
        (
            "1: stand\n",
            MAP.replace("pose", "PERSON"),
            "is in its group `pose` (but in `PERSON`), so none would be",
        ),
        ("3: talk\n", MAP, "no class of {labelmap} is in its group `pose`, so none would be"),
        (MAP.replace("pose", "person"), MAP, "not read, since {labelmap} tells groups itself, and no `pose`"),
    ],
)
def test_groups_that_leave_no_class_exclusive_are_refused(
    files: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], labelmap: str,
    groups: str, told: str,
) -> None:  # fmt: skip
    (tmp_path / "list").write_text(labelmap)
    (tmp_path / "map").write_text(groups)
    more = ["--average", "logits", "--labelmap", str(tmp_path / "list"), "--groups", str(tmp_path / "map")]
    assert run(files, out, *more) == 2
    assert told.format(labelmap=tmp_path / "list") in capsys.readouterr().err
    assert not out.exists()


def test_the_groups_of_avas_list_are_known_of_both_maps(
    files: list[Path], out: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated = str(shared / "data" / "ava_files" / "ava_action_list_v2.2_for_activitynet_2019.pbtxt")
    for path in files:
        path.write_text(path.read_text().replace(",2,", ",4,").replace(",3,", ",80,"))
    assert run(files, out, "--average", "logits", "--labelmap", evaluated, "--groups", evaluated) == 0
    assert "classes 1, 4 as exclusive ones (softmax)" in capsys.readouterr().out


def test_why_no_class_is_exclusive(
    files: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map").write_text("1: stand\n")
    more = ["--average", "logits", "--labelmap", str(tmp_path / "map")]
    assert run(files, out, *more) == 0
    assert (
        "by itself (no class of --labelmap is in a group `pose`: --groups names a map"
        in capsys.readouterr().out
    )
    (tmp_path / "map").write_text('item { name: "run" id: 8 group: "pose" }')
    assert run(files, out, *more) == 0
    assert "by itself (the exclusive ones, 8, are in no run)" in capsys.readouterr().out


@pytest.mark.parametrize("average", ["scores", "logits"])
def test_our_own_file_alone_stays_as_it_is(tmp_path: Path, out: Path, average: str) -> None:
    run_folder = tmp_path / "run"
    write_detection_files(predictions(0), run_folder)
    csv = run_folder / "detections.csv"
    for given in (csv, run_folder / "detections.parquet", run_folder):
        assert run([given], out, "--average", average) == 0
        assert out.read_bytes() == csv.read_bytes()
    parquet = out.with_suffix(".parquet")
    assert run([csv], parquet, "--average", average) == 0
    pd.testing.assert_frame_equal(read_any_detections(parquet), read_detections(csv), check_exact=True)


def test_a_folder_of_shards_is_one_run(tmp_path: Path, out: Path) -> None:
    parts = [predictions(seed) for seed in range(3)]
    for number, part in enumerate(parts):
        folder = tmp_path / "stage2" / f"shard-{number:03d}"
        folder.mkdir(parents=True)
        write_detection_files(part, folder)
    write_detection_files(pd.concat(parts), tmp_path)
    assert run([tmp_path / "stage2"], out) == 0
    assert out.read_bytes() == (tmp_path / "detections.csv").read_bytes()
    assert run([tmp_path / "stage2", tmp_path / "detections.csv"], out, "--weights", "1", "7") == 0
    assert out.read_bytes() == (tmp_path / "detections.csv").read_bytes()


def test_a_peers_three_decimals_and_short_times(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours.csv", tmp_path / "theirs.csv"
    ours.write_text(rows(0.4, 0.2, box="0.123456,0.200499,0.500000,0.900000"))
    theirs.write_text("a,902,0.123,0.200,0.500,0.900,2,0.8\na,902.0,0.123,0.200,0.500,0.900,1,0.600\n")
    assert run([ours, theirs], out) == 0
    assert out.read_text() == rows(0.5, 0.5, box="0.123456,0.200499,0.500000,0.900000")
    assert "1 box(es) differ between runs by rounding" in capsys.readouterr().out


def test_rows_that_a_run_lacks(files: list[Path], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files[0].write_text(rows(0.8, 0.2) + rows(0.6, video="b"))
    files[1].write_text(rows(0.4, 0.2))
    assert run(files, out) == 2
    told = capsys.readouterr().err
    assert (
        f"{files[1]}: no row for one of {files[0]} (video b, second 0902, box 0.1,0.1,0.5,0.9, class 1)"
        in told
    )
    assert not out.exists()
    assert run(files, out, "--unmatched", "average") == 0
    assert out.read_text() == rows(0.6, 0.2) + rows(0.6, video="b")
    assert (
        "2 rows in every run, 1 in some only (averaged over the runs that have them)"
        in capsys.readouterr().out
    )
    assert run(files, out, "--unmatched", "zero") == 0
    assert out.read_text() == rows(0.6, 0.2) + rows(0.3, video="b")
    assert "(counted as 0 in the others)" in capsys.readouterr().out


def test_the_same_run_twice_is_a_warning(
    files: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([files[0], files[1]], out) == 0
    assert "warning" not in capsys.readouterr().err
    assert run([files[0], files[1], files[0]], out) == 0
    told = capsys.readouterr().err
    assert f"warning: {files[0]} (run 3) holds exactly the rows of {files[0]}; their weights add up" in told
    assert out.read_text() == rows(0.7, 0.3, 0.766667)


def test_an_existing_file_is_replaced(files: list[Path], out: Path) -> None:
    out.parent.mkdir()
    out.write_text("old")
    assert run(files, out) == 0
    assert out.read_text() == rows(0.65, 0.35, 0.7)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no rows"),
        (
            f"a,0902,{BOX},1\n",
            "line 1: 7 columns; expected video,time_s,x1,y1,x2,y2,action_id,score",
        ),
        (rows(0.5) + f"a,0902,{BOX},2\n", "line 2: 7 columns"),
        (
            rows(0.5, 3.25, 0.5),
            "row 2 (video a, second 0902, class 2): score is 3.25; expected a probability",
        ),
        (rows(0.5, 0.5), "no row of 1 class(es) that"),
        ("a,902,10,10,50,90,1,0.5\n", "line 1: box 10,10,50,90 is outside the frame"),
        ("PAR1 but not whole", "not a readable parquet table"),
    ],
)
def test_bad_runs_are_named(
    files: list[Path], out: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    files[1].write_text(text)
    assert run(files, out) == 2
    told = capsys.readouterr().err
    assert str(files[1]) in told and complaint in told
    assert not out.exists()


def test_parquet_without_scores_is_named(
    files: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read_detections(files[1]).drop(columns="score").to_parquet(files[1])
    assert run(files, out) == 2
    assert f"{files[1]}: has no column score" in capsys.readouterr().err


def test_inputs_that_are_not_there(
    files: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([files[0], tmp_path / "c.csv"], out) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'c.csv'}: no such file; expected a result csv, a parquet file" in told
    assert "correct the name, or leave this run out" in told
    (tmp_path / "empty").mkdir()
    assert run([files[0], tmp_path / "empty"], out) == 2
    assert f"{tmp_path / 'empty'}: neither detections.csv nor shard-*/ in it" in capsys.readouterr().err
    (tmp_path / "empty" / "shard-000").mkdir()
    assert run([files[0], tmp_path / "empty"], out) == 2
    told = capsys.readouterr().err
    assert "shard-000/detections.csv: no such file; expected what `acar predict` writes" in told
    assert "run `acar predict --shard 0`" in told


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("both.json", "suffix '.json'; expected a file named .csv"),
        ("folder.csv", "a folder; expected a file named .csv"),
        ("a.csv", "which would be overwritten"),
        ("a.csv/both.csv", "a.csv is a file, expected a folder"),
        ("runs/detections.csv", "runs, which is a run; expected a place outside of it"),
        ("runs/deeper/x.csv", "runs, which is a run; expected a place outside of it"),
        ("loop.csv", "symbolic links lead back to themselves"),
        ("x" * 252 + ".csv", "the name is too long"),
        ("y" * 256 + "/x.csv", "the name is too long"),
    ],
)
def test_bad_outputs_are_refused_before_the_work(
    files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, complaint: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "runs").mkdir()
    write_detection_files(read_detections(files[0]), tmp_path / "runs")
    before = files[0].read_bytes()
    assert run([*files, tmp_path / "runs"], tmp_path / name) == 2
    told = capsys.readouterr().err
    assert f"--out {tmp_path / name}: " in told and complaint in told and "videos" not in told
    assert files[0].read_bytes() == before


def test_a_folder_that_may_not_be_written(
    files: list[Path], out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acar.files.os.access", lambda *_: False)  # root may write all
    assert run(files, out) == 2
    assert f"{out.parent.parent} may not be written by this user" in capsys.readouterr().err


@pytest.mark.parametrize("length", [244, 255])
def test_a_name_as_long_as_may_be(files: list[Path], out: Path, length: int) -> None:
    longest = out.with_name("x" * (length - 4) + ".csv")
    assert run(files, longest) == 0
    assert longest.read_text() == rows(0.65, 0.35, 0.7)
    assert list(out.parent.iterdir()) == [longest]


@pytest.mark.parametrize("name", ["loop.csv", "x" * 256])
def test_runs_whose_names_no_file_can_have(
    files: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert run([files[0], tmp_path / name], out) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"acar ensemble: {tmp_path / name}: ") and "name another" in told


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of a run, and what else may lie beside them."""
    for number in range(3):
        folder = tmp_path / "stage2" / f"shard-{number:03d}"
        folder.mkdir(parents=True)
        write_detection_files(predictions(number), folder)
    (tmp_path / "stage2" / "shard-003").write_text("a file")
    (tmp_path / "stage2" / "shard-old").mkdir()
    return tmp_path / "stage2"


def test_shards_are_folders_by_number(shards: Path) -> None:
    assert [folder.name for folder in files_of_run(shards)] == ["shard-000", "shard-001", "shard-002"]
    (shards / "shard-003").unlink()
    for number in range(3, 1001):
        (shards / f"shard-{number:03d}").mkdir()
        (shards / f"shard-{number:03d}" / "detections.csv").touch()
    assert [folder.name for folder in files_of_run(shards)[-2:]] == ["shard-999", "shard-1000"]


def test_a_missing_shard_is_refused(shards: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(shards / "shard-001")
    assert run([shards], out) == 2
    told = capsys.readouterr().err
    assert f"{shards / 'shard-001'}: no such folder; expected all shards from 0 to 2" in told
    assert "run `acar predict --variant stage2 --shard 1`" in told
    (shards / "shard-001").mkdir()
    assert run([shards], out) == 2
    assert f"{shards / 'shard-001' / 'detections.csv'}: no such file" in capsys.readouterr().err
    write_detection_files(predictions(1), shards / "shard-001")
    (shards / ".shard-004.tmp").mkdir()
    assert run([shards], out) == 2
    told = capsys.readouterr().err
    assert f"{shards / 'shard-003'}: no such folder and 1 more; expected all shards from 0 to 4" in told
    assert not out.exists()


@pytest.mark.parametrize("name", ["detections.csv", "shard-009.csv", "shard-000/detections.parquet"])
def test_nothing_is_written_into_a_run(
    files: list[Path], shards: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run([shards], shards / name) == 2
    assert f"--out {shards / name}: inside of {shards}, which is a run" in capsys.readouterr().err
    assert run(files, shards / "detections.csv") == 2
    assert "beside the shards of a run, which it would hide" in capsys.readouterr().err
    assert not (shards / "detections.csv").exists()


def test_a_file_beside_shards_is_ambiguous(
    files: list[Path], shards: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (shards / "detections.csv").write_text(files[0].read_text())
    assert run([shards], out) == 2
    assert f"{shards}: both detections.csv and shard-000/ in it" in capsys.readouterr().err
    assert run([shards / "detections.csv"], out) == 0


def test_repeated_rows_are_told(files: list[Path], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files[1].write_text(files[1].read_text() * 2)
    for order in (files, files[::-1]):
        assert run(order, out) == 2
        told = capsys.readouterr().err
        assert f"{files[1]}: repeats a row (video a, second 0902, box 0.1,0.1,0.5,0.9, class 1)" in told
        assert f"that {files[0]} has 1 time(s); in all 3 row(s) are not in every run" in told


@pytest.mark.parametrize("unmatched", ["average", "zero"])
def test_nothing_in_common_is_a_warning(
    files: list[Path], out: Path, capsys: pytest.CaptureFixture[str], unmatched: str
) -> None:
    files[1].write_text(rows(0.5, 0.5, 0.5, video="A"))
    assert run(files, out, "--unmatched", unmatched) == 0
    told = capsys.readouterr().err
    assert "ensemble: warning: no row is in every run" in told
    assert f"{files[1]} has videos such as 'A', {files[0]} such as 'a'" in told
    files[1].write_text(rows(0.5, video="A") + rows(0.5))
    assert run(files, out, "--unmatched", unmatched) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--weights", "1"], "weights 1: 1 for 2 run(s)"),
        (["--weights", "1", "0"], "weights 1 0: expected numbers above 0"),
        (["--weights", "1", "-2"], "weights 1 -2: expected numbers above 0"),
        (["--weights", "nan", "1"], "weights nan 1: expected numbers above 0"),
        (["--labelmap", "map"], "--labelmap: only --average logits asks"),
        (["--groups", "map"], "--groups: tells the groups of --labelmap"),
        (["--average", "logits", "--labelmap", "no-map"], "no-map: no such file"),
    ],
)
def test_options_are_checked(
    files: list[Path], out: Path, capsys: pytest.CaptureFixture[str], more: list[str], complaint: str
) -> None:
    assert run(files, out, *more) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [["--average", "votes"], ["--unmatched", "drop"], ["--weights", "much", "1"]]
)
def test_unknown_choices_are_refused(files: list[Path], out: Path, more: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(files, out, *more)
    assert stop.value.code == 2


def test_torch_is_not_imported() -> None:
    code = "import sys, acar.ensemble.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_parquet_in_and_out(files: list[Path], out: Path, tmp_path: Path) -> None:
    write_detection_parquet(read_detections(files[1]), tmp_path / "b.parquet")
    assert run([files[0], tmp_path / "b.parquet"], out.with_suffix(".parquet")) == 0
    assert run(files, out) == 0
    pd.testing.assert_frame_equal(
        read_any_detections(out.with_suffix(".parquet")), read_detections(out), check_exact=True
    )
