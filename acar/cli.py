"""The command line: `acar VERB ...`, one subcommand a pipeline stage and a few to look at things.

Stage modules are imported when they run: GPUs are leased before torch starts, and `acar --help` is quick.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acar import __version__
from acar.config import SPLITS, Config, load_config
from acar.config.merge import merged_config
from acar.data.formats.commands import add_verbs as add_data_verbs
from acar.data.ucf24_commands import add_verbs as add_ucf24_verbs
from acar.disk_errors import told_as_user_error, user_error
from acar.ensemble.command import add_verb as add_ensemble
from acar.errors import UserError
from acar.evaluation.ava_command import add_verb as add_evaluate_ava
from acar.evaluation.frame_commands import add_verbs as add_frame_verbs
from acar.jobs.leases import job_lease
from acar.jobs.owners import die_with_parent, sole_owner
from acar.jobs.owners import join as join_owners
from acar.memory_errors import out_of_memory
from acar.origins.finished import take_up_finished
from acar.paths import Paths
from acar.weights.commands import add_verbs as add_weights_verbs
from acar.workflow import config_text, trains_stage1

VARIANTS = ("stage1", "stage2", "stage2_wrong_bank")


@dataclass(frozen=True)
class Stage:
    """A subcommand that runs the stage module of its name.

    Attributes:
        verb: e.g. `extract-bank`, run by `acar.stages.extract_bank`.
        does: one line for the overview; a fuller text is the module's docstring.
        ids: which of split, shard and variant name one job.
        gpu: computes on a GPU if there is one.
        spreads: can run as several processes, one a GPU.
    """

    verb: str
    does: str
    ids: tuple[str, ...] = ()
    gpu: bool = False
    spreads: bool = False

    @property
    def module(self) -> str:
        """The stage's module."""
        return "acar.stages." + self.verb.replace("-", "_")


STAGES = (
    Stage("synthesize", "draw the default data set: videos, labels and the law behind them"),
    Stage("ingest", "decode a shard's videos to constant-rate clips", ("split", "shard")),
    Stage("train-detector", "train the person detector on ground-truth boxes", gpu=True),
    Stage("detect", "find the persons at every second of a shard's videos", ("split", "shard"), gpu=True),
    Stage(
        "train-stage1",
        "train the network without a bank, or take it from stage1.weights",
        gpu=True,
        spreads=True,
    ),
    Stage("extract-bank", "write a shard of the actor-context feature bank", ("split", "shard"), gpu=True),
    Stage("seal-bank", "check a split's bank, index it and write its manifest", ("split",)),
    Stage("train-stage2", "train the network that attends to the sealed bank", gpu=True, spreads=True),
    Stage("predict", "score the actors of a shard of the val split", ("variant", "shard"), gpu=True),
    Stage("evaluate", "mean average precision of a variant's predictions", ("variant",)),
    Stage("report", "write the page on the whole run"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit status (0, 2 for a user's mistake, 130 when interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Read when torch loads OpenMP: threads that wait asleep. Spinning ones cost up to 10x on a shared machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = _parser().parse_args(arguments)
    try:
        return int(args.handler(args, arguments) or 0)
    except KeyboardInterrupt:
        _say(f"acar {args.verb}: interrupted")
        return 130
    except BrokenPipeError:  # of `acar status | head`; Python flushes once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        told = error if isinstance(error, UserError) else user_error(error) or out_of_memory(error, args.verb)
        if told is None:
            raise
        _say(f"acar {args.verb}: {told}")
        return 2


def _say(line: str) -> None:
    # Where the log itself lies on the full disk, the exit status is all that can be told.
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="acar",
        description="ACAR-Net with its Actor-Context Feature Bank. Each stage's subcommand runs one job of "
        "the pipeline that `snakemake` runs as a whole.",
    )
    parser.add_argument("--version", action="version", version=f"acar {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for stage in STAGES:
        _add_stage(verbs, stage)
    inspect = verbs.add_parser("inspect-bank", help="show what a bank, or a shard of one, holds")
    inspect.add_argument("--bank", required=True, type=Path, help="a split's bank, e.g. results/bank/train")
    inspect.set_defaults(handler=_inspect_bank)
    show = verbs.add_parser(
        "show-config",
        help="check configs and print them merged",
        description="Merge config files as `snakemake --configfile` does: the later one wins, key by key. "
        "Check the result and print every key.",
    )
    show.add_argument("--config", required=True, type=Path, nargs="+", help="e.g. config.yaml preset.yaml")
    show.set_defaults(handler=_show_config)
    status = verbs.add_parser(
        "status",
        help="show each artefact, what it came from, and whether it is current",
        description="List every artefact of a run: what it was made from, whether that still holds (and if not, "
        "what differs), work in progress, and who is at work.",
    )
    status.add_argument(
        "--config", required=True, type=Path, nargs="+",
        help="results/config.yaml: as the last run; or config.yaml and what goes over it: as the next run would",
    )  # fmt: skip
    status.add_argument("--all", action="store_true", help="a row for each shard")
    status.add_argument("--json", action="store_true", help="for programs")
    status.add_argument("--check", action="store_true", help="exit status 1 unless everything is current")
    status.set_defaults(handler=_status)
    add_data_verbs(verbs)
    add_weights_verbs(verbs)
    add_evaluate_ava(verbs)
    add_ensemble(verbs)
    add_frame_verbs(verbs)
    add_ucf24_verbs(verbs)
    head = verbs.add_parser("headline", help="print where the report is and the main figures of a run")
    _add_config(head)
    head.set_defaults(handler=_headline)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, type=Path, help="the run's merged config, e.g. results/config.yaml"
    )


def _add_stage(verbs: Any, stage: Stage) -> None:
    parser = verbs.add_parser(stage.verb, help=stage.does, description=f"{stage.does.capitalize()}.")
    _add_config(parser)
    if "split" in stage.ids:
        parser.add_argument("--split", required=True, choices=SPLITS)
    if "variant" in stage.ids:
        parser.add_argument(
            "--variant", required=True, choices=VARIANTS,
            help="stage 1, stage 2, or stage 2 with every bank row taken from another video",
        )  # fmt: skip
    if "shard" in stage.ids:
        parser.add_argument("--shard", required=True, type=int, help="number of the job's part, from 0")
    if stage.gpu:
        most = "run.train_gpus of the config, fewer if there are fewer" if stage.spreads else "1"
        parser.add_argument("--gpus", type=int, help=f"GPUs to lease; 0: compute on the CPU; default: {most}")
    if stage.spreads:
        parser.add_argument(
            "--processes", type=int, help="training processes; default: one a leased GPU, 1 on the CPU"
        )
    parser.set_defaults(handler=lambda args, arguments: _run_stage(stage, args, arguments))


def _run_stage(stage: Stage, args: argparse.Namespace, arguments: list[str]) -> int:
    config = load_config(args.config)
    with told_as_user_error(Paths.of(config).root):
        return _run_job(stage, args, arguments, config)


def _run_job(stage: Stage, args: argparse.Namespace, arguments: list[str], config: Config) -> int:
    ids = {name: getattr(args, name) for name in stage.ids}
    _check_shard(config, ids)
    join_owners()
    if "LOCAL_RANK" in os.environ:  # of torchrun: it computes on what its parent has leased
        die_with_parent()
        importlib.import_module(stage.module).run(config, **ids)
        return 0
    job = "-".join([stage.verb, *map(str, ids.values())])
    with sole_owner(Paths.of(config).owners / f"{job}.lock"):
        if take_up_finished(config, stage.verb.replace("-", "_"), ids):
            return 0
        if not _computes(stage, config):
            importlib.import_module(stage.module).run(config, **ids)
            return 0
        with _leased(stage, args, config) as n_devices:
            processes = _processes(getattr(args, "processes", None), n_devices)
            if processes > 1:
                return int(importlib.import_module("acar.training.launch").launch(arguments, processes))
            importlib.import_module(stage.module).run(config, **ids)
    return 0


def _computes(stage: Stage, config: Config) -> bool:
    """Whether a stage's job leases GPUs: taking a network computes nothing."""
    return stage.gpu and (stage.verb != "train-stage1" or trains_stage1(config))


def _check_shard(config: Config, ids: dict[str, Any]) -> None:
    if "shard" not in ids:
        return
    split = ids.get("split", "val")
    n_shards = getattr(config.data, split).shards
    if not 0 <= ids["shard"] < n_shards:
        raise UserError(
            f"--shard {ids['shard']}: data.{split}.shards is {n_shards}, so expected 0 to {n_shards - 1}"
        )


@contextmanager
def _leased(stage: Stage, args: argparse.Namespace, config: Config) -> Iterator[int]:
    """Hold the job's GPUs and hide all others from torch; yields their number."""
    wanted = args.gpus
    if wanted is None:
        wanted = config.run.train_gpus if stage.spreads else 1
    asked = getattr(args, "processes", None)
    if asked is not None:  # a GPU more than there are processes would idle in our hands
        wanted = min(wanted, max(asked, 1))
    with job_lease(wanted, config.run.device, at_most=stage.spreads and asked is None) as n_devices:
        yield n_devices


def _processes(asked: int | None, n_devices: int) -> int:
    if asked is None:
        return max(1, n_devices)
    if asked < 1 or (n_devices and asked > n_devices):
        limit = f"1 to {n_devices}, the number of leased GPUs" if n_devices else "1 or more"
        raise UserError(f"--processes {asked}: expected {limit}; --gpus 0 computes on the CPU")
    return asked


def _inspect_bank(args: argparse.Namespace, _: list[str]) -> None:
    importlib.import_module("acar.stages.inspect_bank").run(args.bank)


def _show_config(args: argparse.Namespace, _: list[str]) -> None:
    print(config_text(merged_config(args.config)), end="")


def _status(args: argparse.Namespace, _: list[str]) -> int:
    # Imported here, like the stages: no job needs it.
    from acar.origins.status import survey
    from acar.origins.table import as_json, as_text

    found = survey(load_config(args.config[0]) if len(args.config) == 1 else merged_config(args.config))
    if args.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        width = min(shutil.get_terminal_size((140, 24)).columns, 160)
        print(as_text(found, every=args.all, width=width))
    return 1 if args.check and not found.is_current else 0


def _headline(args: argparse.Namespace, _: list[str]) -> None:
    # Imported here, like the stages: the other subcommands do without it.
    from acar.evaluation.summary import headline

    paths = Paths.of(load_config(args.config))
    files = {variant: paths.evaluation(variant) / "metrics.json" for variant in VARIANTS}
    metrics = {}
    for variant, file in files.items():
        if file.is_file():
            try:
                metrics[variant] = json.loads(file.read_text(encoding="utf-8"))
                headline({variant: metrics[variant]})
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{file}: not a metrics.json of this program ({type(error).__name__}: {error}); run "
                    f"`acar evaluate --variant {variant}` again"
                ) from None
    print(headline(metrics))
    print(f"report: {paths.report}" + ("" if paths.report.is_file() else " (not written yet)"))


if __name__ == "__main__":
    sys.exit(main())
