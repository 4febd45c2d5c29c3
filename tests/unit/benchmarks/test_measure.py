"""The measuring itself: interleaved rounds, ratios by round, live memory of a fresh process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from measure import MIB, Work, interleave, peak_mib, print_table, ratio, save_json, threads

HELD_MIB, ADDED_MIB = 48, 96


def test_rounds_are_interleaved_and_the_order_turns() -> None:
    calls: list[str] = []
    variants = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    spent = interleave(variants, rounds=3, warm_up=1)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in spent.items()} == {"a": 3, "b": 3}
    assert min(spent["a"] + spent["b"]) > 0


def test_ratio_is_taken_within_each_round() -> None:
    """A machine that slows down fourfold after the first round changes no ratio."""
    found = ratio([2.0, 8.0, 8.0], [1.0, 4.0, 2.0])
    assert (found.median, found.least, found.most) == (2.0, 2.0, 4.0)
    assert str(found) == "2.00 (2.00 to 4.00)"


def mebibytes(n: int) -> torch.Tensor:
    return torch.ones(n * MIB // 4)


def prepare(held_mib: int, added_mib: int) -> Work:
    """Holds memory before the work, and touches more, at once freed, in it."""
    mebibytes(3 * added_mib)  # a peak before the work does not count
    held = mebibytes(held_mib)
    return lambda: (held, mebibytes(added_mib).sum())


def test_peak_is_what_the_work_adds() -> None:
    before = dict(os.environ)
    assert peak_mib(prepare, HELD_MIB, ADDED_MIB) == pytest.approx(ADDED_MIB, abs=12)
    assert dict(os.environ) == before


def test_threads_are_set_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_table_and_json_hold_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"n": 1, "s": 0.12345, "ratio": ratio([3.0], [2.0])},
        {"n": 2, "s": 123.45, "ratio": ratio([1.0], [1.0])},
    ]
    print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        "| n | s | ratio |", "| --- | --- | --- |",
        "| 1 | 0.123 | 1.50 (1.50 to 1.50) |", "| 2 | 123 | 1.00 (1.00 to 1.00) |",
    ]  # fmt: skip
    save_json(tmp_path / "figures.json", ["bench"], {"table": rows})
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["table"][0]["ratio"] == {"median": 1.5, "least": 1.5, "most": 1.5}
    assert found["command"] == ["bench"] and found["torch"] == torch.__version__
