"""`acar.origins.record` says of every job what the rules say: the same artefacts, made from the same files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from acar.config import Config, parse_config
from acar.origins.record import Artefact, artefacts, inputs_of
from acar.paths import Paths

DEFAULT = Path(__file__).resolve().parents[2] / "config.yaml"
SHARDS = {"train": {"shards": 2}, "val": {"shards": 3}}


def jobs_of(output: str) -> dict[Artefact, tuple[set[str], set[str]]]:
    """The jobs that a dry run lists, with their input and output files."""
    found = {}
    for block in re.split(r"^rule (?=\w+:$)", output, flags=re.MULTILINE)[1:]:
        stage = block.split(":")[0]
        fields = dict(re.findall(r"^    (input|output|wildcards): (.*)$", block, re.MULTILINE))
        ids = dict(pair.split("=") for pair in fields.get("wildcards", "").split(", ") if pair)
        shard = {"shard": int(ids.pop("shard"))} if "shard" in ids else {}
        files = [set(filter(None, fields.get(name, "").split(", "))) for name in ("input", "output")]
        if stage != "all":
            found[Artefact(stage, **ids, **shard)] = (files[0], files[1])
    return found


def own_files(folder: Path) -> dict:
    """Sections of a data set of one's own, every optional file named; all of them are there, and empty."""
    names = ["label_map.pbtxt", "detector.pth", "backbone.safetensors", "network.safetensors"]
    names += [f"{split}{part}.csv" for split in SHARDS for part in ("", "_excluded", "_boxes")]
    (folder / "videos").mkdir()
    for name in names:
        (folder / name).touch()
    splits = {
        split: {"labels": f"{split}.csv", "excluded": f"{split}_excluded.csv", **shards}
        for split, shards in SHARDS.items()
    }
    return {
        "data": {"source": "files", "videos": "videos", "label_map": "label_map.pbtxt", **splits},
        "model": {"backbone": {"weights": "backbone.safetensors"}},
    }


DETECTORS = {
    "trained": {"source": "train"},
    "trained_from_weights": {"source": "train", "weights": "detector.pth"},
    "imported": {"source": "boxes", "boxes": {split: f"{split}_boxes.csv" for split in SHARDS}},
}


NAMED = {
    "labelled": {"data": {"key_frames": "labelled"}, "model": {"head": {"memory": "none"}}},
    "both": {"data": {"key_frames": "both"}},
    "seconds": {},
}


@pytest.mark.parametrize(
    ("detector", "drawn", "key_frames"),
    [
        ("trained", True, "seconds"), ("trained_from_weights", False, "seconds"), ("imported", False, "seconds"),
        ("trained", False, "labelled"), ("trained_from_weights", False, "both"),
    ],
)  # fmt: skip
def test_artefacts_and_inputs_are_those_of_the_rules(
    snakemake: Callable, overrides: Callable[[dict], Path], tmp_path: Path, detector: str, drawn: bool,
    key_frames: str,
) -> None:  # fmt: skip
    values = {"data": SHARDS} if drawn else own_files(tmp_path)
    for section, keys in NAMED[key_frames].items():
        values[section] = values.get(section, {}) | keys
    values |= {"detector": DETECTORS[detector], "predict": {"wrong_bank": True}}
    answer = snakemake("--dry-run", "--configfile", overrides(values))
    assert answer.returncode == 0, answer.stderr
    jobs, config = jobs_of(answer.stdout), parse_config(_merged(values))
    assert set(jobs) == set(artefacts(config))
    for artefact, (inputs, outputs) in jobs.items():
        assert str(artefact.declared(Paths.of(config))) in outputs
        # The folder of the user's videos has no bytes to compare.
        assert _files(config, artefact) == {str(Path(file)) for file in inputs} - {"videos"}, artefact


@pytest.mark.parametrize(
    ("memory", "detector", "drawn"),
    [("none", "imported", False), ("none", "trained", True), ("acfb", "imported", False)],
)
def test_a_taken_network_needs_what_the_rules_say(
    snakemake: Callable,
    overrides: Callable[[dict], Path],
    tmp_path: Path,
    memory: str,
    detector: str,
    drawn: bool,
) -> None:
    files = own_files(tmp_path)
    values = {"data": SHARDS} if drawn else {"data": files["data"]}
    values |= {"detector": DETECTORS[detector], "stage1": {"weights": "network.safetensors"}}
    values["model"] = {"backbone": {"weights": "backbone.safetensors"}, "head": {"memory": memory}}
    if memory == "none" and not drawn:
        for name in ("train.csv", "train_excluded.csv", "train_boxes.csv", "backbone.safetensors"):
            (tmp_path / name).unlink()  # nothing asks for them
    answer = snakemake("--dry-run", "--configfile", overrides(values))
    assert answer.returncode == 0, answer.stderr
    jobs, config = jobs_of(answer.stdout), parse_config(_merged(values))
    assert set(jobs) == set(artefacts(config))
    for artefact, (inputs, _) in jobs.items():
        assert _files(config, artefact) == {str(Path(file)) for file in inputs} - {"videos"}, artefact
    inputs = jobs[Artefact("train_stage1")][0]
    assert inputs == {"network.safetensors", "results/data" if drawn else "label_map.pbtxt"}
    ingested = {artefact.split for artefact in jobs if artefact.stage == "ingest"}
    assert ingested == ({"val"} if memory == "none" and not drawn else {"train", "val"})
    assert {a.split for a in jobs if a.stage == "detect"} == ({"val"} if memory == "none" else ingested)
    assert any(a.stage == "train_stage2" for a in jobs) == (memory == "acfb")


def test_each_artefact_stands_behind_what_it_is_made_from() -> None:
    config = Config()
    order = {artefact: place for place, artefact in enumerate(artefacts(config))}
    for artefact, place in order.items():
        upstream = [order[source] for given in inputs_of(config, artefact) for source in given.artefacts]
        assert all(source < place for source in upstream)
        assert upstream or artefact.stage == "synthesize"


def _files(config: Config, artefact: Artefact) -> set[str]:
    sources = [source for given in inputs_of(config, artefact) for source in given.sources]
    return {str(s.declared(Paths.of(config)) if isinstance(s, Artefact) else s) for s in sources}


def _merged(values: dict) -> dict:
    merged = yaml.safe_load(DEFAULT.read_text())
    for section, keys in values.items():
        for key, value in keys.items():
            old = merged[section].get(key)
            merged[section][key] = (
                {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
            )
    return merged
