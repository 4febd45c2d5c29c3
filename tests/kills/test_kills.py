"""A few of the kills of `make kill-test`."""

from __future__ import annotations

import pytest
from kill_test import kill_test

pytestmark = pytest.mark.slow


def test_killed_runs_end_like_an_unbroken_one(tmp_path, capsys):
    status = kill_test(tmp_path, kills=3)
    assert status == 0, capsys.readouterr().out[-6000:]
