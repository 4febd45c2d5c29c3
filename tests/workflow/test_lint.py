from __future__ import annotations

import re

from workflow_runs import REPOSITORY

from acar.cli import STAGES


def test_snakemake_lint_is_clean(snakemake):
    answer = snakemake("--lint")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_rule_is_a_subcommand_and_a_module():
    text = "\n".join(path.read_text() for path in sorted((REPOSITORY / "rules").glob("*.smk")))
    rules = set(re.findall(r"^ *rule (\w+):", text, re.MULTILINE))
    assert rules == {stage.verb.replace("-", "_") for stage in STAGES}
    for rule in rules:
        assert f'"acar {rule.replace("_", "-")} --config' in text


def test_every_rule_states_its_gpus_and_its_digest():
    for path in (REPOSITORY / "rules").glob("*.smk"):
        rules = re.split(r"^ *rule ", path.read_text(), flags=re.MULTILINE)[1:]
        for rule in rules:
            name = rule.split(":")[0]
            asked = (f'threads: threads_of("{name}")', f'**resources_of("{name}", gpu=')
            for part in (*asked, "log:", "benchmark:", f'stage_digest(CONFIG, "{name}"'):
                assert part in rule, f"{path.name}, rule {name}: {part}"
