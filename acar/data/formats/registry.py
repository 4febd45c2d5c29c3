"""Which annotation formats there are, what each holds, and which one a file is of. Never imports torch."""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from acar.data.findings import Findings
from acar.data.formats.acar_net import read_acar_net, write_acar_net
from acar.data.formats.annotations import Annotations
from acar.data.formats.coco import read_coco, write_coco
from acar.data.formats.csv_tables import csv_format, read_ava, read_fair, write_ava, write_fair
from acar.data.formats.frame_names import FrameNames
from acar.data.formats.names import DOES, LABEL_MAP
from acar.data.formats.proposals import read_proposals, write_proposals
from acar.data.input_files import check_input, is_pickle
from acar.data.label_map import Dialect, is_plain_list
from acar.errors import UserError

DIALECTS: dict[str, Dialect] = {
    f"{LABEL_MAP}-item": "item",
    f"{LABEL_MAP}-label": "label",
    f"{LABEL_MAP}-list": "list",
}
_BLOCK = re.compile(r"\s*(#[^\n]*\s*)*\w+\s*:?\s*\{")
_LIST_LINE = re.compile(r"\s*(#[^\n]*\s*)*[0-9]+\s*:")
_ROW = re.compile(r"[^\n,]*(,\s*[-+.]?[0-9][-+.0-9eE]*\s*){5}")  # of boxes, whose video's id begins `1:`
SNIFF_BYTES, SNIFF_OPCODES = 1 << 16, 64


@dataclass(frozen=True)
class Settings:
    """What some formats need beside the rows.

    Attributes:
        frames: how extracted images are called; None: not said.
        size_px: width and height of every frame; (1, 1): fractions.
    """

    frames: FrameNames | None = None
    size_px: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Format:
    """An annotation format.

    Attributes:
        does: what it is, for people.
        holds: of `action`, `actor`, `score`, `classes`, and `nobody` (key frames without persons), what it has room
            for.
        read: a file into the table, collecting problems where asked.
        write: the table into a file.
    """

    does: str
    holds: frozenset[str]
    read: Callable[[Path, Findings | None, Settings], Annotations]
    write: Callable[[Annotations, Path, Settings], None]


def _plain(
    does: str,
    holds: set[str],
    read: Callable[[Path, Findings | None], Annotations],
    write: Callable[[Annotations, Path], None],
) -> Format:
    """A format that needs no settings."""
    return Format(
        does,
        frozenset(holds),
        lambda path, found, _: read(path, found),
        lambda annotations, path, _: write(annotations, path),
    )


def _frames_of(annotations: Annotations, settings: Settings) -> FrameNames:
    """As set, else 30 images a second from second 900 on for key frames behind it (AVA), or from 0."""
    if settings.frames is not None:
        return settings.frames
    times = [time for table in (annotations.rows, annotations.nobody) for time in table["time_s"].unique()]
    return FrameNames(first_s=900.0 if times and min(times) >= 900 else 0.0)


FORMATS: dict[str, Format] = {
    "ava": _plain(DOES["ava"], {"action", "actor", "nobody"}, read_ava, write_ava),
    "fair": _plain(DOES["fair"], {"action", "score"}, read_fair, write_fair),
    "mmaction2": _plain(DOES["mmaction2"], {"score"}, read_proposals, write_proposals),
    "acar-net": Format(
        DOES["acar-net"],
        frozenset({"action", "actor", "classes"}),
        lambda path, found, _: read_acar_net(path, found),
        lambda annotations, path, settings: write_acar_net(
            annotations, path, _frames_of(annotations, settings)
        ),
    ),
    "coco": Format(
        DOES["coco"],
        frozenset({"score", "nobody"}),
        lambda path, found, settings: read_coco(path, found, settings.frames),
        lambda annotations, path, settings: write_coco(
            annotations, path, _frames_of(annotations, settings), settings.size_px
        ),
    ),
}


def format_of(path: str | Path) -> str:
    """The format of a file by its content: a key of `FORMATS`, `label-map` or `exclusions`.

    Raises:
        UserError: no such file, or none of them.
    """
    path = Path(path)
    check_input(path)
    with open(path, "rb") as stream:
        head = stream.read(SNIFF_BYTES)
    if is_pickle(head):
        return _pickle_format(path, head)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return "coco"
    text = head.decode("utf-8-sig", "replace")
    if _BLOCK.match(text) or (_LIST_LINE.match(text) and is_plain_list(text) and not _ROW.match(text)):
        return LABEL_MAP
    return csv_format(path)


def read_annotations(
    path: str | Path,
    *,
    named: str | None = None,
    settings: Settings | None = None,
    found: Findings | None = None,
) -> Annotations:
    """Read an annotation file of any format.

    Args:
        path: the file.
        named: its format; None: told by content.
        settings: what some formats need.
        found: collects malformed rows and entries, which are left out; None: the first one is raised.

    Raises:
        UserError: no such file, none of the formats, or malformed.
    """
    path, name = Path(path), named or format_of(path)
    if name not in FORMATS:
        raise UserError(
            f"{path}: holds {name.replace('-', ' ')}, expected boxes of persons: {', '.join(FORMATS)}"
        )
    return FORMATS[name].read(path, found, settings or Settings())


def _pickle_format(path: Path, head: bytes) -> str:
    """By the first opcodes, none of which is run: a list of records, or a dictionary by video and second."""
    is_dictionary = False
    with suppress(ValueError, struct.error, OverflowError):  # cut off by us or damaged: the reader says which
        for count, (opcode, argument, _) in enumerate(pickletools.genops(head)):
            if opcode.name in ("EMPTY_LIST", "LIST") and not is_dictionary:
                return "acar-net"
            named = str(argument or "")[:80].split(" ")[-1]  # older protocols: `collections defaultdict`
            if opcode.name in ("EMPTY_DICT", "DICT") or named in ("OrderedDict", "defaultdict"):
                is_dictionary = True
            elif is_dictionary and isinstance(argument, str) and "," in argument:
                return "mmaction2"
            if (opcode.name == "STOP" and is_dictionary) or count > SNIFF_OPCODES:
                break
    if is_dictionary:
        return "mmaction2"
    raise UserError(
        f"{path}: a pickle of neither proposals ('video,0902' -> array) nor ACAR-Net's (records, classes); "
        "name its format with --from if it is one of them"
    )
