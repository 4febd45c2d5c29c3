"""Kill the pipeline with -9 again and again; the same command must give the result of an unbroken run.

    make kill-test                                  # all kills, about ten minutes on two cores
    python tests/kills/kill_test.py --kills 3       # a few, spread over the stages

Two runs of one tiny drawn data set, side by side. One is never disturbed. In the other, the whole process tree of
`snakemake` is killed while a stage's own progress advances, and the same command is given again, until
every planned kill has been struck; then the files of both runs are compared byte by byte. A training in
two processes (gloo) is treated likewise. Exit status 0 if every kill landed, every job went on from its last
checkpoint or video, and everything is equal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))
from tiny import tiny_values  # noqa: E402  (found once the tests' folder is on the path)

CHECKPOINT_EVERY = 4
ITERATIONS = 40
TRAINING = {
    "iterations": ITERATIONS,
    "checkpoint_every": CHECKPOINT_EVERY,
    "milestones": [30],
    "log_every": 2,
}
PROGRESS = re.compile(r": (\d+)/(\d+) (?:iterations|videos)")
RESUMED = re.compile(r"going on (?:after|at iteration) (\d+) of \d+")
UNLOCKED = "Removed the locks of a Snakemake run that is gone."
POLL_S = 0.004
LONGEST_RUN_S = 1200.0
# Wall-clock figures and how often a run was broken are allowed to differ.
TIMING_KEYS = {"clips_per_s", "images_per_s", "elapsed_s"}
COMPARED = (
    "data/*.*", "data/videos/*", "ingest/*/*/*", "detector/model.safetensors", "detector/origin.json", "boxes/*/*/*",
    "stage?/model.safetensors", "stage?/origin.json", "bank/*/*", "bank/*/*/**/*",
    "predictions/*/*/*", "evaluation/*/*",
)  # fmt: skip
COMPARED_LOGS = ("detector/metrics.jsonl", "stage?/metrics.jsonl")


@dataclass(frozen=True)
class Kill:
    """Strike while `log` (a job's, below results/logs) says that at least `at` steps are done, but not all."""

    log: str
    at: int
    lock: str


@dataclass
class Struck:
    """A kill that was struck.

    Attributes:
        step, total: progress of the job at the kill (iterations or videos); the job's pid.
        processes: how many were killed.
        resumed_from: where the next run went on, None if it said nothing.
        landed: the job's progress stood between nothing and all.
    """

    job: str
    step: int
    total: int
    pid: int
    processes: int
    landed: bool
    resumed_from: int | None = None
    unlocked: bool = False


# Each stage in the order of the graph; the later kills of a job hit the resumed one.
PLAN = (
    Kill("ingest/train-000", 2, "ingest-train-0"),
    Kill("ingest/train-000", 5, "ingest-train-0"),
    Kill("ingest/val-000", 3, "ingest-val-0"),
    Kill("train_detector", 6, "train-detector"),
    Kill("train_detector", 18, "train-detector"),
    Kill("train_detector", 33, "train-detector"),
    Kill("detect/train-000", 2, "detect-train-0"),
    Kill("detect/train-000", 6, "detect-train-0"),
    Kill("detect/val-000", 3, "detect-val-0"),
    Kill("train_stage1", 5, "train-stage1"),
    Kill("train_stage1", 19, "train-stage1"),
    Kill("train_stage1", 34, "train-stage1"),
    Kill("extract_bank/train-000", 2, "extract-bank-train-0"),
    Kill("extract_bank/train-000", 6, "extract-bank-train-0"),
    Kill("extract_bank/val-000", 3, "extract-bank-val-0"),
    Kill("train_stage2", 5, "train-stage2"),
    Kill("train_stage2", 21, "train-stage2"),
    Kill("train_stage2", 36, "train-stage2"),
    Kill("predict/stage1-000", 2, "predict-stage1-0"),
    Kill("predict/stage2-000", 3, "predict-stage2-0"),
)
FEW = ("train_stage1", "extract_bank/train-000", "predict/stage2-000", "train_detector", "detect/train-000")
GLOO = (Kill("gloo", 6, "train-stage1"), Kill("gloo", 18, "train-stage1"), Kill("gloo", 33, "train-stage1"))


def values() -> dict:
    """A tiny run whose every stage takes long enough to be hit."""
    detector = {
        "architecture": "fasterrcnn_mobilenet_v3_small_fpn", "min_side_px": 64, "max_side_px": 128,
        "iterations": ITERATIONS, "batch_images": 2, "warmup_iterations": 4, "keep_score": 0.0, "max_boxes": 3,
        "checkpoint_every": CHECKPOINT_EVERY,
    }  # fmt: skip
    tiny = tiny_values(
        Path("results"),
        synthesize={"train_videos": 8, "val_videos": 6, "video_s": 10, "aspect_ratios": [1.0]},
        data={"train": {"shards": 1}, "val": {"shards": 1}},
        detector=detector,
        boxes={"train_score": 0.0},
        bank={"min_score": 0.0, "rows_per_shard": 16, "batch_clips": 2},
        predict={"min_score": 0.0, "wrong_bank": False, "batch_clips": 2, "examples": 2},
    )
    for stage in ("stage1", "stage2"):
        tiny[stage] = {**tiny[stage], **TRAINING}
    return tiny


class Run:
    """A command in a folder of its own, started again after each kill."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder, self.command, self.marker = folder, command, uuid.uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tiny.yaml").write_text(yaml.safe_dump(values()))
        self.output = folder / "output.txt"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command; its output goes to `output.txt`, and to gloo's log for a bare training."""
        environment = os.environ | {
            "ACAR_PROGRESS_EVERY_S": "0", "CUDA_VISIBLE_DEVICES": "", "KILL_TEST": self.marker,
            "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with open(self.output, "wb") as output:
            return subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def finish(self) -> None:
        """Run to the end; the output of a failure is printed."""
        if self.start().wait(LONGEST_RUN_S) != 0:
            raise SystemExit(f"{' '.join(self.command)} failed in {self.folder}:\n{self.said()[-6000:]}")

    def said(self) -> str:
        """What the last command printed."""
        return self.output.read_text(errors="replace")

    def log(self, name: str) -> Path:
        """A job's log."""
        return self.output if name == "gloo" else self.folder / "results" / "logs" / f"{name}.log"

    def processes(self) -> list[psutil.Process]:
        """All living processes of this run, also those in sessions of their own."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("KILL_TEST") == self.marker:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it has just ended, or is not ours
        return found


def strike(run: Run, waiting: list[Kill]) -> tuple[Kill, Struck] | None:
    """Start the command, wait until one of the kills is due, kill every process; None if the run ended before."""
    process = run.start()
    due = None
    while due is None and process.poll() is None:
        time.sleep(POLL_S)
        due = next((kill for kill in waiting if is_due(kill, *progress_of(run.log(kill.log)))), None)
    if due is None:
        if process.returncode != 0:
            raise SystemExit(f"{' '.join(run.command)} failed in {run.folder}:\n{run.said()[-6000:]}")
        return None
    victims = run.processes()
    for victim in sorted(victims, key=lambda one: one.pid != process.pid):  # the root first
        victim.kill()
    process.wait()
    while late := run.processes():
        for one in late:
            one.kill()
        time.sleep(POLL_S)
    step, total = progress_of(run.log(due.log))
    return due, Struck(due.log, step, total, owner_of(run, due), len(victims), 0 < step < total)


def is_due(kill: Kill, step: int, total: int) -> bool:
    return kill.at <= step < total


def progress_of(log: Path) -> tuple[int, int]:
    """Steps done and their number, from the last line of progress in a log; (0, 0) without one."""
    found = PROGRESS.findall(log.read_text(errors="replace")) if log.is_file() else []
    return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)


def owner_of(run: Run, kill: Kill) -> int:
    """The job's pid, which it has left in its lock file."""
    lock = run.folder / "results" / "work" / "owners" / f"{kill.lock}.lock"
    found = re.search(r"pid (\d+)", lock.read_text()) if lock.is_file() else None
    return int(found.group(1)) if found else -1


def struck_all(run: Run, plan: tuple[Kill, ...]) -> list[Struck]:
    """Strike each kill when its job is at work, whatever order Snakemake takes, then let the run finish."""
    waiting, struck = list(plan), []
    resuming: list[Struck] = []
    while waiting:
        forget_logs(run, waiting, resuming)
        found = strike(run, waiting)
        note_resumed(run, struck, resuming)
        if found is None:
            return struck + [Struck(kill.log, 0, 0, -1, 0, landed=False) for kill in waiting]
        waiting.remove(found[0])
        now = found[1]
        struck.append(now)
        resuming.append(now)
        print(f"kill {len(struck):2d}: {now.job}, step {now.step} of {now.total}, pid {now.pid}, "
              f"{now.processes} processes", flush=True)  # fmt: skip
    forget_logs(run, waiting, resuming)
    run.finish()
    note_resumed(run, struck, resuming)
    return struck


def forget_logs(run: Run, waiting: list[Kill], resuming: list[Struck]) -> None:
    """Remove the logs that are read next, so that nothing of an earlier run is taken for this one's."""
    for name in {kill.log for kill in waiting} | {one.job for one in resuming}:
        run.log(name).unlink(missing_ok=True)


def note_resumed(run: Run, struck: list[Struck], resuming: list[Struck]) -> None:
    """Read from the logs of the run after a kill where the killed jobs went on, and whether locks were taken over."""
    if struck and not struck[-1].unlocked:
        struck[-1].unlocked = UNLOCKED in run.said() or struck[-1].job == "gloo"
    for one in list(resuming):
        if progress_of(run.log(one.job))[1]:  # the job has begun again
            found = RESUMED.search(run.log(one.job).read_text(errors="replace"))
            one.resumed_from = int(found.group(1)) if found else None
            resuming.remove(one)


def expected_resume(struck: Struck) -> int:
    """The least step that a job may go on from: its last checkpoint, or its last whole video."""
    training = "train" in struck.job.split("/")[0] or struck.job == "gloo"
    return struck.step - struck.step % CHECKPOINT_EVERY if training else struck.step


def differences(one: Path, other: Path) -> tuple[int, list[str]]:
    """How many files were compared, and the names of those that differ or lack a partner."""
    names = {path.relative_to(root) for root in (one, other) for path in compared(root)}
    unequal = [
        str(name)
        for name in sorted(names)
        if not ((one / name).is_file() and (other / name).is_file())
        or content(one / name) != content(other / name)
    ]
    return len(names), unequal


def compared(results: Path) -> Iterator[Path]:
    for pattern in (*COMPARED, *COMPARED_LOGS):
        yield from (p for p in results.glob(pattern) if p.is_file() and p.name != ".snakemake_timestamp")


def content(path: Path) -> bytes | list[dict]:
    """A file's bytes; of a metrics log the entries without their wall-clock figures."""
    if path.suffix != ".jsonl":
        return path.read_bytes()
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in entry.items() if key not in TIMING_KEYS} for entry in entries]


def chosen(n: int) -> tuple[Kill, ...]:
    """`n` kills of the plan, spread over the stages, in the order of the graph."""
    if n >= len(PLAN):
        return PLAN
    first_of_few = [next(kill for kill in PLAN if kill.log == name) for name in FEW]
    wanted = [*first_of_few, *(kill for kill in PLAN if kill not in first_of_few)][:n]
    return tuple(kill for kill in PLAN if kill in wanted)


def gloo_runs(folder: Path, unbroken: Run) -> tuple[Run, Run]:
    """Two runs of stage 1 alone in two processes, on the boxes of the unbroken run."""
    command = [
        sys.executable,
        "-m",
        "acar.cli",
        "train-stage1",
        "--config",
        "results/config.yaml",
        "--processes",
        "2",
    ]
    runs = Run(folder / "gloo-unbroken", command), Run(folder / "gloo-killed", command)
    for run in runs:
        (run.folder / "results").mkdir()
        for name in ("data", "ingest", "boxes"):
            (run.folder / "results" / name).symlink_to(unbroken.folder / "results" / name)
        shutil.copy(unbroken.folder / "results" / "config.yaml", run.folder / "results")
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=len(PLAN) + len(GLOO), help="how many (default: all)")
    parser.add_argument("--folder", type=Path, help="keep everything there (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return kill_test((args.folder or Path(temporary)).resolve(), args.kills)


def kill_test(folder: Path, kills: int) -> int:
    """The whole test; returns the exit status."""
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--cores", "1",
        "--resources", "gpu=1", "--configfile", "tiny.yaml",
    ]  # fmt: skip
    started = time.monotonic()
    unbroken, killed = Run(folder / "unbroken", command), Run(folder / "killed", command)
    with ThreadPoolExecutor(1) as beside:
        undisturbed = beside.submit(unbroken.finish)
        struck = struck_all(killed, chosen(kills))
        undisturbed.result()
    pairs = [(unbroken, killed)]
    if kills > len(PLAN):
        pairs.append(gloo_runs(folder, unbroken))
        pairs[1][0].finish()
        struck += struck_all(pairs[1][1], GLOO[: kills - len(PLAN)])
    compared_files, unequal = 0, []
    for one, other in pairs:
        count, names = differences(one.folder / "results", other.folder / "results")
        compared_files, unequal = compared_files + count, unequal + names
    return verdict(folder, struck, compared_files, unequal, time.monotonic() - started)


def verdict(folder: Path, struck: list[Struck], files: int, unequal: list[str], spent_s: float) -> int:
    """Print the table and what is wrong; returns the exit status."""
    print("\n| kill | job | step | pid | processes | went on from | locks taken over |\n" + "|---" * 7 + "|")
    for number, one in enumerate(struck, 1):
        print(f"| {number} | {one.job} | {one.step} of {one.total} | {one.pid} | {one.processes} | "
              f"{one.resumed_from} | {'yes' if one.unlocked else 'no'} |")  # fmt: skip
    missed = [one for one in struck if not one.landed]
    behind = [
        one
        for one in struck
        if one.landed and (one.resumed_from is None or one.resumed_from < expected_resume(one))
    ]
    (folder / "kills.json").write_text(json.dumps([asdict(one) for one in struck], indent=1))
    print(f"\n{len(struck)} kills, {len(missed)} missed, {len(behind)} not resumed where they should, "
          f"{files} files compared, {len(unequal)} differ, {spent_s:.0f} s")  # fmt: skip
    for name in unequal[:20]:
        print(f"  differs: {name}")
    for one in behind:
        print(
            f"  {one.job}: killed at {one.step}, went on from {one.resumed_from}, expected {expected_resume(one)}"
        )
    return 1 if missed or behind or unequal or not files or not all(one.unlocked for one in struck) else 0


if __name__ == "__main__":
    sys.exit(main())
