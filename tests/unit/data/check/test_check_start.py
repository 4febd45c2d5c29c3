"""Weights and the folder of results, of which a run needs only what it reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from check_place import Place
from safetensors.numpy import save_file

from acar.config import parse_config
from acar.data.check.report import as_text
from acar.data.check.survey import check_data
from acar.errors import UserError
from acar.workflow import check_results_folder

REPOSITORY = Path(__file__).resolve().parents[4]
NAME = "slowfast_r50_8x8_k400"


@pytest.fixture(autouse=True)
def no_weights_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACAR_WEIGHTS", str(tmp_path / "cache"))


def good(
    place: Place, name: str = "good.safetensors", n_classes: int = 3, without: tuple[str, ...] = ()
) -> str:
    """A file that is a whole network's by its names, of the place's three classes."""
    names = {"backbone.stem.weight": (3,), "head.fc2.weight": (n_classes, 3)}
    weights = {key: np.zeros(shape, np.float32) for key, shape in names.items() if key not in without}
    save_file(weights, place.folder / name)
    return str(place.folder / name)


def snakemake(place: Place) -> subprocess.CompletedProcess[str]:
    """A dry run of what the place's config says."""
    file = place.folder / "mine.yaml"
    file.write_text(yaml.safe_dump(place.values))
    command = [sys.executable, "-m", "snakemake", "-n", "-q", "--snakefile", str(REPOSITORY / "Snakefile")]
    return subprocess.run(
        [*command, "--configfile", str(file)], cwd=place.folder, capture_output=True, text=True
    )


@pytest.mark.parametrize("key", ["stage1", "backbone"])
@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("no/such.safetensors", "no/such.safetensors: no such file"),
        (NAME, f"{NAME} is not in"),
        ("slowfast_r50", "no weights of this name are hosted; did you mean"),
        ("junk.safetensors", "junk.safetensors: not a safetensors file ("),
        ("folder", "folder: no such weights file"),
    ],
)
def test_weights_of_the_networks(place: Place, key: str, weights: str, told: str) -> None:
    (place.folder / "junk.safetensors").write_bytes(b"no header\n" * 9)
    (place.folder / "folder").mkdir()
    name = str(place.folder / weights) if weights in ("junk.safetensors", "folder") else weights
    place.values |= (
        {"stage1": {"weights": name}} if key == "stage1" else {"model": {"backbone": {"weights": name}}}
    )
    (text,) = place.stops()
    assert told in text and text.startswith(
        "stage1.weights: " if key == "stage1" else "model.backbone.weights: "
    )
    place.values |= {"stage1": {"weights": good(place)}, "model": {}}
    assert place.stops() == []


def test_a_network_that_is_taken_is_whole_and_has_the_classes(place: Place) -> None:
    place.values["stage1"] = {"weights": good(place, n_classes=60)}
    (told,) = place.stops()
    assert told.startswith("stage1.weights: ") and "60 classes (head.fc2.weight (60, 3)), but" in told
    assert "map has 3; data.label_map must name" in told
    good(place, without=("head.fc2.weight",))
    assert any("has no classifier among its 0 weights of the head" in text for text in place.stops())
    good(place, without=("backbone.stem.weight",))
    assert any("not a whole network" in text for text in place.stops())
    place.values |= {"stage1": {}, "model": {"backbone": {"weights": good(place)}}}
    assert place.stops() == []  # a training takes the backbone of any


def test_a_network_that_is_taken_needs_no_backbone_and_no_training_split(place: Place) -> None:
    boxes = place.write("boxes.csv", "b,1,0.1,0.1,0.5,0.9,,0.95\n")
    place.values |= {
        "stage1": {"weights": good(place)},
        "model": {"head": {"memory": "none"}, "backbone": {"weights": "absent.safetensors"}},
        "detector": {"source": "boxes", "boxes": {"train": "absent_boxes.csv", "val": boxes}},
    }
    place.values["data"]["train"] = {"labels": "absent.csv", "excluded": "absent_excluded.csv"}
    survey = check_data(place.config)
    assert survey.problems == [] and [facts.split for facts in survey.splits] == ["val"]
    assert "\nnot read, so not looked at: train (stage1.weights, and no stage 2)\n" in as_text(survey)
    answer = snakemake(place)
    assert answer.returncode == 0, answer.stderr
    place.values["model"]["head"]["memory"] = "acfb"
    stops = "\n".join(place.stops())
    for told in ("absent.csv", "absent_excluded.csv", "absent_boxes.csv", "absent.safetensors"):
        assert told in stops
    place.values["model"]["head"]["memory"] = "none"
    place.values["detector"] = {"source": "train"}  # on the training split's boxes
    stops = "\n".join(place.stops())
    assert "absent.csv" in stops and "absent_excluded.csv" in stops and "absent.safetensors" not in stops


@pytest.mark.parametrize(
    ("detector", "told"),
    [
        (
            {"weights": "COCO_V9"},
            "detector.weights: 'COCO_V9' is neither a file nor published weights of fasterrcnn",
        ),
        ({"weights": "COCO_V1"}, None),
        (
            {"weights": "COCO_V1", "architecture": "fasterrcnn_mobilenet_v3_small_fpn"},
            "has no published weights",
        ),
        ({"weights": "no/such.pth"}, "detector.weights: no/such.pth: no such file"),
        ({"weights": "no/such.pth", "source": "train"}, "detector.weights: no/such.pth: no such file"),
        (
            {"weights": "COCO_V9", "source": "train"},
            None,
        ),  # a name is no file of a rule, and nothing reads it
        ({"weights": "junk.pth"}, "junk.pth: not a readable state dict"),
        ({"weights": "junk.safetensors"}, "junk.safetensors: not a safetensors file ("),
        ({"weights": "good.safetensors"}, None),
    ],
)
def test_weights_of_the_detector(
    place: Place, detector: dict[str, str], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.folder)
    good(place)
    for name in ("junk.pth", "junk.safetensors"):
        (place.folder / name).write_bytes(b"no header\n" * 9)
    place.values["detector"] = {"source": "weights"} | detector
    stops = place.stops()
    assert len(stops) == (told is not None) and all(told in text for text in stops)


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ("train.csv", "train.csv is a file, expected a folder"),
        ("train.csv/run", "train.csv is a file, expected a folder"),
        ("dangling", "dangling is a file"),
        ("a" * 300, "the name is too long"),
        ("/proc/nope", "run.results: /proc/nope: no file can be made in /proc"),
        ("deep/er", None),
    ],
)
def test_the_folder_of_results(place: Place, results: str, told: str | None) -> None:
    (place.folder / "dangling").symlink_to(place.folder / "nowhere")
    place.values["run"] = {"results": str(place.folder / results)}
    before = sorted(place.folder.iterdir())
    stops = place.stops()
    assert [told in text for text in stops] == ([True] if told else [])
    assert sorted(place.folder.iterdir()) == before
    if told is not None and "expected a folder" in told:
        with pytest.raises(UserError, match=r"run\.results"):
            check_results_folder(place.config)


def test_snakemake_says_so_without_a_trace(place: Place) -> None:
    place.values["run"] = {"results": str(place.folder / "train.csv")}
    answer = snakemake(place)
    assert answer.returncode != 0 and "is a file, expected a folder" in answer.stderr + answer.stdout
    assert "Traceback" not in answer.stderr and "NotADirectoryError" not in answer.stderr


def test_what_stops_a_drawn_data_set_is_told_before_it_is_drawn(tmp_path: Path) -> None:
    values = {"run": {"results": str(tmp_path)}, "stage1": {"weights": "no/such.safetensors"}}
    survey = check_data(parse_config(values))
    assert survey.would_stop and "no/such.safetensors: no such file" in as_text(survey)
