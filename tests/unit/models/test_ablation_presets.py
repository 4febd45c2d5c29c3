"""Each row of tables 1a to 1f has a preset that gives the network it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from acar.config import Config, HeadConfig, parse_config
from acar.models.heads import build_head
from acar.models.hr2o import HR2O
from acar.models.relations.actor_attention import ActorAttention
from acar.models.relations.average import Average
from acar.models.relations.relation_network import RelationNetwork

REPOSITORY = Path(__file__).resolve().parents[3]
PRESETS = REPOSITORY / "workflow" / "presets"
ROWS = sorted(path.stem for path in (PRESETS / "ablations").glob("*.yaml"))
# The blocks of each row's head, by type; and whether stage 2 has a bank.
BLOCKS: dict[str, tuple[list[type], str]] = {
    "acrn": ([], "none"),
    "hr2o": ([HR2O] * 2, "none"),
    "hr2o_1l": ([HR2O], "none"),
    "hr2o_3l": ([HR2O] * 3, "none"),
    "avg": ([Average], "none"),
    "rn": ([RelationNetwork], "none"),
    "actor_first": ([ActorAttention] * 2, "none"),
    "lfb": ([HR2O] * 2, "lfb"),
    "acar": ([HR2O] * 2, "acfb"),
}


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def over(base: Any, top: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    return base | {key: over(base.get(key), value) for key, value in top.items()}


def merged(row: str, *below: str) -> Config:
    values = read(REPOSITORY / "config.yaml")
    for name in (*below, f"ablations/{row}"):
        values = over(values, read(PRESETS / f"{name}.yaml"))
    return parse_config(values)


@pytest.mark.parametrize("row", ROWS)
def test_preset_changes_the_head_and_the_bank_only(row: str) -> None:
    assert merged(row).data.source == "synthetic"
    config, published = merged(row, "ava_r50"), merged("acar", "ava_r50")
    allowed = {"run": published.run, "model": published.model, "bank": published.bank}
    assert config.model_copy(update=allowed) == published
    assert config.model.backbone == published.model.backbone
    assert config.run.results == f"results_{row}"


@pytest.mark.parametrize("row", ROWS)
def test_preset_gives_the_rows_head(row: str) -> None:
    head_config = merged(row, "ava_r50").model.head
    with torch.device("meta"):
        head = build_head(head_config, (2048, 256), 60)
    if row in BLOCKS:
        blocks, memory = BLOCKS[row]
        assert [type(block) for block in head.hr2o] == blocks and head_config.memory == memory
    else:
        assert (head_config.relation, head_config.memory) == (row, "none")


def test_acar_is_the_published_default() -> None:
    assert merged("acar", "ava_r50").model.head == HeadConfig()


def test_every_row_of_the_tables_names_a_preset() -> None:
    lines = (PRESETS / "ablations" / "README.md").read_text().splitlines()
    rows = [
        tuple(part.strip() for part in line.strip("|").split("|"))
        for line in lines
        if re.match(r"\| 1", line)
    ]
    assert len(rows) == 18 and {table for table, *_ in rows} == {f"1{letter}" for letter in "abcdef"}
    assert {file for _, _, file, _ in rows} == set(ROWS)
    for _, _, file, mean_ap in rows:
        assert f"{mean_ap} mAP" in (PRESETS / "ablations" / f"{file}.yaml").read_text().splitlines()[0]
