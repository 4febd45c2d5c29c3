"""`acar import-weights`: other projects' weights, and ours, to safetensors that the stages take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from acar.config import Config
from acar.data.label_map import read_label_map
from acar.data.sources import label_map_path
from acar.errors import UserError
from acar.files import sha256_of, write_bytes_atomic
from acar.weights.containers import Numbers, opened
from acar.weights.headers import PARTIAL
from acar.weights.names import is_classifier, is_i3d, is_whole
from acar.weights.recognise import Found, check_size, recognise
from acar.weights.structure import Shape, in_words, own_shapes, shapes_of

COUNTER = ".num_batches_tracked"
NORM = ".running_var"
MOST_LISTED = 6


@dataclass
class Fit:
    """How the weights of a file fit a network.

    Attributes:
        matched: our names.
        counters: batch norm's counters that the file lacks; they are 0 then, and nothing reads them.
        left: weights of the file that the network has no place for, with their shapes.
        dropped: the classifier's, left out as asked.
        missing: our names that the file has nothing for.
        misshapen: our names with the file's shape and the network's.
    """

    matched: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)
    left: dict[str, Shape] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """What an import did, for whoever asks by program; `str` of it is for people."""

    source: Path
    target: Path
    layout: str
    form: str
    fit: Fit
    n_expected: int
    classifier: dict[str, Shape]
    beside: list[str]
    network: str

    def __str__(self) -> str:
        fit, size = self.fit, self.source.stat().st_size
        lines = [
            f"{self.source}: {self.layout}, {self.form}, {size / 2**20:.1f} MiB",
            f"  matched  {len(fit.matched)} of {self.n_expected}"
            + (f", and {len(fit.counters)} counters of batch norm set to 0" if fit.counters else ""),
            _listed("dropped", fit.dropped),
            _listed(
                "left", [f"{name} {list(shape)}" for name, shape in (self.classifier | fit.left).items()]
            ),
            _listed("beside", self.beside),
            _listed("missing", fit.missing),
            f"  network  {self.network}" if self.network else "",
            f"{self.target}: {self.target.stat().st_size / 2**20:.1f} MiB, sha256 {sha256_of(self.target)}",
        ]
        return "\n".join(line for line in lines if line)


def import_weights(
    source: str | Path,
    target: str | Path,
    config: Config | None = None,
    *,
    drop_classifier: bool = False,
    partial: bool = False,
) -> Imported:
    """Read weights of any known layout and write them as safetensors under our names.

    Args:
        source: the file; recognised by its content.
        target: safetensors to write, atomically.
        config: whose network they must fit; None: the network that they are of, by their own shapes.
        drop_classifier: leave the last layer out, whose size is the label map's.
        partial: write them although some of the network's are missing.

    Raises:
        UserError: not readable, a pickle that would run code, of another shape, or incomplete.
    """
    source, target = Path(source), Path(target)
    if target.is_dir():
        raise UserError(f"{target}: a folder; expected the name of a safetensors file to write")
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"{target}: would overwrite the file that is read; give another name")
    with opened(source) as content:
        found = recognise(content, source)
        check_size(found, source)
        shapes = {name: _full_shape(name, tuple(n.shape)) for name, n in found.weights.items()}
        expected = _expected(found, shapes, config, source)
        fit = fitted(shapes, expected, drop_classifier=drop_classifier)
        _check(fit, found, source, config, partial=partial)
        state = _state(found.weights, expected, fit)
        form = content.form
    network = "model.backbone: " + in_words(shapes)
    # One entry: safetensors writes several in any order, and the same import must give the same bytes.
    origin = f"{found.layout}, {source.name}"
    metadata = {PARTIAL: f"{len(fit.missing)} missing; {origin}"} if fit.missing else {"acar.source": origin}
    write_bytes_atomic(target, save(state, metadata))
    return Imported(
        source, target, found.layout, form, fit, len(expected),
        {name: tuple(numbers.shape) for name, numbers in found.classifier.items()},
        found.beside, network,
    )  # fmt: skip


def fitted(shapes: Mapping[str, Shape], expected: Mapping[str, Shape], *, drop_classifier: bool) -> Fit:
    """Compare the file's weights (our names) with the network's."""
    fit = Fit()
    for name, shape in shapes.items():
        if drop_classifier and is_classifier(name):
            fit.dropped.append(name)
        elif name not in expected:
            fit.left[name] = shape
        elif shape == expected[name]:
            fit.matched.append(name)
        else:
            fit.misshapen[name] = (shape, expected[name])
    for name in expected:
        if name in shapes or (drop_classifier and is_classifier(name)):
            continue
        norm = name.removesuffix(COUNTER) + NORM
        (fit.counters if name.endswith(COUNTER) and norm in shapes else fit.missing).append(name)
    return fit


def _full_shape(name: str, shape: Shape) -> Shape:
    """Caffe2 leaves trailing sizes of 1 out: the backbone's convolutions have five sizes."""
    convolution = re.fullmatch(r"(backbone\.)?(slow|fast|Tconv)\w*\..*weight", name) and len(shape) > 1
    return shape + (1,) * (5 - len(shape)) if convolution else shape


def _expected(
    found: Found, shapes: dict[str, Shape], config: Config | None, source: Path
) -> Mapping[str, Shape]:
    kind = "i3d" if is_i3d(shapes) else "slowfast"
    if config is not None and config.model.backbone.kind != kind:
        raise UserError(
            f"{source}: weights of {kind}, the config's model.backbone.kind is {config.model.backbone.kind}; import "
            "them without --config, or set it"
        )
    try:
        if config is None:
            return own_shapes(shapes)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    whole = is_whole(shapes)
    return shapes_of(config.model, _n_classes(config, shapes), whole=whole)


def _n_classes(config: Config, shapes: Mapping[str, Shape]) -> int:
    """Of the config's label map; where that is not there yet, as many as the weights have."""
    own = [shapes[name][0] for name in ("head.fc2.weight", "head.fc.weight") if shapes.get(name)]
    path = label_map_path(config)
    if path.is_file():
        return len(read_label_map(path))
    return own[0] if own else 1


def _check(fit: Fit, found: Found, source: Path, config: Config | None, *, partial: bool) -> None:
    """Refuse what does not fit.

    Raises:
        UserError: shapes differ, weights are missing, or none is matched.
    """
    network = "the config's network" if config is not None else "the network that they seem to be of"
    problems = []
    if fit.misshapen:
        listed = [f"{found.foreign[n]} {list(a)}, expected {list(b)}" for n, (a, b) in fit.misshapen.items()]
        problems.append(f"{len(listed)} of another shape: {_few(listed)}")
    if fit.missing and not (partial and fit.matched):
        problems.append(f"{len(fit.missing)} missing: {_few(fit.missing)}")
    if not problems:
        return
    if fit.left:
        problems.append(f"{len(fit.left)} left over: {_few([found.foreign[name] for name in fit.left])}")
    hint = ""
    if fit.misshapen and all(map(is_classifier, fit.misshapen)):
        hint = "\n  Only the classifier differs: --drop-classifier leaves it out, for another set of classes"
    elif not fit.misshapen:
        hint = "\n  --partial writes what is there; the rest of the backbone then starts from random weights"
    raise UserError(
        f"{source}: {found.layout}: does not fit {network}\n  " + "\n  ".join(problems) + hint
        + ("" if fit.misshapen.keys() == {"head.fc2.weight"}
           else f"\n  The file's: model.backbone: {_words(found)}")
    )  # fmt: skip


def _words(found: Found) -> str:
    try:
        return in_words({name: _full_shape(name, tuple(n.shape)) for name, n in found.weights.items()})
    except (UserError, ValueError) as error:  # ValueError: sizes that no config allows
        return str(error)


def _state(weights: Mapping[str, Numbers], expected: Mapping[str, Shape], fit: Fit) -> dict[str, Tensor]:
    """The network's weights in its order: floats as float32, counters as int64."""
    matched, counters = set(fit.matched), set(fit.counters)
    state = {}
    for name, shape in expected.items():
        if name in matched:
            kind = torch.int64 if name.endswith(COUNTER) else torch.float32
            # A copy: two names may share their numbers, which safetensors do not.
            state[name] = weights[name].tensor().to(kind, copy=True).reshape(shape).contiguous()
        elif name in counters:
            state[name] = torch.zeros((), dtype=torch.int64)
    return state


def _few(items: Iterable[str]) -> str:
    listed = list(items)
    return ", ".join(listed[:MOST_LISTED]) + (", ..." if len(listed) > MOST_LISTED else "")


def _listed(what: str, items: Iterable[str]) -> str:
    listed = list(items)
    if not listed:
        return f"  {what:<8} 0" if what in ("left", "missing") else ""
    # Momenta and the like number in hundreds and differ in nothing that matters.
    shown = [item for item in listed if not re.fullmatch(r".*_momentum", item)]
    hidden = len(listed) - len(shown)
    return f"  {what:<8} {len(listed)}: {_few(shown)}" + (f" and {hidden} momenta" if hidden else "")
