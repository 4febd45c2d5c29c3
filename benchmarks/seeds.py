"""The demo's claim over seeds: AP of stage 1, stage 2 and stage 2 with the wrong videos' bank, mean and range.

Each seed draws its own data set and trains its own networks, under `<results>_seed<k>`; a seed that has been run is
not run again. Prints a Markdown table.

    python benchmarks/seeds.py --seeds 0 1 2
    python benchmarks/seeds.py --seeds 1 2 --finished results    # seed 0 is the demo's own run
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

VARIANTS = ("stage1", "stage2", "stage2_wrong_bank")
LONG_TERM = "long_term"


def run_seed(seed: int, results: Path, arguments: Sequence[str]) -> None:
    """Run the whole pipeline with this seed for the data set and the trainings."""
    results.mkdir(parents=True, exist_ok=True)
    override = results / "override.yaml"
    override.write_text(f"run: {{results: {results}, seed: {seed}}}\nsynthesize: {{seed: {seed}}}\n")
    command = [sys.executable, "-m", "snakemake", "--configfile", str(override), *arguments]
    subprocess.run(command, check=True)


def read_metrics(results: Path) -> dict[str, dict]:
    """metrics.json of each variant."""
    return {v: json.loads((results / "evaluation" / v / "metrics.json").read_text()) for v in VARIANTS}


def class_rows(runs: list[dict[str, dict]]) -> list[tuple[str, str, dict[str, list[float]]]]:
    """(class, group, values by column), a value a seed."""
    rows = []
    for place, item in enumerate(runs[0]["stage1"]["classes"]):
        values = {v: [run[v]["classes"][place]["ap"] for run in runs] for v in VARIANTS}
        values["chance"] = [run["stage1"]["classes"][place]["chance"] for run in runs]
        values["positives"] = [run["stage1"]["classes"][place]["positives"] for run in runs]
        rows.append((item["name"], item["group"], values))
    return rows


def mean_and_range(values: Sequence[float]) -> str:
    """`.812 (.790 to .834)`."""
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def print_table(rows: list[tuple[str, str, dict[str, list[float]]]]) -> None:
    """Per class, then what the claim says."""
    print(
        "| class | group | positives (least) | chance | stage 1 | stage 2 | wrong bank | stage 2 - stage 1 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, group, values in rows:
        gain = np.subtract(values["stage2"], values["stage1"])
        cells = [mean_and_range(values[key]) for key in ("stage1", "stage2", "stage2_wrong_bank")]
        print(
            f"| {name} | {group} | {min(values['positives'])} | {np.mean(values['chance']):.3f} | "
            f"{' | '.join(cells)} | {mean_and_range(gain)} |"
        )


def print_claims(rows: list[tuple[str, str, dict[str, list[float]]]]) -> None:
    """The figures that the claim is made of, the worst seed first."""
    long_term = [values for _, group, values in rows if group == LONG_TERM]
    short = [values for _, group, values in rows if group != LONG_TERM]
    gains = np.array([np.subtract(v["stage2"], v["stage1"]) for v in long_term])
    above = np.array([np.subtract(v["stage1"], v["chance"]) for v in long_term])
    wrong = np.array([np.subtract(v["stage2_wrong_bank"], v["stage1"]) for v in long_term])
    fall = np.mean([np.subtract(v["stage1"], v["stage2"]) for v in short], axis=0)
    print(f"\nlong-term gain of stage 2, least of any class and seed: {gains.min():+.3f}")
    print(f"long-term AP of stage 1 minus chance, least and most: {above.min():+.3f}, {above.max():+.3f}")
    furthest = wrong.flat[np.abs(wrong).argmax()]
    print(f"long-term AP with the wrong bank minus stage 1, furthest from 0: {furthest:+.3f}")
    print(f"short-term fall of stage 2 (mean over classes), worst seed: {fall.max():+.3f}")


def main() -> None:
    """Run what is missing, then print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", default="results_seeds", help="folder of the runs, one a seed")
    parser.add_argument(
        "--finished", type=Path, nargs="*", default=[], help="results of runs to count as well"
    )
    parser.add_argument("--cores", default="all")
    parser.add_argument("--gpus", default="1")
    args = parser.parse_args()
    folders = [Path(args.results) / f"seed{seed}" for seed in args.seeds]
    for seed, folder in zip(args.seeds, folders, strict=True):
        run_seed(seed, folder, ["--cores", args.cores, "--resources", f"gpu={args.gpus}"])
    rows = class_rows([read_metrics(folder) for folder in [*args.finished, *folders]])
    print_table(rows)
    print_claims(rows)


if __name__ == "__main__":
    main()
