"""A tiny run of the stages that are quick, and what `acar status` says of it after each change."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny import tiny_values

from acar import cli
from acar.bank.source import shard_source
from acar.config import Config, parse_config
from acar.data.tables import read_labels, write_detections
from acar.jobs.owners import sole_owner
from acar.origins.record import Artefact, artefacts, code_version, origin_of, write_origin
from acar.origins.status import survey
from acar.origins.table import as_json, as_text
from acar.paths import Paths
from acar.stages import detect, evaluate, ingest, synthesize


def values_of(folder: Path) -> dict:
    """A data set of files, two train shards, boxes from the labels."""
    labels = {split: str(folder / "data" / f"{split}.csv") for split in ("train", "val")}
    data = {
        "source": "files", "videos": str(folder / "data/videos"),
        "label_map": str(folder / "data/label_map.pbtxt"),
        "train": {"labels": labels["train"], "shards": 2}, "val": {"labels": labels["val"]},
    }  # fmt: skip
    return tiny_values(
        folder / "results", data=data, detector={"source": "boxes", "boxes": labels},
        predict={"wrong_bank": False},
    )  # fmt: skip


def stand_in(config: Config, artefact: Artefact) -> None:
    """What a stage that takes long would leave: its main files, and the real origin."""
    paths, origin = Paths.of(config), origin_of(config, artefact.stage, **artefact.ids)
    for file in artefact.main_files(paths):
        file.parent.mkdir(parents=True, exist_ok=True)
        if artefact.stage == "predict":
            labels = read_labels(config.data.val.labels or "").dropna(subset=["action_id"])
            write_detections(labels.assign(score=1.0).astype({"action_id": int}), file)
        elif artefact.stage == "seal_bank":
            n_shards = getattr(config.data, artefact.split).shards
            sources = [shard_source(config, artefact.config_split, shard) for shard in range(n_shards)]
            file.write_text(json.dumps({"provenance": {}, "shards": sources}))
        else:
            file.write_text(json.dumps(origin["config"]))
    write_origin(artefact.folder(paths), origin)


def make(config: Config, stages: tuple[str, ...] = ()) -> None:
    """Run every stage that takes no time and stand in for the others; `stages`: those only."""
    real: dict[str, Callable[..., None]] = {
        "ingest": ingest.run, "detect": detect.run, "evaluate": evaluate.run,
    }  # fmt: skip
    for artefact in artefacts(config):
        if not stages or artefact.stage in stages:
            run = real.get(artefact.stage)
            run(config, **artefact.ids) if run else stand_in(config, artefact)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("made")
    synthesize.run(parse_config(tiny_values(folder)))
    (folder / "results").mkdir()
    make(parse_config(values_of(folder)))
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    return folder


def not_current(folder: Path, **sections: dict) -> dict[str, tuple[str, list[str]]]:
    """State and reasons of what is not current, with `sections` laid over the config."""
    values = values_of(folder)
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    rows = survey(parse_config(values)).rows
    return {str(row.artefact): (row.state, row.because) for row in rows if row.state != "current"}


def config_file(folder: Path) -> str:
    file = folder / "results" / "config.yaml"
    file.write_text(yaml.safe_dump(values_of(folder)))
    return str(file)


AFTER_STAGE2 = {"stage2", "predictions/stage2/shard-000", "evaluation/stage2", "report"}
OF_STAGE1 = {"predictions/stage1/shard-000", "evaluation/stage1"}
BANKS = {"bank/train/shard-000", "bank/train/shard-001", "bank/train", "bank/val/shard-000", "bank/val"}


def test_nothing_changed_everything_is_current_also_elsewhere(made, run):
    """No artefact names the folder that it was made in."""
    assert not_current(made) == not_current(run) == {}
    assert survey(parse_config(values_of(run))).is_current


@pytest.mark.parametrize(
    ("sections", "stale", "because"),
    [
        ({"evaluation": {"iou": 0.6}}, {"evaluation/stage1", "evaluation/stage2", "report"},
         {"evaluation/stage1": ["`evaluation.iou` is 0.6, was 0.5"]}),
        ({"stage2": {**values_of(Path())["stage2"], "base_lr": 0.5}}, AFTER_STAGE2,
         {"stage2": ["`stage2.base_lr` is 0.5, was 0.05"], "predictions/stage2/shard-000": ["`stage2` is stale"]}),
        ({"data": {"class_groups": {"pose": ["stand"], "object": [4]}}},
         AFTER_STAGE2 | BANKS | OF_STAGE1 | {"stage1"},
         {"stage1": ['`data.class_groups.pose` is ["stand"], was null'],
          "evaluation/stage1": ['`data.class_groups.pose` is ["stand"], was absent',
                                "`data.class_groups.object` is [4], was absent",
                                "`predictions/stage1/shard-000` is stale"]}),
        ({"bank": {"zstd_level": 0}}, AFTER_STAGE2 | BANKS,
         {"bank/train": ["2 shards of `bank/train` are stale"], "bank/val": ["`bank/val/shard-000` is stale"]}),
        ({"stage1": {**values_of(Path())["stage1"], "workers": 3, "log_every": 7}, "run": {"device": "auto"}},
         set(), {}),
    ],
)  # fmt: skip
def test_a_changed_key_makes_stale_what_reads_it_and_what_follows(run, sections, stale, because):
    if "run" in sections:
        sections = sections | {"run": {**sections["run"], "results": str(run / "results")}}
    found = not_current(run, **sections)
    assert {name for name, (state, _) in found.items() if state == "stale"} == set(found) == stale
    for name, reasons in because.items():
        assert found[name][1] == reasons


def test_a_changed_labels_file(run):
    labels = run / "data" / "val.csv"
    labels.write_text(labels.read_text().rsplit("\n", 2)[0] + "\n")
    found = not_current(run)
    untouched = {"ingest/train/shard-000", "boxes/train/shard-001", "stage1", "bank/train", "stage2"}
    assert not untouched & set(found)
    assert found["ingest/val/shard-000"] == ("stale", [f"input `labels` is another one: {labels}"])
    assert found["evaluation/stage1"][1][0] == f"input `labels` is another one: {labels}"
    labels.unlink()
    assert not_current(run)["ingest/val/shard-000"] == ("stale", [f"input `labels` cannot be read: {labels}"])


def test_a_lost_shard_is_missing_and_its_bank_is_to_be_sealed_again(run):
    shutil.rmtree(run / "results/bank/train/shard-001")
    assert not_current(run) == {
        "bank/train/shard-001": ("missing", []),
        "bank/train": ("stale", ["`bank/train/shard-001` is missing"]),
    }


def test_one_stage_by_hand_with_other_inputs(run):
    """Stage 1 trained again: its weights are others, and so is all that was made with the old ones."""
    (run / "results/stage1/model.safetensors").write_text("other weights")
    found = not_current(run)
    assert set(found) == AFTER_STAGE2 | OF_STAGE1 | BANKS
    assert found["bank/val/shard-000"] == ("stale", ["input `weights` is another one"])
    make(parse_config(values_of(run)), ("extract_bank",))
    assert set(not_current(run)) == AFTER_STAGE2 | OF_STAGE1 | {"report"}


def test_a_stage_run_again_gives_the_same_bytes(run):
    config = parse_config(values_of(run))
    for run_again, name in ((lambda: ingest.run(config, "val", 0), "ingest/val/shard-000"),
                            (lambda: evaluate.run(config, "stage1"), "evaluation/stage1")):  # fmt: skip
        before = (run / "results" / name / "origin.json").read_bytes()
        run_again()
        assert (run / "results" / name / "origin.json").read_bytes() == before
    assert not_current(run) == {}


def test_other_code_is_told_and_reruns_nothing(run, monkeypatch):
    monkeypatch.setattr("acar.origins.table.code_version", lambda: "9.9+abc")
    assert not_current(run) == {}
    text = as_text(survey(parse_config(values_of(run))))
    assert "the code is 9.9+abc now" in text and code_version() in text


def test_work_in_progress_and_who_is_at_work(run):
    paths = Paths(run / "results")
    for folder in (paths.training(2), paths.bank_shard("val", 0), paths.ingest("train", 1)):
        shutil.rmtree(folder)
    work = {
        paths.work("stage2") / "metrics.jsonl": '{"iteration": 2}\n{"iteration": 3, "lo',
        paths.work("stage2") / "checkpoint.pt": "x" * 2**20,
        paths.work("bank-val-000") / "journal.jsonl": '{"format": 1}\n{"video": "a"}\n{"video": "b"}\n',
        paths.work("ingest-train-001") / "facts" / "a.json": "{}",
    }
    for file, text in work.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    with sole_owner(paths.owners / "extract-bank-val-0.lock"):
        found = not_current(run)
        text = as_text(survey(parse_config(values_of(run))))
    state, (owner, progress) = found["bank/val/shard-000"]
    assert state == "running" and owner.startswith("pid ")
    assert progress == "work in progress: 2 videos finished"
    assert found["bank/val"] == ("stale", ["`bank/val/shard-000` is running"])
    assert f"at work: extract-bank-val-0 ({owner})" in text
    assert found["stage2"] == (
        "unfinished", ["work in progress: iteration 2 of 4, checkpoint of 1.0 MiB, 0 min old"]
    )  # fmt: skip
    assert found["ingest/train/shard-001"] == ("unfinished", ["work in progress: 1 videos finished"])
    assert not_current(run)["bank/val/shard-000"][0] == "unfinished"


def test_without_origin_it_is_unknown(run):
    (run / "results/stage1/origin.json").unlink()
    assert not_current(run) == {"stage1": ("unknown", [])}
    assert "unknown: has no origin.json" in as_text(survey(parse_config(values_of(run))))


def test_the_table_puts_equal_shards_together_and_keeps_to_its_width(run):
    shutil.rmtree(run / "results/ingest/train")
    found = survey(parse_config(values_of(run)))
    lines = as_text(found, width=120).splitlines()
    assert max(map(len, lines)) <= 120
    assert any(line.split() == ["ingest/train/shard-000..001", "missing"] for line in lines)
    boxes = next(place for place, line in enumerate(lines) if line.startswith("boxes/train/shard-000..001"))
    assert lines[boxes].split()[1] == "stale" and "videos (2 digests)" in lines[boxes]
    assert lines[boxes + 1].strip() == "because its shard of `ingest/train` is missing"
    shown = as_text(found, every=True)
    assert "ingest/train/shard-000 " in shown and "ingest/train/shard-001 " in shown


def test_json_tells_everything(run):
    found = as_json(survey(parse_config(values_of(run))))
    assert found["current"] is True and found["owners"] == {}
    stage2 = next(row for row in found["artefacts"] if row["artefact"] == "stage2")
    assert set(stage2["made_from"]) == {
        "labels", "label_map", "videos", "boxes", "bank_weights", "bank", "val_bank", "config"
    }  # fmt: skip
    assert all(len(digest) == 64 for digest in stage2["made_from"].values())
    assert stage2["code"] == code_version()


def test_the_command(run, capsys):
    config = config_file(run)
    assert cli.main(["status", "--config", config, "--check"]) == 0
    assert "current" in capsys.readouterr().out
    (run / "mine.yaml").write_text("evaluation: {iou: 0.7}\n")
    both = ["status", "--config", config, str(run / "mine.yaml"), "--json"]
    assert cli.main(both) == 0
    rows = json.loads(capsys.readouterr().out)["artefacts"]
    assert [row["artefact"] for row in rows if row["state"] == "stale"] == [
        "evaluation/stage1", "evaluation/stage2", "report"
    ]  # fmt: skip
    assert cli.main([*both, "--check"]) == 1


def test_it_does_not_import_torch():
    program = "import sys; import acar.origins.table; print({'torch', 'zarr'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_nothing_made_yet(tmp_path):
    found = survey(parse_config(values_of(tmp_path)))
    assert {row.state for row in found.rows} == {"missing"}
    assert "ingest/train/shard-000..001" in as_text(found)
