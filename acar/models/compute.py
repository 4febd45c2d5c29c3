"""How the network is computed (config section `compute`): precision, memory format, compilation, recomputation.

None of it changes parameters, their names or their gradients' meaning: modules are changed in place, and what is
compiled or recomputed are methods of theirs, so state dicts, optimizers and summed gradients see the same network.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from acar.config import ComputeConfig
from acar.errors import UserError
from acar.models.head import ActorContextHead
from acar.models.hr2o import HR2O, Memory
from acar.models.i3d import Inception
from acar.models.net import ActionNet
from acar.models.non_local import NonLocal
from acar.models.precision import set_cuda_float32
from acar.models.relations.actor_attention import ActorAttention
from acar.models.relations.aia import ContextAttention
from acar.models.relations.relation_network import RelationNetwork
from acar.models.slowfast import Bottleneck, FactoredConv3d

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by a weight's dimensions
# The methods that one pass runs in turn and that hold most of its memory: each is compiled, or recomputed, by itself.
UNITS: dict[type[nn.Module], str] = {
    Bottleneck: "forward",
    NonLocal: "forward",
    Inception: "forward",
    ActorContextHead: "encode",
    HR2O: "related",
    ActorAttention: "forward",
    ContextAttention: "forward",
    RelationNetwork: "forward",
}
# Pairs of actors are counted at run time (`nonzero`), which a graph of fixed operations cannot hold.
NOT_COMPILED = (RelationNetwork,)
# Specialisations of one method: batches of none, one and several of actors, clips and rows, training or not.
MOST_GRAPHS = 64
BACKEND = "inductor"
CXX = ("g++", "clang++", "c++")


def prepared(net: ActionNet, settings: ComputeConfig, device: torch.device) -> ActionNet:
    """Move a network to `device` and let it compute as the settings say; changes it in place and returns it.

    Call it once, behind the loading of initial weights and before the optimizer is made.

    Raises:
        UserError: compilation is asked for and this machine has no compiler for the device.
    """
    check_compiler(settings, device)
    set_cuda_float32(settings.precision == "tf32")
    net.to(device)
    net.autocast_dtype = torch.bfloat16 if settings.precision == "bf16" else None
    for part, module in (("backbone", net.backbone), ("head", net.head)):
        set_memory_format(module, settings.memory_format)
        apply_to_part(module, part, settings)
    return net


def apply_to_part(module: nn.Module, part: str, settings: ComputeConfig) -> None:
    """Compile and recompute a `backbone` or a `head`, if the settings ask for that part."""
    recomputes = settings.checkpoint_activations in (part, "all")
    units = list(_units(module))
    if settings.compile in (part, "all"):
        # Recomputation runs a unit twice, and differently (`_keeping_statistics`): it goes around what is compiled.
        whole = part == "backbone" and not recomputes
        for owner, name in [(module, "forward")] if whole else units:
            if not isinstance(owner, NOT_COMPILED):
                setattr(owner, name, _compiled(getattr(owner, name), dynamic=None if whole else True))
    if recomputes:
        for owner, name in units:
            setattr(owner, name, _recomputed(owner, getattr(owner, name)))


def set_memory_format(module: nn.Module, memory_format: str) -> None:
    """Order the weights of convolutions, and with them what they compute, `channels_last` or `contiguous`."""
    last = memory_format == "channels_last"
    for child in module.modules():
        if isinstance(child, FactoredConv3d):
            child.factored = last
    for parameter in module.parameters():
        if parameter.dim() in CHANNELS_LAST:
            order = CHANNELS_LAST[parameter.dim()] if last else torch.contiguous_format
            parameter.data = parameter.data.contiguous(memory_format=order)


def _units(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Owner and name of each unit in `module`, itself included."""
    for child in module.modules():
        if type(child) in UNITS:
            yield child, UNITS[type(child)]


def _compiled(method: Callable[..., Any], dynamic: bool | None) -> Callable[..., Any]:
    """`dynamic` True: for any number of actors from the first call; None: sizes that vary, once they have."""
    # A method's graphs are its own: other modules' of the same class do not count against the limit.
    apart: dict[str, Any] = {"recompile_limit": MOST_GRAPHS, "isolate_recompiles": True}
    compiled = torch.compile(method, dynamic=dynamic, backend=BACKEND, **apart)

    @functools.wraps(method)
    def run(*arguments: Any) -> Any:
        # Without an actor or a row there is nothing to gain, and gradients have strides that it does not expect.
        return (method if any(map(_is_empty, arguments)) else compiled)(*arguments)

    return run


def _is_empty(argument: Any) -> bool:
    rows = argument
    if isinstance(argument, Memory):
        # `company` counts actors, which a graph of fixed operations cannot; asked for here, it is kept.
        rows = argument.rows if argument.of_bank else argument.queries.company[0]
    return isinstance(rows, Tensor) and rows.numel() == 0


def _recomputed(owner: nn.Module, method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`method` of `owner`, keeping its inputs only and running again in the backward pass; outside training as is."""
    draws = any(isinstance(child, nn.Dropout) and child.p > 0 for child in owner.modules())

    @functools.wraps(method)
    def run(*arguments: Any, **keywords: Any) -> Tensor:
        if not torch.is_grad_enabled() or not owner.training:
            return method(*arguments, **keywords)
        return checkpoint(
            method, *arguments, use_reentrant=False, preserve_rng_state=draws,
            context_fn=lambda: (contextlib.nullcontext(), _keeping_statistics(owner)), **keywords,
        )  # fmt: skip

    return run


@contextlib.contextmanager
def _keeping_statistics(owner: nn.Module) -> Iterator[None]:
    """Batch norm as in training, without a second step of its running averages and counter."""
    norms = [child for child in owner.modules() if isinstance(child, _BatchNorm) and child.training]
    # Copies take the step: averages that are absent or not updated would change what autograd saves.
    before = [dict(norm.named_buffers()) for norm in norms]
    for norm, buffers in zip(norms, before, strict=True):
        norm._buffers.update({name: value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)


def check_compiler(settings: ComputeConfig, device: torch.device) -> None:
    """Refuse `compute.compile` where nothing can compile.

    Raises:
        UserError: no C++ compiler for the CPU, or no Triton for CUDA.
    """
    if settings.compile == "none":
        return
    remedy = "or set compute.compile: none"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError(
            f"compute.compile: {settings.compile}: CUDA needs the package triton; install it, {remedy}"
        )
    names = (os.environ["CXX"],) if os.environ.get("CXX") else CXX
    if device.type == "cpu" and not any(shutil.which(name) for name in names):
        raise UserError(
            f"compute.compile: {settings.compile}: no C++ compiler was found (looked for {', '.join(names)}); "
            f"install g++, name one in CXX, {remedy}"
        )
