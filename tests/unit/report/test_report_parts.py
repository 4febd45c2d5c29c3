"""The parts behind the page: logs, timings, examples, curves, pictures and heat maps."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from acar.errors import UserError
from acar.paths import Paths
from acar.report import attention, plots
from acar.report.collect import load_examples, read_metrics_lines, read_timings, rule_of


def test_a_log_cut_off_and_resumed(tmp_path):
    log = tmp_path / "metrics.jsonl"
    lines = [{"iteration": 20, "loss": 2.0}, {"iteration": 40, "loss": 9.0}, {"iteration": 40, "loss": 1.5}]
    log.write_text("\n".join(map(json.dumps, lines)) + '\n[1]\n{"iteration": 60, "lo', encoding="utf-8")
    table = read_metrics_lines(log)
    assert table["iteration"].tolist() == [20, 40] and table["loss"].tolist() == [2.0, 1.5]


def test_timings_by_rule_in_pipeline_order(tmp_path):
    jobs = [("train_stage2", "3.5", "100"), ("ingest/val-000", "1.0", "-"), ("ingest/val-001", "2.0", "50")]
    for name, s, rss in [*jobs, ("report", "9", "1"), ("own_rule/x", "4", "2")]:
        path = tmp_path / f"{name}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{s}\t0:00:01\t{rss}\n", encoding="utf-8")
    table = read_timings(tmp_path)
    assert table["rule"].tolist() == ["ingest", "ingest", "train_stage2", "own_rule"]
    assert table["s"].tolist() == [1.0, 2.0, 3.5, 4.0]
    assert np.isnan(table["max_rss_mib"][0]) and table["max_rss_mib"][1] == 50


RULES = {
    "train_stage1": "train_stage1",
    "detect/val-0": "detect",
    "predict.stage2-1": "predict",
    "own/a": "own",
}


@pytest.mark.parametrize(("job", "rule"), RULES.items())
def test_rule_of(job, rule):
    assert rule_of(job) == rule


def test_examples_are_read_back(fake_run):
    classes, examples = load_examples(Paths.of(fake_run).predictions("stage2", 0) / "examples.npz")
    assert classes[0] == "stand" and [e.video for e in examples] == ["val_000", "val_001", "val_002"]
    assert examples[0].attention.shape == (4, 4, 6) and len(examples[2].attention) == 0
    assert examples[0].gt_targets.dtype == bool and examples[0].support[1] == {"time_s": 6.0, "weight": 0.2}


def test_examples_that_are_none(tmp_path):
    path = tmp_path / "examples.npz"
    np.savez(path, other=np.zeros(1))
    with pytest.raises(UserError, match=r"examples\.npz.*rerun predict"):
        load_examples(path)


def test_key_frame_tells_right_from_missed(fake_run):
    classes, examples = load_examples(Paths.of(fake_run).predictions("stage2", 0) / "examples.npz")
    scores = np.array([[0.9, 0.8, 0.1, 0.7, 0.6, 0.0], [0.0] * 6], np.float32)
    example = type(examples[0])(**{**vars(examples[0]), "scores": scores})
    picture, actors, hidden = attention.key_frame(example, classes)
    assert hidden == 0 and [a.label for a in actors] == ["1", "2"]
    assert actors[0].is_actor_of_interest and actors[0].top[0] == ("stand", pytest.approx(0.9), True)
    assert actors[0].top[1][2] is False
    assert [name for name, _ in actors[0].missed] == ["recall_lamp", classes[2]]
    assert not actors[1].labelled
    assert [box.kind for box in picture.boxes] == ["truth", "actor", "other"]


def test_boxes_over_the_limit_are_counted_and_the_actor_stays(fake_run):
    _, examples = load_examples(Paths.of(fake_run).predictions("stage2", 0) / "examples.npz")
    many = {"boxes_xyxy_norm": np.tile(np.float32([0.1, 0.1, 0.2, 0.2]), (9, 1)), "actor": 8,
            "scores": np.linspace(1, 0, 9, dtype=np.float32)[:, None]}  # fmt: skip
    _, actors, hidden = attention.key_frame(type(examples[0])(**{**vars(examples[0]), **many}), ["only"])
    assert len(actors) == attention.MAX_BOXES and hidden == 3 and actors[0].is_actor_of_interest


def test_strip_begins_with_the_key_frame(fake_run):
    _, examples = load_examples(Paths.of(fake_run).predictions("stage2", 0) / "examples.npz")
    strip = attention.attention_strip(examples[0])
    assert [box.kind for picture, _, _ in strip for box in picture.boxes] == ["actor"] + ["support"] * 4
    assert [time_s for _, time_s, _ in strip] == [7.0, 4.0, 6.0, 8.0, 10.0]
    assert attention.attention_strip(examples[2]) == []


def test_heat_lies_where_the_weight_is():
    attention_hw = np.zeros((4, 6), np.float32)
    attention_hw[0, 5] = 1.0
    blended = attention.heat_overlay(np.full((80, 120, 3), 100, np.uint8), attention_hw, 0.0, 1.0)
    assert blended.shape == (80, 120, 3) and blended.dtype == np.uint8
    light = blended.astype(int).sum(2)
    assert np.unravel_index(light.argmax(), light.shape) >= (0, 100)
    assert light[0, 119] > light[79, 0] + 200
    assert (blended[60:, :60] == blended[79, 0]).all()


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1, width=32))
def test_constant_maps_of_any_grid_do_no_harm(height, width, value):
    frame = np.full((16, 20, 3), 128, np.uint8)
    blended = attention.heat_overlay(frame, np.full((height, width), value, np.float32), value, value)
    assert (blended == blended[0, 0]).all()


unit = st.floats(0, 1, width=32)


@given(unit, unit, unit, unit, st.integers(8, 700), st.integers(8, 700))
def test_drawn_boxes_are_inside_their_picture(x1, y1, x2, y2, width, height):
    box = np.array([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)], np.float32)
    picture = attention.picture(np.zeros((height, width, 3), np.uint8), 64, [(box, "actor", "1")])
    drawn = picture.boxes[0]
    assert max(picture.width, picture.height) <= 64
    assert drawn.x >= 0 and drawn.x + drawn.width <= picture.width + 0.11
    assert drawn.y + drawn.height == pytest.approx(box[3] * picture.height, abs=0.11)


def test_picture_is_a_jpeg_of_the_frame():
    frame = np.zeros((40, 60, 3), np.uint8)
    frame[:, 30:] = (255, 0, 0)
    picture = attention.picture(frame, 480, [])
    kind, data = picture.uri.split(",", 1)
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert kind == "data:image/jpeg;base64" and image.shape == (40, 60, 3)
    assert image[20, 50, 0] > 200 and image[20, 10, 0] < 50


def test_matches_need_half_an_overlap():
    boxes = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
    assert attention.matches(boxes, np.array([[0.0, 0, 0.6, 1]])).tolist() == [0, -1]
    assert attention.matches(boxes, np.zeros((0, 4))).tolist() == [-1, -1]


@given(st.integers(1, 2000))
def test_a_long_log_is_thinned(length):
    table = pd.DataFrame({"iteration": np.arange(length), "loss": np.full(length, 2.0)})
    thin = plots.thin(table)
    assert len(thin) == min(length, plots.MAX_POINTS)
    assert thin["loss"].eq(2.0).all() and thin["iteration"].is_monotonic_increasing
    assert len(plots.smoothed(thin["loss"])) == len(thin)


@pytest.mark.parametrize("table", [
    pd.DataFrame({"iteration": [1], "loss": [0.5]}),
    pd.DataFrame({"iteration": [1, 2], "loss": [0.5, np.nan], "lr": [0.1, 0.1]}),
    pd.DataFrame({"iteration": [1, 2], "loss": [0.5, 0.4], "lr": [np.nan, np.nan]}),
])  # fmt: skip
def test_short_logs_are_drawn(table):
    svg = plots.training_svg(table, "stage1")
    assert svg is not None and svg.startswith("<svg") and "var(--stage1)" in svg
    assert not re.search(r"#0101\d\d", svg) and "xmlns" not in svg and "<metadata" not in svg


def test_no_loss_no_curve():
    assert plots.training_svg(pd.DataFrame(columns=["iteration", "loss", "lr"]), "stage1") is None
    assert plots.training_svg(pd.DataFrame({"iteration": [1], "loss": [np.nan]}), "stage1") is None
