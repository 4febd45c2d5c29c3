"""What each setting of `compute` costs and saves: time and peak memory of forward passes and training steps.

On the CPU: every setting against the default, in interleaved rounds on one thread, peaks in fresh processes.
On CUDA (taken where there is a device): clips/s at several batch sizes for every precision, memory format and
compilation, against the plain float32 model; the share of the measured matrix-product ceiling; the largest batch of
a training step that fits, with and without recomputation; and with `--profile` where a step spends its time.

    python benchmarks/compute_settings.py                     # thin network, CPU: about a minute
    python benchmarks/compute_settings.py --model r50         # R50, one clip of 32x256x320: several minutes
    python benchmarks/compute_settings.py --model r50 --profile    # on CUDA
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measure import Work, interleave, peak_mib, print_table, ratio, save_json, threads
from plain.network import plain_r50
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from acar.config import BackboneConfig, ComputeConfig, HeadConfig, ModelConfig
from acar.models.compute import prepared
from acar.models.loss import action_loss
from acar.models.net import build_network

CLASSES = 60
ACTORS = 3  # a clip
THIN = ModelConfig(
    backbone=BackboneConfig(width=16, depths=(2, 2, 2, 2), fast_ratio=4, lateral_kernel=5),
    head=HeadConfig(reduce_channels=128, hidden_channels=64),
)
MODELS = {"thin": (THIN, (16, 128, 160)), "r50": (ModelConfig(), (32, 256, 320))}  # network; T, H, W
MODES = ("forward", "training step")
CPU_SETTINGS = {
    "default": {},
    "contiguous": {"memory_format": "contiguous"},
    "bf16": {"precision": "bf16"},
    "recompute backbone": {"checkpoint_activations": "backbone"},
    "recompute all": {"checkpoint_activations": "all"},
    "bf16, recompute all": {"precision": "bf16", "checkpoint_activations": "all"},
}
PLAIN = "plain float32"
CEILING_SIDE = 8192  # of the matrices of the ceiling


def network(model: str, settings: dict[str, str], device: str) -> nn.Module:
    """Fresh weights, the same for all settings."""
    torch.manual_seed(0)
    net = build_network(MODELS[model][0], CLASSES)
    return prepared(net, ComputeConfig(**settings), torch.device(device))


def plain_on_cuda() -> nn.Module:
    """The plain R50 model as PyTorch computes it in float32, without TF32."""
    torch.backends.cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.manual_seed(0)
    return plain_r50(CLASSES).cuda()


def work_of(net: nn.Module, size: tuple[int, int, int], clips: int, mode: str) -> Work:
    """One pass over `clips` clips of ACTORS actors each; on CUDA it returns when the device is done."""
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(1)
    frames = torch.rand((clips, 3, *size), generator=generator).to(device)
    corners = 0.5 * torch.rand((clips * ACTORS, 2), generator=generator)
    boxes = torch.cat([corners, corners + 0.4], 1).to(device)
    clip_index = torch.arange(clips, device=device).repeat_interleave(ACTORS)
    targets = torch.zeros((clips * ACTORS, CLASSES), device=device)
    pose = torch.arange(13, device=device)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)

    def work() -> None:
        net.train(mode == "training step")
        if mode == "forward":
            with torch.inference_mode():
                net(frames, boxes, clip_index)
        else:
            optimizer.zero_grad(set_to_none=True)
            (action_loss(net(frames, boxes, clip_index), targets, pose) / len(boxes)).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return work


def prepare(model: str, settings: dict[str, str], clips: int, mode: str) -> Work:
    """The work of a setting on the CPU, for a fresh process."""
    return work_of(network(model, settings, "cpu"), MODELS[model][1], clips, mode)


def on_cpu(model: str, clips: int, rounds: int, mode: str, compiled: bool) -> list[dict[str, object]]:
    """A row for each setting: time over the default's, and peak memory."""
    chosen = dict(CPU_SETTINGS) | ({"compiled": {"compile": "all"}} if compiled else {})
    if mode == "forward":
        chosen = {name: s for name, s in chosen.items() if "checkpoint_activations" not in s}
    works = {name: prepare(model, settings, clips, mode) for name, settings in chosen.items()}
    spent = interleave(works, rounds)
    base = peak_mib(prepare, model, {}, clips, mode)
    rows: list[dict[str, object]] = []
    for name, settings in chosen.items():
        peak = base if name == "default" else peak_mib(prepare, model, settings, clips, mode)
        rows.append({
            "setting": name, "s": statistics.median(spent[name]),
            "time / default": ratio(spent[name], spent["default"]), "peak, MiB": peak, "peak / default": peak / base,
        })  # fmt: skip
    return rows


def seconds(work: Work, rounds: int) -> float:
    """Median of `rounds` runs behind two that warm up (and compile)."""
    spent = []
    for turn in range(rounds + 2):
        start = time.perf_counter()
        work()
        if turn >= 2:
            spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def ceiling(precision: str, rounds: int) -> float:
    """TFLOP/s of a product of large square matrices in the precision."""
    torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn((CEILING_SIDE, CEILING_SIDE), device="cuda", dtype=dtype) for _ in range(2))

    def work() -> None:
        a @ b
        torch.cuda.synchronize()

    return 2 * CEILING_SIDE**3 / seconds(work, rounds) / 1e12


def flops_a_clip(model: str, mode: str) -> float:
    """Floating-point operations of a pass over one clip; recomputation is no useful work and is not counted."""
    with FlopCounterMode(display=False) as counter:
        work_of(network(model, {}, "cuda"), MODELS[model][1], 1, mode)()
    return float(counter.get_total_flops())


def attempt(make: Callable[[], nn.Module], model: str, clips: int, mode: str, rounds: int) -> float | None:
    """Seconds a pass; None if it does not fit."""
    try:
        return seconds(work_of(make(), MODELS[model][1], clips, mode), rounds)
    except torch.OutOfMemoryError:
        return None
    finally:
        torch._dynamo.reset()
        gc.collect()
        torch.cuda.empty_cache()


def on_cuda(model: str, batches: Sequence[int], rounds: int, mode: str) -> list[dict[str, object]]:
    """A row for each way of computing, a column for each batch size: clips/s, gain, share of the ceiling."""
    flops = flops_a_clip(model, mode)
    ceilings = {precision: ceiling(precision, rounds) for precision in ("float32", "tf32", "bf16")}
    ways: dict[str, tuple[str, Callable[[], nn.Module]]] = {}
    if model == "r50":
        ways[PLAIN] = ("float32", plain_on_cuda)
    grid = itertools.product(ceilings, ("none", "all"), ("contiguous", "channels_last"))
    for precision, compiled, memory_format in grid:
        settings = {"precision": precision, "compile": compiled, "memory_format": memory_format}
        name = f"{precision}, {'compiled' if compiled == 'all' else 'eager'}, {memory_format}"
        ways[name] = (precision, lambda s=settings: network(model, s, "cuda"))
    base: dict[int, float] = {}
    rows = []
    for name, (precision, make) in ways.items():
        row: dict[str, object] = {"setting": name}
        for clips in batches:
            spent = attempt(make, model, clips, mode, rounds)
            rate = None if spent is None else clips / spent
            if rate is not None:
                base.setdefault(clips, rate)
            row[f"clips/s at {clips}"] = "does not fit" if rate is None else rate
            row[f"gain at {clips}"] = "" if rate is None or clips not in base else rate / base[clips]
            row[f"of ceiling at {clips}"] = (
                "" if rate is None else f"{rate * flops / 1e12 / ceilings[precision]:.0%}"
            )
        rows.append(row)
    print(f"ceilings, TFLOP/s: {ceilings}; {flops / 1e9:.0f} GFLOP a clip")
    return rows


def largest_batches(model: str) -> list[dict[str, object]]:
    """The most clips of a training step that fit, by doubling and then by halves."""
    rows: list[dict[str, object]] = []
    for precision, part in itertools.product(("float32", "bf16"), ("none", "backbone", "all")):
        settings = {"precision": precision, "checkpoint_activations": part}

        def fits(clips: int, s: dict[str, str] = settings) -> bool:
            return attempt(lambda: network(model, s, "cuda"), model, clips, "training step", 1) is not None

        low, high = 0, 1
        while fits(high):
            low, high = high, 2 * high
        while high - low > max(1, low // 16):
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        rows.append({"precision": precision, "recomputed": part, "largest batch": low})
    return rows


def profile(model: str, clips: int, settings: dict[str, str]) -> None:
    """The kernels that a training step spends most of its time in."""
    work = work_of(network(model, settings, "cuda"), MODELS[model][1], clips, "training step")
    seconds(work, 1)
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as found:
        work()
    print(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=20))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), default="thin")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument(
        "--clips", type=int, nargs="+", help="batch sizes; one on the CPU (default 2, R50: 1)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modes", choices=MODES, nargs="+", default=MODES)
    parser.add_argument("--compiled", action="store_true", help="on the CPU, also compiled (takes minutes)")
    parser.add_argument("--profile", action="store_true", help="on CUDA, kernels of a bf16 training step")
    parser.add_argument("--json", type=Path, help="also write the tables here")
    asked = parser.parse_args(arguments)
    tables: dict[str, list[dict[str, object]]] = {}
    for mode in asked.modes:
        print(f"\n{asked.model}, {mode}")
        if asked.device == "cuda":
            tables[mode] = on_cuda(asked.model, asked.clips or (1, 8, 32), asked.rounds, mode)
        else:
            clips = asked.clips[0] if asked.clips else (1 if asked.model == "r50" else 2)
            with threads(1):
                tables[mode] = on_cpu(asked.model, clips, asked.rounds, mode, asked.compiled)
        print_table(tables[mode])
    if asked.device == "cuda":
        tables["largest batch"] = largest_batches(asked.model)
        print_table(tables["largest batch"])
        if asked.profile:
            profile(asked.model, 8, {"precision": "bf16"})
    save_json(asked.json, sys.argv, tables)


if __name__ == "__main__":
    main(sys.argv[1:])
