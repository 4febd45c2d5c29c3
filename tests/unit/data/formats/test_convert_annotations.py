"""`acar convert-annotations`: what it tells, what it refuses, and Kinetics clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acar import cli


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


class TestConvertCommand:
    def run(self, *arguments: Any) -> int:
        return cli.main(["convert-annotations", *map(str, arguments)])

    def test_there_and_back(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = write(tmp_path / "a.csv", "v,0902,0.1,0.2,0.3,0.4,12,7\nv,0902,0.1,0.2,0.3,0.4,80,7\n")
        classes = write(tmp_path / "map", "12: stand\n80: talk\n")
        assert self.run(source, tmp_path / "a.pkl", "--to", "acar-net", "--label-map", classes) == 0
        out = capsys.readouterr().out
        assert "a.csv: ava, 2 row(s), 1 box(es), 1 key frame(s), 1 video(s)" in out and "lost" not in out
        assert self.run(tmp_path / "a.pkl", tmp_path / "b.csv", "--to", "ava") == 0
        assert "lost: names of 2 classes" in capsys.readouterr().out
        assert (tmp_path / "b.csv").read_text() == source.read_text()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["--to", "avi"], "--to avi: unknown format; expected ava, fair"),
            (["--to", "ava", "--from", "csv"], "--from csv: unknown format"),
            (["--to", "acar-net"], "no names of classes; give them with --label-map"),
            (["--to", "exclusions"], "exclusions are made of exclusions only"),
            (["--to", "label-map-item"], "no names of classes to write"),
            (["--to", "coco", "--frame-size", "640"], "--frame-size 640: expected WIDTHxHEIGHT"),
            (
                ["--to", "coco", "--fps", "0"],
                "--fps 0: expected images a second, from 0.001 to 10000",
            ),
            (
                ["--to", "coco", "--fps", "1e-320", "--first-second", "0"],
                "--fps 9.99989e-321: expected images",
            ),
            (["--to", "coco", "--fps", "1e308", "--first-second", "0"], "--fps 1e+308: expected images"),
            (["--to", "coco", "--fps", "nan", "--first-second", "0"], "--fps nan: expected images"),
            (
                ["--to", "coco", "--fps", "30", "--first-second", "1e308"],
                "--first-second 1e+308: expected seconds, from -1e+09 to 1e+09",
            ),
            (["--to", "coco", "--first-second", "nan"], "--first-second nan: expected seconds"),
            (
                ["--to", "coco", "--frame-names", "i%099999999d.jpg", "--first-second", "0"],
                "--frame-names i%09",
            ),
            (["--to", "coco", "--fps", "25"], "--first-second S: say"),
            (["--to", "coco", "--frame-names", "image.jpg"], "--frame-names image.jpg"),
            (["--to", "fair", "--trimmed-in", "absent"], "absent: no such folder"),
            (["--to", "fair", "--from", "coco"], "a.csv, line 1, column 1: not json"),
        ],
    )
    def test_mistakes(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
    ) -> None:
        source = write(tmp_path / "a.csv", "v,0902,0.1,0.2,0.3,0.4,12,7\n")
        assert self.run(source, tmp_path / "out", *arguments) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "out").exists()

    def test_targets_that_cannot_be(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        source = write(tmp_path / "a.csv", "v,0902,0.1,0.2,0.3,0.4,12,7\n")
        classes = write(tmp_path / "map", "12: stand\n")
        for target, told in (
            (tmp_path, f"{tmp_path}: a folder"),
            (source / "x", "a.csv is a file, expected a folder"),
            (classes, "map: another file of this command"),
        ):
            assert self.run(source, target, "--to", "acar-net", "--label-map", classes) == 2
            assert told in capsys.readouterr().err
        assert classes.read_text() == "12: stand\n"

    def test_sources_that_are_no_files(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for source, told in (
            (tmp_path, "a folder; expected a file"),
            (Path("/dev/null"), "a pipe or device"),
        ):
            assert self.run(source, tmp_path / "out", "--to", "ava") == 2
            assert told in capsys.readouterr().err

    def test_empty_exclusions(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for text in ("", "\n\n"):
            source = write(tmp_path / "e.csv", text)
            assert self.run(source, tmp_path / "out", "--to", "exclusions") == 0
            assert "e.csv: exclusions, 0 key frame(s)" in capsys.readouterr().out
            assert (tmp_path / "out").read_text() == ""

    def test_scores_that_may_be_ids_are_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = write(tmp_path / "a.csv", "".join(f"v,0902,0.{k},0.2,0.8,0.4,12,{k}.0\n" for k in (0, 1)))
        assert self.run(source, tmp_path / "out", "--to", "fair") == 0
        assert "holds 0 and 1 alone, taken for scores" in capsys.readouterr().out
        assert self.run(source, tmp_path / "out", "--to", "ava", "--from", "ava") == 0
        assert "taken for" not in capsys.readouterr().out and (tmp_path / "out").read_text().endswith(
            ",1.0\n"
        )

    def test_the_source_is_not_overwritten(self, tmp_path: Path) -> None:
        source = write(tmp_path / "a.csv", "v,0902,0.1,0.2,0.3,0.4,12,7\n")
        assert self.run(source, source, "--to", "fair") == 2
        assert source.read_text().endswith(",12,7\n")

    def test_kinetics_clips(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        clips = tmp_path / "clips"
        (clips / "b_x_000000_000010").mkdir(parents=True)
        for name in ("a_000084_000094.mp4", "a_000010_000020.mp4", "film.mp4"):
            (clips / name).touch()
        lines = ["a,88.0833333,0.1,0.2,0.3,0.4,1", "b_x,5,0.1,0.2,0.3,0.4,1", "a,30,0.1,0.2,0.3,0.4,1"]
        source = write(tmp_path / "k.csv", "\n".join([*lines, "a_000010_000020,2,0.1,0.2,0.3,0.4,1"]) + "\n")
        assert self.run(source, tmp_path / "out.csv", "--to", "ava", "--trimmed-in", clips) == 0
        assert [line.split(",")[:2] for line in (tmp_path / "out.csv").read_text().splitlines()] == [
            ["a_000084_000094", "4.083333"], ["b_x_000000_000010", "0005"], ["a_000010_000020", "0002"],
        ]  # fmt: skip
        assert "\nlost: 1 row(s) of 1 key frame(s) in no clip of" in capsys.readouterr().out
        write(source, lines[0] + "\na,85.5\na,30\n")
        assert self.run(source, tmp_path / "out.csv", "--to", "ava", "--trimmed-in", clips) == 0
        told = capsys.readouterr().out
        assert (tmp_path / "out.csv").read_text().endswith("\na_000084_000094,1.5,,,,,,\n")
        assert "lost: 1 row(s) without persons of 1 key frame(s) in no clip" in told
        excluded = write(tmp_path / "e.csv", "a,90\na,31\n")
        assert self.run(excluded, tmp_path / "e2.csv", "--to", "exclusions", "--trimmed-in", clips) == 0
        assert (tmp_path / "e2.csv").read_text() == "a_000084_000094,0006\n"

    def test_the_second_at_which_a_clip_ends_is_not_its_own(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It has no frame there any more; another one may begin."""
        for name in ("v_000080_000090", "v_000090_000100", "w_000080_000090"):
            (tmp_path / "clips" / name).mkdir(parents=True)
        source = write(tmp_path / "k.csv", "".join(f"{v},90,0.1,0.2,0.3,0.4,1\n" for v in "vw"))
        assert self.run(source, tmp_path / "out.csv", "--to", "ava", "--trimmed-in", tmp_path / "clips") == 0
        assert (tmp_path / "out.csv").read_text().startswith("v_000090_000100,0000,")
        assert len((tmp_path / "out.csv").read_text().splitlines()) == 1
        told = capsys.readouterr().out
        assert "\nlost: 1 row(s) of 1 key frame(s) in no clip of" in told
        assert "; 1 of these lie at the very second that a clip ends, where it has no frame\n" in told
        write(source, "w,89.99,0.1,0.2,0.3,0.4,1\n")
        assert self.run(source, tmp_path / "out.csv", "--to", "ava", "--trimmed-in", tmp_path / "clips") == 0
        assert (tmp_path / "out.csv").read_text().startswith("w_000080_000090,9.99,")
        assert "lost" not in capsys.readouterr().out
