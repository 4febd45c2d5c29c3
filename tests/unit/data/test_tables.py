from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from acar.data.findings import Findings
from acar.data.tables import (
    DETECTION_COLUMNS,
    PERSON_BOX_COLUMNS,
    ActionClass,
    LabelMap,
    check_any_usable,
    check_labels,
    format_time,
    read_box_csv,
    read_detections,
    read_excluded,
    read_key_frames,
    read_labels,
    read_videos,
    repeated_labels,
    write_box_csv,
    write_detections,
)
from acar.errors import UserError

GOOD = "a,0902,0.1,0.2,0.3,0.4,12,0\n"
RELAXED = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestLabels:
    def test_columns_and_types(self, file: Path) -> None:
        table = read_labels(written(file, GOOD + "a,903.5,0.1,0.2,0.3,0.4,,7\n"))
        assert table.columns.tolist() == ["video", "time_s", "x1", "y1", "x2", "y2", "action_id", "actor_id"]
        assert table.iloc[0].tolist() == ["a", 902.0, 0.1, 0.2, 0.3, 0.4, 12, "0"]
        assert table["action_id"].dtype == "Int64"
        assert table["time_s"].tolist() == [902.0, 903.5]
        assert table["action_id"].isna().tolist() == [False, True]

    @pytest.mark.parametrize("time", ["902", "0902", "902.0", "902.000000", "902.0000000001"])
    def test_one_key_frame_whatever_its_spelling(self, file: Path, time: str) -> None:
        table = read_labels(written(file, GOOD.replace("0902", time)))
        assert table["time_s"].tolist() == [902.0]

    @pytest.mark.parametrize("video", ["007", "NA", "nan", "-5KQ66BBWC4", "1e5"])
    def test_video_ids_stay_text(self, file: Path, video: str) -> None:
        assert read_labels(written(file, video + GOOD[1:]))["video"].tolist() == [video]

    @pytest.mark.parametrize(
        "text",
        [
            GOOD.replace(",0\n", "\n"),  # no actor id
            "\ufeff" + GOOD,  # byte order mark
            GOOD.replace("\n", "\r\n"),
            GOOD.rstrip("\n"),
            "\n" + GOOD + "\n\n",
            GOOD.replace(",", " , "),
            GOOD.replace("12", "12.0"),
        ],
    )
    def test_harmless_variations(self, file: Path, text: str) -> None:
        table = read_labels(written(file, text))
        assert table.loc[0, ["video", "time_s", "x2", "action_id"]].tolist() == ["a", 902.0, 0.3, 12]

    def test_rows_with_and_without_actor_id_may_mix(self, file: Path) -> None:
        assert read_labels(written(file, GOOD + "a,0902,0.1,0.2,0.3,0.4,12\n"))["actor_id"].tolist() == [
            "0",
            "",
        ]

    def test_key_frame_without_persons_is_left_out(self, file: Path) -> None:
        assert len(read_labels(written(file, "b,0900,,,,,,\n" + GOOD))) == 1

    def test_slop_is_clipped_unless_asked_not_to(self, file: Path) -> None:
        written(file, "a,0902,-0.0005,0.2,1.0005,0.4,12,0\n")
        assert read_labels(file).loc[0, ["x1", "x2"]].tolist() == [0.0, 1.0]
        assert read_labels(file, clip=False).loc[0, ["x1", "x2"]].tolist() == [-0.0005, 1.0005]

    @pytest.mark.parametrize(
        ("text", "place", "complaint"),
        [
            ("", "", "no rows"),
            ("\n  \n", "", "no rows"),
            ("\ufeff\ufeff" + GOOD, "line 1", "an invisible byte order mark (U+FEFF) within the text"),
            (GOOD + "\ufeff" + GOOD, "line 2", "an invisible byte order mark (U+FEFF) within the text"),
            ("video,time,x1,y1,x2,y2,action,person\n" + GOOD, "line 1", "header"),
            (GOOD + "a,0902,0.1,0.2,0.3\n", "line 2", "5 columns"),
            (GOOD + "a,0902,0.1,0.2,0.3,0.4,12,0,1\n", "line 2", "9 columns"),
            (GOOD + "\n" + GOOD.replace("0.3", "wide"), "line 3", "x2 is 'wide'"),
            (GOOD + GOOD.replace("0902", "nan"), "line 2", "time_s is 'nan'"),
            (GOOD + GOOD.replace("0902", ""), "line 2", "time_s is ''"),
            (GOOD + GOOD.replace("12", "sit"), "line 2", "action_id is 'sit'"),
            (GOOD + GOOD.replace("12", "1.5"), "line 2", "action_id is '1.5'"),
            (GOOD + GOOD.replace("12", "0"), "line 2", "action id is 0"),
            (GOOD + GOOD.replace("12", "-1"), "line 2", "action id is -1"),
            (GOOD + "," + GOOD[2:], "line 2", "no video id"),
            (GOOD + "\n" + GOOD.replace("0.3", "0.1"), "line 3", "no area"),
            (GOOD + GOOD.replace("0.4", "0.15"), "line 2", "no area"),
            (GOOD + GOOD.replace("0.3", "30"), "line 2", "outside the frame"),
            (GOOD + GOOD.replace("0.3", "inf"), "line 2", "x2 is inf"),
            (GOOD + GOOD.replace("0.3", ""), "line 2", "x2 is nan"),
            ("b,0900,,,,,,\n" + GOOD.replace("0.3", "30"), "line 2", "outside the frame"),
            ("\n" + GOOD.replace("0902", "90x"), "line 2", "time_s is '90x'; expected a number; correct or"),
            (GOOD.replace("0902", "nine"), "line 1", "time_s is 'nine'; expected a number; correct or"),
            (
                "\nvideo,t,a,b,c,d,e\n" + GOOD,
                "line 2",
                "time_s is 't'; expected a number; these csv files have no",
            ),
            (GOOD + GOOD.replace("12", "0x3"), "line 2", "action_id is '0x3'; expected a whole number"),
            (GOOD + GOOD.replace("12", "1_2"), "line 2", "action_id is '1_2'; expected a whole number"),
            (GOOD + GOOD.replace("12", str(2**53 + 2)), "line 2", "action_id is '9007199254740994'"),
            (
                GOOD + GOOD.replace("0902", "1.1e9"),
                "line 2",
                "time_s is 1.1e+09; expected seconds, at most 1e+09",
            ),
            (GOOD + GOOD.replace("0902", "-2e14"), "line 2", "time_s is -2e+14"),
            (GOOD + GOOD.replace("0902", "inf"), "line 2", "time_s is inf"),
            (
                GOOD + '"a,0902,0.1,0.2,0.3,0.4,12,0\n' + GOOD * 3,
                "line 2",
                "a quote that is opened here is not",
            ),
        ],
    )
    def test_mistakes_are_named_by_file_and_line(
        self, file: Path, text: str, place: str, complaint: str
    ) -> None:
        with pytest.raises(UserError) as caught:
            read_labels(written(file, text))
        assert str(file) in str(caught.value)
        assert place in str(caught.value) and complaint in str(caught.value)

    def test_not_utf8(self, file: Path) -> None:
        with pytest.raises(UserError, match=r", line 2: not UTF-8 text"):
            read_labels(written(file, GOOD.encode() + b"caf\xe9,0902,0.1,0.2,0.3,0.4,12,0\n"))

    def test_no_such_file(self, file: Path) -> None:
        with pytest.raises(UserError, match="no such file"):
            read_labels(file)

    def test_folders_and_devices_are_named_as_such(self, file: Path) -> None:
        file.mkdir()
        for path, told in ((file, "table.csv: a folder"), (Path("/dev/null"), "/dev/null: a pipe or device")):
            for read in (read_labels, read_detections, read_excluded, read_box_csv):
                with pytest.raises(UserError, match=told):
                    read(path)

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (gzip.compress(GOOD.encode(), mtime=0), "compressed with gzip; unpack it"),
            (b"PAR1 and more", "a parquet table"),
            (b"PK\x03\x04 and more", "a zip file"),
            (pickle.dumps([]), "a pickle"),
            (GOOD.encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        ],
        ids=["gzip", "parquet", "zip", "pickle", "utf-16"],  # names by bytes are not the same from run to run
    )
    def test_other_kinds_of_files_are_named_as_such(self, file: Path, content: bytes, told: str) -> None:
        for read in (read_labels, read_detections, read_excluded, read_box_csv):
            with pytest.raises(UserError, match=rf"table\.csv: .*{told}"):
                read(written(file, content))

    def test_whole_numbers_may_have_a_point(self, file: Path) -> None:
        """As pandas writes a column that has gaps."""
        table = read_labels(written(file, GOOD.replace("12", "12.0") + GOOD.replace("12", "") * 2))
        assert table["action_id"].tolist() == [12, pd.NA, pd.NA] and table["action_id"].dtype == "Int64"

    def test_key_frames_without_persons(self, file: Path) -> None:
        text = "b,0900,,,,,,\n" + GOOD + "c,7.5\na,2,0.1,0.1,0.1,0.2,1,0\n,3\nd,1e12\nb,0900\n"
        found = Findings()
        rows, nobody = read_key_frames(written(file, text), found=found)
        pd.testing.assert_frame_equal(rows, read_labels(file, found=Findings()))
        assert len(rows) == 1 and found.count("malformed") == 2 and found.count("no area") == 1
        assert nobody.to_numpy().tolist() == [["b", 900.0], ["c", 7.5], ["b", 900.0]]

    def test_numbers_are_read_as_python_reads_them(self, file: Path) -> None:
        rng = np.random.default_rng(0)
        texts = [repr(float(x)) for x in rng.random(200) / 4 + 0.5]
        written(file, "".join(f"a,902,0.1,0.1,{x},0.9,1,0\n" for x in texts))
        assert read_labels(file)["x2"].tolist() == [float(x) for x in texts]


class TestCheckLabels:
    LABEL_MAP = LabelMap((ActionClass(1, "a"), ActionClass(12, "b")))

    def test_class_in_a_gap_of_the_map_becomes_no_action(self, file: Path) -> None:
        table = read_labels(written(file, GOOD + GOOD.replace("12", "5") + GOOD.replace("12", "")))
        checked = check_labels(table, self.LABEL_MAP, file)
        assert checked["action_id"].isna().tolist() == [False, True, True]
        assert table["action_id"].isna().tolist() == [False, False, True]

    def test_class_beyond_the_map_is_refused(self, file: Path) -> None:
        table = read_labels(written(file, GOOD + GOOD.replace("12", "13")))
        with pytest.raises(
            UserError, match=r", line 2: video a, second 0902: action id 13 not in the label map"
        ):
            check_labels(table, self.LABEL_MAP, file)

    def test_the_line_counts_what_is_no_row(self, file: Path) -> None:
        table = read_labels(written(file, "\n" + GOOD + "b,0900,,,,,,\n" + GOOD.replace("12", "13") * 2))
        with pytest.raises(UserError, match=r", line 4: .*correct the row \(2 such row\(s\)\)"):
            check_labels(table, self.LABEL_MAP, file)

    def test_no_class_of_the_map(self, file: Path) -> None:
        table = read_labels(written(file, GOOD.replace("12", "5")))
        with pytest.raises(UserError, match="right label map"):
            check_labels(table, self.LABEL_MAP, file)


class TestRepeatedLabels:
    def test_lines_and_count(self, file: Path) -> None:
        text = GOOD + "\nb,0900,,,,,,\nb,0900,,,,,,\n" + GOOD.replace("12,0", ",0") * 2 + GOOD * 2
        found = repeated_labels(written(file, text))
        assert (found.count, found.lines) == (3, [(6, 5), (7, 1), (8, 1)])
        assert str(found) == "line 6 repeats line 5, line 7 repeats line 1, line 8 repeats line 1"
        assert str(repeated_labels(file, at_most=1)) == "line 6 repeats line 5 and 2 more"

    def test_spellings_of_one_row_and_rows_that_differ(self, file: Path) -> None:
        same = "a,902.0,0.10,0.2,0.3,0.4,12,0\n"
        assert repeated_labels(written(file, GOOD + same)).count == 1
        for other in ("a,903,", "c,0902,"):
            written(file, GOOD + GOOD.replace("a,0902,", other))
            assert repeated_labels(file).count == 0
        for other in (",12,1\n", ",13,0\n", ",12\n"):
            written(file, GOOD + GOOD.replace(",12,0\n", other))
            assert repeated_labels(file).count == 0

    def test_real_labels_repeat_nothing(self, shared: Path) -> None:
        assert repeated_labels(shared / "data" / "ava_clips" / "labels.csv").count == 0


class TestExcluded:
    def test_read(self, file: Path) -> None:
        text = "a,0902\n\nb,903.5\na,902.000000\n"
        assert read_excluded(written(file, text)) == {("a", 902.0), ("b", 903.5)}

    def test_empty(self, file: Path) -> None:
        assert read_excluded(written(file, "")) == set()

    def test_mistake(self, file: Path) -> None:
        with pytest.raises(UserError, match="line 2: 1 columns"):
            read_excluded(written(file, "a,0902\nb\n"))
        with pytest.raises(UserError, match=r"line 2: time_s is 1e\+14; expected seconds"):
            read_excluded(written(file, "a,0902\nb,1e14\n"))


class TestDetections:
    def test_boxes_stay_as_given_and_the_score_may_be_absent(self, file: Path) -> None:
        table = read_detections(written(file, "a,0902,0.5,-0.01,0.2,1.02,3,0.25\n"))
        assert table.iloc[0].tolist() == ["a", 902.0, 0.5, -0.01, 0.2, 1.02, 3, 0.25]
        assert read_detections(written(file, "a,0902,0.5,0.1,0.7,0.2,3\n"))["score"].tolist() == [1.0]

    def test_empty_file_has_no_rows(self, file: Path) -> None:
        table = read_detections(written(file, ""))
        assert table.columns.tolist() == DETECTION_COLUMNS and len(table) == 0
        write_detections(table, file)
        assert file.read_text() == ""

    @pytest.mark.parametrize(
        ("row", "complaint"),
        [
            ("a,0902,10,20,30,40,3,0.5", "divide pixels"),
            ("a,0902,0.1,0.2,0.3,0.4,,0.5", "no action id"),
            ("a,0902,0.1,0.2,0.3,0.4,3,high", "score is 'high'"),
            ("a,0902,0.1,0.2,0.3,0.4,3,inf", "score is inf; expected a number"),
            (
                "a,0902,0.1,0.2,0.3,0.4,3,0.5\na,0902,0.1,0.2,0.3,0.4,3",
                "line 2: no score, which other rows have",
            ),
            ("a,0902,0.1,0.2,0.3,0.4,0x3,0.5", "action_id is '0x3'"),
            ("a,1e14,0.1,0.2,0.3,0.4,3,0.5", r"time_s is 1e\+14"),
        ],
    )
    def test_mistakes(self, file: Path, row: str, complaint: str) -> None:
        with pytest.raises(UserError, match=complaint):
            read_detections(written(file, row + "\n"))

    @RELAXED
    @given(
        rows=st.lists(
            st.tuples(
                st.text("aé-_,\"' ", min_size=1, max_size=6).filter(lambda text: text == text.strip()),
                st.integers(0, 2_000_000_000).map(lambda n: n / 1_000_000),
                st.lists(st.integers(0, 1_000_000).map(lambda n: n / 1_000_000), min_size=5, max_size=5),
                st.integers(1, 80),
            ),
            max_size=6,
        )
    )
    def test_round_trip(self, tmp_path: Path, rows: list) -> None:
        path = tmp_path / "out.csv"
        table = pd.DataFrame([(v, t, *n[:4], a, n[4]) for v, t, n, a in rows], columns=DETECTION_COLUMNS)
        kinds = {"video": "str", "time_s": float, "action_id": np.int64, "score": float}
        table = table.astype({**dict.fromkeys(["x1", "y1", "x2", "y2"], float), **kinds})
        write_detections(table, path)
        pd.testing.assert_frame_equal(read_detections(path), table)

    def test_written_form(self, file: Path) -> None:
        write_detections(
            read_detections(written(file, "a,2,0.5,0.1,0.7,1,3,1e-7\nb,2.25,0,0,1,1,4,0.5\n")), file
        )
        assert file.read_text() == (
            "a,0002,0.500000,0.100000,0.700000,1.000000,3,0.000000\n"
            "b,2.25,0.000000,0.000000,1.000000,1.000000,4,0.500000\n"
        )


class TestPersonBoxes:
    def test_fair_form_counts_a_box_once(self, file: Path) -> None:
        text = "a,0902,0.1,0.2,0.3,0.4,12,0.99\na,0902,0.1,0.2,0.3,0.4,17,0.99\na,0903,0.1,0.2,0.3,0.4,,0.5\n"
        table = read_box_csv(written(file, text))
        assert table.columns.tolist() == PERSON_BOX_COLUMNS
        assert table["score"].tolist() == [0.99, 0.5]

    def test_a_box_with_several_scores_has_the_best(self, file: Path) -> None:
        """As AVA's result files, and ours, have one a class."""
        scores = {"b": (0.2, 0.9, 0.1), "a": (0.95, 0.5, 0.95)}
        lines = [f"{v},0902,0.1,0.2,0.3,0.4,{k},{s}\n" for v in scores for k, s in enumerate(scores[v])]
        table = read_box_csv(written(file, "".join(lines) + "a,0902,0.1,0.2,0.3,0.5,4,0.1\n"))
        assert table[["video", "score"]].to_numpy().tolist() == [["b", 0.9], ["a", 0.95], ["a", 0.1]]

    def test_scores_that_look_like_ids(self, file: Path) -> None:
        with pytest.raises(
            UserError, match=r"line 1: score is 2; expected 0\.\.1; if the last column holds ids"
        ):
            read_box_csv(written(file, "a,0902,0.1,0.2,0.3,0.4,12,2.0\n"))
        with pytest.raises(UserError, match=r"line 1: score is 1\.5; expected 0\.\.1 \(1 such"):
            read_box_csv(written(file, "a,0902,0.1,0.2,0.3,0.4,12,1.5\n"))

    def test_seven_columns(self, file: Path) -> None:
        assert read_box_csv(written(file, "a,0902,0.1,0.2,0.3,0.4,0.75\n"))["score"].tolist() == [0.75]

    def test_round_trip(self, file: Path) -> None:
        table = read_box_csv(written(file, "a,0902,0.1,0.2,0.3,0.4,0.75\nb,3.5,0,0,1,1,1\n"))
        write_box_csv(table, file)
        assert file.read_text().startswith("a,0902,0.100000,0.200000,0.300000,0.400000,,0.750000\n")
        pd.testing.assert_frame_equal(read_box_csv(file), table)

    def test_missing_score(self, file: Path) -> None:
        with pytest.raises(UserError, match="score is"):
            read_box_csv(written(file, "a,0902,0.1,0.2,0.3,0.4,0.75\na,0902,0.1,0.2,0.3,0.4,\n"))


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(902.0, "0902"), (2.0, "0002"), (12345.0, "12345"), (2.5, "2.5"), (1.0333333, "1.033333")],
)
def test_format_time(time_s: float, text: str) -> None:
    assert format_time(time_s) == text


def test_read_videos_sorts_and_locates(tmp_path: Path) -> None:
    for shard, video, path in [("s1", "b", "b.mp4"), ("s0", "c", "/data/frames/c"), ("s2", "a", "a.mp4")]:
        (tmp_path / shard).mkdir()
        pd.DataFrame({"video": [video], "path": [path]}).to_parquet(tmp_path / shard / "videos.parquet")
    table = read_videos([tmp_path / "s0", tmp_path / "s1", tmp_path / "s2"])
    assert table["video"].tolist() == ["a", "b", "c"]
    assert table["location"].tolist() == [
        str(tmp_path / "s2" / "a.mp4"),
        str(tmp_path / "s1" / "b.mp4"),
        "/data/frames/c",
    ]
    with pytest.raises(UserError, match=r"acar ingest"):
        read_videos([tmp_path / "s3"])


def test_a_split_of_skipped_videos_only(tmp_path: Path) -> None:
    rows = pd.DataFrame({"video": list("abcd"), "status": "skipped", "reason": ["lost", "empty", "cut", "x"]})
    with pytest.raises(
        UserError, match=r"data\.val: .* its 4 video\(s\)[^`]*`a`: lost[^`]*`b`[^`]*`c`: cut\n  and 1"
    ):
        check_any_usable(rows, "val")
    check_any_usable(rows.assign(status=["skipped"] * 3 + ["ok"]), "val")
    check_any_usable(rows.iloc[:0], "val")


def test_real_files(shared: Path) -> None:
    data = shared / "data"
    assert read_labels(data / "ava_clips" / "labels.csv").shape == (84, 8)
    assert len(read_excluded(data / "ava_files" / "ava_val_excluded_timestamps_v2.2.csv")) > 0


def test_an_empty_first_chunk_leaves_no_trace_in_the_file(tmp_path):
    """Tables put together from parts start with an empty chunk, before which Arrow would write its buffer."""
    rows = pd.DataFrame(
        [("a b", 1.0, 0.1, 0.2, 0.3, 0.4, 1, 0.5), ("a b", 2.0, 0.1, 0.2, 0.3, 0.4, 2, 0.25)],
        columns=["video", "time_s", "x1", "y1", "x2", "y2", "action_id", "score"],
    )
    put_together = pd.concat([rows.iloc[:0], rows.iloc[:1], rows.iloc[1:]], ignore_index=True)
    write_detections(put_together, tmp_path / "d.csv")
    write_detections(rows, tmp_path / "e.csv")
    assert (tmp_path / "d.csv").read_bytes() == (tmp_path / "e.csv").read_bytes()
    pd.testing.assert_frame_equal(read_detections(tmp_path / "d.csv"), rows)
