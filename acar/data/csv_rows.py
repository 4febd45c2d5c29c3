"""The cells of csv files, line by line, and the lines to blame. Never imports torch."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from acar.data.input_files import check_input, check_text
from acar.errors import UserError


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and cells of every line that holds any text.

    Raises:
        UserError: not UTF-8, or not csv, or a quoted cell goes on in the next line; names the line.
    """
    before = 0  # lines that are behind us
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            for cells in reader:
                if reader.line_num > before + 1:
                    raise csv.Error(
                        f"a quote that is opened here is not closed before line {reader.line_num}; close it"
                    )
                before = reader.line_num
                if any(cell.strip() for cell in cells):
                    yield before, cells
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {_first_line_not_utf8(path)}: not UTF-8 text ({error.reason}); "
                        "save the file as UTF-8 csv") from None  # fmt: skip
    except csv.Error as error:
        raise UserError(f"{path}, line {before + 1}: not csv: {error}") from None


def _first_line_not_utf8(path: Path) -> int:
    with open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    raise AssertionError(f"{path} changed while it was read")


def first_row_width(path: Path) -> int:
    """Number of cells in the first line with any text; 0 for an empty file.

    Raises:
        UserError: no such file.
    """
    check_input(path)
    check_text(path)
    return next((len(cells) for _, cells in csv_rows(path)), 0)
