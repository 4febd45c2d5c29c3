"""The AVA evaluation on hand-made cases: each convention of the released evaluator, and where its peers differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from acar.data.ground_truth import read_ground_truth
from acar.data.tables import DETECTION_COLUMNS, LABEL_COLUMNS, ActionClass, LabelMap, read_detections
from acar.errors import UserError
from acar.evaluation.ava import AvaResult, evaluate_ava, mean_defined
from acar.evaluation.ava_protocols import ACTIVITYNET, MMACTION2, PROTOCOLS, RELEASED, protocol_named

LABEL_MAP = LabelMap((ActionClass(1, "stand", "pose"), ActionClass(3, "sit", "pose"), ActionClass(7, "wave")))
BOX = (0.1, 0.1, 0.5, 0.9)
FAR = (0.6, 0.1, 0.9, 0.9)


def labels(*rows: tuple) -> pd.DataFrame:
    table = pd.DataFrame([(v, float(t), *box, a, str(i)) for i, (v, t, box, a) in enumerate(rows)],
                         columns=LABEL_COLUMNS)  # fmt: skip
    return table.astype({"time_s": float, "action_id": "Int64"})


def detections(*rows: tuple) -> pd.DataFrame:
    table = pd.DataFrame([(v, float(t), *box, a, s) for v, t, box, a, s in rows], columns=DETECTION_COLUMNS)
    return table.astype({"time_s": float, **dict.fromkeys(["x1", "y1", "x2", "y2", "score"], float)})


def test_perfect_detections_reach_one() -> None:
    truth = labels(("a", 902, BOX, 1), ("a", 902, FAR, 3), ("b", 903, BOX, 1), ("b", 903, BOX, 7))
    found = detections(
        ("a", 902, BOX, 1, 0.9), ("a", 902, FAR, 3, 0.2), ("b", 903, BOX, 1, 0.1), ("b", 903, BOX, 7, 0.5)
    )
    result = evaluate_ava(truth, found, LABEL_MAP)
    assert result.ap.tolist() == [1.0, 1.0, 1.0]
    assert result.mean_ap == 1.0
    assert result.positives.tolist() == [2, 1, 1]
    assert result.curves[0] == [[0.5, 1.0], [1.0, 1.0]]


def test_undefined_classes_are_left_out_of_the_mean() -> None:
    truth = labels(("a", 902, BOX, 1), ("a", 902, BOX, 3))
    found = detections(("a", 902, BOX, 1, 0.9), ("a", 902, BOX, 7, 0.9))
    result = evaluate_ava(truth, found, LABEL_MAP)
    assert result.ap[:2].tolist() == [1.0, 0.0]
    assert np.isnan(result.ap[2])
    assert result.mean_ap == 0.5
    assert np.isnan(mean_defined(np.array([np.nan])))


def test_excluded_key_frames_and_unknown_classes_are_dropped_from_both_sides() -> None:
    truth = labels(("a", 902, BOX, 1), ("a", 903, BOX, 1), ("a", 902, BOX, 2))
    found = detections(("a", 903, BOX, 1, 0.9), ("a", 902, BOX, 1, 0.5), ("a", 902, BOX, 2, 0.99))
    result = evaluate_ava(truth, found, LABEL_MAP, {("a", 903.0), ("nosuch", 1.0)})
    assert result.ap[0] == 1.0
    assert result.positives.tolist() == [1, 0, 0]
    assert result.n_detections == 1


def test_detections_on_images_without_ground_truth_are_false_positives() -> None:
    truth = labels(("a", 902, BOX, 1))
    found = detections(("a", 902, BOX, 1, 0.5), ("a", 950, BOX, 1, 0.9))
    assert evaluate_ava(truth, found, LABEL_MAP).ap[0] == 0.5
    for protocol in (ACTIVITYNET, MMACTION2):
        assert evaluate_ava(truth, found, LABEL_MAP, protocol=protocol).ap[0] == 1.0


def test_what_makes_an_image_annotated() -> None:
    """A row of a class outside the map does for ActivityNet's script, not for mmaction2."""
    truth = labels(("a", 902, BOX, 1), ("a", 950, BOX, 2))
    found = detections(("a", 902, BOX, 1, 0.5), ("a", 950, BOX, 1, 0.9))
    aps = {name: evaluate_ava(truth, found, LABEL_MAP, protocol=of).ap[0] for name, of in PROTOCOLS.items()}
    assert aps == {"released": 0.5, "activitynet": 0.5, "mmaction2": 1.0}


@pytest.mark.parametrize("bad", [(0.5, 0.1, 0.1, 0.9), (0.1, 0.5, 0.5, 0.5)])
def test_inverted_and_flat_detections_are_dropped(bad: tuple) -> None:
    truth = labels(("a", 902, BOX, 1))
    found = detections(("a", 902, bad, 1, 0.9), ("a", 902, BOX, 1, 0.5))
    result = evaluate_ava(truth, found, LABEL_MAP)
    assert (result.ap[0], result.n_detections) == (1.0, 1)


def test_mmaction2_keeps_flat_detections_and_stops_at_inverted_ones() -> None:
    truth = labels(("a", 902, BOX, 1))
    flat = detections(("a", 902, (0.1, 0.5, 0.5, 0.5), 1, 0.9), ("a", 902, BOX, 1, 0.5))
    assert evaluate_ava(truth, flat, LABEL_MAP, protocol=MMACTION2).ap[0] == 0.5
    inverted = detections(("a", 902, BOX, 1, 0.5), ("a", 902, (0.5, 0.1, 0.1, 0.9), 1, 0.9))
    with pytest.raises(UserError, match=r"row 2: video a, second 0902: box 0.5,0.1,0.1,0.9 is inverted"):
        evaluate_ava(truth, inverted, LABEL_MAP, protocol=MMACTION2)


def test_mmaction2_leaves_out_classes_without_detections_and_counts_excluded_positives() -> None:
    truth = labels(("a", 902, BOX, 1), ("a", 903, BOX, 1), ("a", 902, BOX, 3))
    found = detections(("a", 902, BOX, 1, 0.5))
    assert evaluate_ava(truth, found, LABEL_MAP).ap[:2].tolist() == [0.5, 0.0]
    result = evaluate_ava(truth, found, LABEL_MAP, {("a", 903.0)}, protocol=MMACTION2)
    assert result.ap[0] == 0.5 and np.isnan(result.ap[1]) and result.mean_ap == 0.5
    assert evaluate_ava(truth, found, LABEL_MAP, {("a", 903.0)}).ap[0] == 1.0


def test_an_overlap_of_exactly_half_is_enough() -> None:
    truth = labels(("a", 902, (0.0, 0.0, 1.0, 1.0), 1), ("a", 903, (0.0, 0.0, 1.0, 1.0), 3))
    found = detections(
        ("a", 902, (0.0, 0.0, 0.5, 1.0), 1, 0.9), ("a", 903, (0.0, 0.0, 0.4999999999, 1.0), 3, 0.9)
    )
    for protocol in (RELEASED, ACTIVITYNET):
        assert evaluate_ava(truth, found, LABEL_MAP, protocol=protocol).ap[:2].tolist() == [1.0, 0.0]
    # In single precision the second is a half too.
    assert evaluate_ava(truth, found, LABEL_MAP, protocol=MMACTION2).ap[:2].tolist() == [1.0, 1.0]


def test_only_the_best_ground_truth_box_is_asked_for() -> None:
    near = (0.1, 0.1, 0.5, 0.8)
    truth = labels(("a", 902, BOX, 1), ("a", 902, near, 1))
    found = detections(("a", 902, BOX, 1, 0.9), ("a", 902, BOX, 1, 0.8))
    result = evaluate_ava(truth, found, LABEL_MAP)
    assert (result.ap[0], result.found[0]) == (0.5, 1)


def test_ground_truth_without_area_counts_and_is_never_found() -> None:
    point = (0.3, 0.3, 0.3, 0.3)
    truth = labels(("a", 902, BOX, 1), ("a", 902, point, 1))
    found = detections(("a", 902, BOX, 1, 0.9), ("a", 902, point, 1, 0.8))
    for protocol in PROTOCOLS.values():
        result = evaluate_ava(truth, found, LABEL_MAP, protocol=protocol)
        assert (result.ap[0], result.positives[0]) == (0.5, 2)


def test_files_of_every_dialect_give_the_same(tmp_path: Path) -> None:
    """Times as 902, 0902 and 902.000000; no score column; empty action ids; rows of video and time alone."""
    box, far = (",".join(map(str, item)) for item in (BOX, FAR))
    truth, found = tmp_path / "gt.csv", tmp_path / "det.csv"
    truth.write_text(f"a,0902,{box},1,0\na,902,{far},3,1\na,902.000000,{far},,1\nb,0903,,,,,,\n")
    found.write_text(f"a,902.000000,{box},1\na,0902,{far},3\nb,903,{box},1\n")
    result = evaluate_ava(read_ground_truth(truth), read_detections(found), LABEL_MAP)
    assert result.ap[1] == 1.0 and result.bounds[0].tolist() == [0.5, 1.0]
    assert result.positives.tolist() == [1, 1, 0] and result.n_ground_truth_boxes == 2
    truth.write_text(f"a,0902,{box},1\na,902,{far},3\nb,0903\n")
    again = evaluate_ava(read_ground_truth(truth), read_detections(found), LABEL_MAP, protocol=ACTIVITYNET)
    np.testing.assert_array_equal(again.ap, result.ap)  # b's key frame is annotated: nobody is there
    truth.write_text(f"a,0902,{box},1\na,902,{far},3\n")
    ignored = evaluate_ava(read_ground_truth(truth), read_detections(found), LABEL_MAP, protocol=ACTIVITYNET)
    assert ignored.ap[:2].tolist() == [1.0, 1.0]


def test_equal_scores_count_in_the_order_given_and_the_bounds_say_what_others_may_get() -> None:
    truth = labels(("a", 902, BOX, 1))
    hit, miss = ("a", 902, BOX, 1, 0.5), ("a", 902, FAR, 1, 0.5)

    def result(*rows: tuple) -> AvaResult:
        return evaluate_ava(truth, detections(*rows), LABEL_MAP)

    assert [result(hit, miss).ap[0], result(miss, hit).ap[0]] == [1.0, 0.5]
    assert result(hit, miss).bounds[0].tolist() == result(miss, hit).bounds[0].tolist() == [0.5, 1.0]


def test_boxes_overlapped_equally_are_claimed_in_the_order_of_person_ids() -> None:
    """The official reader takes the person id for a score, and sorts by it."""
    left, right, middle = (0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.75, 1.0), (0.125, 0.0, 0.625, 1.0)
    found = detections(("a", 902, middle, 1, 0.9), ("a", 902, left, 1, 0.8))
    for persons, hits in ((["1", "0"], 1), (["0", "1"], 2)):
        truth = labels(("a", 902, left, 1), ("a", 902, right, 1)).assign(actor_id=persons)
        assert evaluate_ava(truth, found, LABEL_MAP).found[0] == hits
    # Equal ids: as the official reader's heap has them (left first), in mmaction2 as the file has them.
    truth = labels(("a", 902, right, 1), ("a", 902, left, 1)).assign(actor_id="0")
    assert evaluate_ava(truth, found, LABEL_MAP).found[0] == 1
    assert evaluate_ava(truth, found, LABEL_MAP, protocol=MMACTION2).found[0] == 2


def test_an_unknown_protocol_names_the_known_ones() -> None:
    assert protocol_named("activitynet") is ACTIVITYNET
    with pytest.raises(UserError, match="expected one of released, activitynet, mmaction2"):
        protocol_named("official")


def test_only_the_best_50_rows_of_an_image_count() -> None:
    truth = labels(("a", 902, BOX, 1), ("a", 902, BOX, 3), ("b", 902, BOX, 3))
    crowd = [("a", 902, FAR, 1, 0.5 + k / 1000) for k in range(49)]
    found = detections(*crowd, ("a", 902, BOX, 1, 0.9), ("a", 902, BOX, 3, 0.4), ("b", 902, BOX, 3, 0.1))
    result = evaluate_ava(truth, found, LABEL_MAP)
    assert result.ap[:2].tolist() == [1.0, 0.5]
    assert result.n_detections == 51
    assert evaluate_ava(truth, found, LABEL_MAP, protocol=MMACTION2).n_detections == 52


def test_nothing_at_all() -> None:
    truth = labels(("a", 902, BOX, 1))
    result = evaluate_ava(truth, detections(), LABEL_MAP)
    assert result.ap[0] == 0.0 and result.n_detections == 0
    result = evaluate_ava(truth.iloc[:0], detections(), LABEL_MAP)
    assert np.isnan(result.ap).all() and np.isnan(result.shares).all()


def test_shares_count_actors_not_rows() -> None:
    truth = labels(
        ("a", 902, BOX, 1), ("a", 902, BOX, 3), ("a", 902, BOX, 3), ("a", 902, FAR, 1),
        ("b", 902, BOX, pd.NA), ("b", 903, BOX, 2), ("c", 902, BOX, 7),
    )  # fmt: skip
    result = evaluate_ava(truth, detections(), LABEL_MAP, {("c", 902.0)})
    assert result.n_ground_truth_boxes == 4
    assert result.shares.tolist() == [0.5, 0.25, 0.0]


def test_chance_is_the_ap_of_random_scores_on_the_same_boxes() -> None:
    rng = np.random.default_rng(0)
    seconds = range(900, 1500)
    truth = labels(*[("a", second, BOX, 1 if rng.random() < 0.3 else 3) for second in seconds])
    found = [("a", s, BOX if rng.random() < 0.9 else FAR, c, 0.5) for s in seconds for c in (1, 3)]
    shuffled = [
        evaluate_ava(truth, detections(*[(*row[:4], rng.random()) for row in found]), LABEL_MAP).ap[:2]
        for _ in range(30)
    ]
    result = evaluate_ava(truth, detections(*found), LABEL_MAP)
    np.testing.assert_allclose(np.mean(shuffled, axis=0), result.chance[:2], atol=0.03)
    assert (result.chance[:2] < result.shares[:2]).all()


def test_evaluation_and_tables_do_not_import_torch() -> None:
    modules = "acar.data.tables, acar.evaluation.ava, acar.evaluation.summary, acar.stages.evaluate"
    code = f"import sys, {modules}; sys.exit(any(m in sys.modules for m in ('torch', 'zarr', 'snakemake')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("side", ["ground truth", "detections"])
def test_a_row_without_a_video_is_no_other_videos(side: str) -> None:
    tables = {"ground truth": labels(("a", 902, BOX, 1)), "detections": detections(("a", 902, BOX, 1, 0.5))}
    tables[side] = pd.concat([tables[side], tables[side].assign(video=None)], ignore_index=True)
    with pytest.raises(UserError, match=f"{side}, row 2: no video id"):
        evaluate_ava(tables["ground truth"], tables["detections"], LABEL_MAP)
