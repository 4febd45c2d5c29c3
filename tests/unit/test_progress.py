"""Plain progress lines: how often, and where a resumed job counts on."""

from __future__ import annotations

import pytest

from acar.errors import UserError
from acar.progress import progress

EVERY = "ACAR_PROGRESS_EVERY_S"


def lines(capsys) -> list[str]:
    return [line.partition(" videos,")[0] for line in capsys.readouterr().err.splitlines()]


def test_the_last_line_comes_always_and_others_every_few_seconds(capsys, monkeypatch):
    monkeypatch.delenv(EVERY, raising=False)
    assert list(progress("abc", total=3, desc="detect", unit="videos")) == ["a", "b", "c"]
    assert lines(capsys) == ["detect: 3/3"]


def test_zero_seconds_print_every_update_from_the_first_on(capsys, monkeypatch):
    monkeypatch.setenv(EVERY, "0")
    bar = progress(total=3, desc="detect", unit="videos")
    bar.update()
    assert lines(capsys) == ["detect: 1/3"]
    bar.update(note="loss 1.5")
    assert capsys.readouterr().err.endswith("left, loss 1.5\n")
    bar.close()


def test_many_seconds_keep_quiet(capsys, monkeypatch):
    monkeypatch.setenv(EVERY, "3600")
    progress(total=3, desc="detect", unit="videos").update(2)
    assert lines(capsys) == []


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_what_is_no_number_of_seconds_is_refused(monkeypatch, value):
    monkeypatch.setenv(EVERY, value)
    with pytest.raises(UserError, match=rf"{EVERY}={value}: expected seconds"):
        progress(total=1, desc="detect")


def test_a_resumed_job_says_where_and_counts_on(capsys, monkeypatch):
    monkeypatch.setenv(EVERY, "0")
    bar = progress(["d"], total=4, desc="ingest val 0", unit="videos")
    bar.resume_at(3)
    list(bar)
    assert lines(capsys) == ["ingest val 0: going on after 3 of 4 videos", "ingest val 0: 4/4"]
    progress(total=320, desc="train stage1").resume_at(200, "at iteration 200 of 320")
    assert lines(capsys) == ["train stage1: going on at iteration 200 of 320"]


def test_nothing_is_said_where_nothing_was_done(capsys):
    bar = progress(total=4, desc="ingest val 0", unit="videos")
    bar.resume_at(0)
    assert lines(capsys) == [] and bar.done == 0


def test_on_a_terminal_the_bar_starts_at_the_kept_part(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bar = progress(total=4, desc="ingest val 0", unit="videos")
    bar.resume_at(3)
    assert bar.bar.n == 3
    bar.update()
    assert bar.bar.n == 4
    bar.close()
