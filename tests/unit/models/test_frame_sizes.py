"""Sizes that the network cannot read are refused before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_config

from acar.errors import UserError
from acar.models.grid import check_frame_sizes


def test_frames_and_views_of_readable_sizes_pass(tmp_path: Path) -> None:
    check_frame_sizes(tiny_config(tmp_path, predict={"short_sides_px": [24, 64, 100]}))


def test_a_frame_too_small_for_the_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"frames of 16x16 px .* raise ingest.short_side_px"):
        check_frame_sizes(tiny_config(tmp_path, ingest={"short_side_px": 16}))


def test_a_view_too_small_for_the_encoder_is_refused_by_its_own_key(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, predict={"short_sides_px": [64, 16]})
    with pytest.raises(UserError, match=r"^predict.short_sides_px: 16: frames of 16x16 px") as refusal:
        check_frame_sizes(config)
    assert "name a larger one" in str(refusal.value) and "ingest" not in str(refusal.value)
