"""Views keep actors, boxes and bank maps together: whatever the size and the direction, they show the same place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acar.config import PredictConfig
from acar.data.decode import fitted_size
from acar.inference.views import View, mean_logits, views_of

sides = st.integers(8, 40).map(lambda half: 2 * half)
views = st.builds(View, sides, sides, st.booleans())


@given(
    sides,
    sides,
    st.lists(st.integers(16, 400), min_size=1, max_size=4, unique_by=lambda side: round(side / 2)),
    st.booleans(),
)
def test_each_short_side_is_a_view_and_with_flip_its_mirror_image_too(height, width, short_sides, flip):
    wanted = PredictConfig(short_sides_px=short_sides, flip=flip)
    found = views_of(wanted, height, width)
    assert len(found) == len(short_sides) * (1 + flip) == wanted.n_views
    assert sum(view.flip for view in found) == len(short_sides) * flip
    for side, view in zip(np.repeat(short_sides, 1 + flip), found, strict=True):
        assert (view.width_px, view.height_px) == fitted_size(width, height, int(side))


@given(sides, sides)
def test_without_short_sides_the_clip_is_taken_as_it_is(height, width):
    assert views_of(PredictConfig(), height, width) == [View(height, width)]
    own = views_of(PredictConfig(short_sides_px=[min(height, width)]), height, width)
    assert own == [View(height, width)]  # its own short side is no other view
    frames = torch.rand(1, 3, 2, height, width)
    assert own[0].frames(frames) is frames


@given(views, sides, sides, st.data())
@settings(max_examples=60, deadline=None)
def test_a_box_stays_around_what_it_was_drawn_around(view, height, width, data):
    """A white rectangle on black: in every view it fills its box, and nothing else is white."""
    (x1, x2), (y1, y2) = (_edges(data, side) for side in (width, height))
    frames = torch.zeros(1, 3, 2, height, width)
    frames[..., y1:y2, x1:x2] = 1.0
    boxes = torch.tensor([[x1 / width, y1 / height, x2 / width, y2 / height]])
    seen, box = view.frames(frames), view.boxes(boxes)[0]
    assert seen.shape == (1, 3, 2, view.height_px, view.width_px)
    shape = torch.tensor([view.width_px, view.height_px])
    centre, extent = _moments(seen[0, 0, 0])
    expected = (box[:2] + box[2:]) / 2 * shape
    np.testing.assert_allclose(centre, expected, atol=0.75)
    np.testing.assert_allclose(extent, (box[2:] - box[:2]) * shape, rtol=0.1, atol=1.0)


def _edges(data: st.DataObject, side: int) -> tuple[int, int]:
    """Of a rectangle of 8 pixels at least."""
    first = data.draw(st.integers(0, side - 8))
    return first, data.draw(st.integers(first + 8, side))


def _moments(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Centre (x, y) of an image's brightness, and width and height of it if it is a rectangle's."""
    rows, columns, total = image.sum(1), image.sum(0), image.sum()
    x = (columns * (torch.arange(len(columns)) + 0.5)).sum() / total
    y = (rows * (torch.arange(len(rows)) + 0.5)).sum() / total
    return np.array([x, y]), np.array([total / columns.max(), total / rows.max()])


@given(views, st.integers(0, 3), st.integers(3, 9), st.integers(3, 9), st.integers(3, 9), st.integers(3, 9))
@settings(max_examples=60, deadline=None)
def test_bank_maps_come_on_the_views_grid(view, rows, h, w, to_h, to_w):
    """A plane a + bx + cy over the frame stays that plane, mirrored with the view, away from the border."""
    y, x = (torch.arange(n, dtype=torch.float32) for n in (h, w))
    plane = 1 + 2 * (x + 0.5)[None, :] / w - 3 * (y + 0.5)[:, None] / h
    maps = plane.expand(rows, 2, h, w)
    seen = view.maps(maps, (to_h, to_w))
    assert seen.shape == (rows, 2, to_h, to_w)
    to_y, to_x = (torch.arange(to_h) + 0.5) / to_h, (torch.arange(to_w) + 0.5) / to_w
    # Beyond the outermost cells' middles the map goes on as its border is.
    to_y = to_y.clamp(0.5 / h, 1 - 0.5 / h)
    to_x = (1 - to_x if view.flip else to_x).clamp(0.5 / w, 1 - 0.5 / w)
    expected = 1 + 2 * to_x[None, :] - 3 * to_y[:, None]
    torch.testing.assert_close(seen, expected.expand_as(seen), atol=1e-5, rtol=0)


@given(views, st.integers(1, 3), st.integers(1, 4))
def test_mirroring_twice_changes_nothing(view, rows, n):
    flipped = View(view.height_px, view.width_px, True)
    boxes, maps = torch.rand(n, 4, dtype=torch.float64), torch.rand(rows, 2, 5, 6)
    torch.testing.assert_close(flipped.boxes(flipped.boxes(boxes)), boxes)
    assert torch.equal(flipped.maps(flipped.maps(maps, (5, 6)), (5, 6)), maps)
    frames = torch.rand(1, 3, 2, view.height_px, view.width_px)
    assert torch.equal(flipped.frames(flipped.frames(frames)), frames)


def test_the_mean_is_over_logits():
    found = {View(8, 8): torch.tensor([[1.0, -4.0]]), View(8, 8, True): torch.tensor([[3.0, 8.0]])}
    assert mean_logits(list(found), found.__getitem__).tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ([], "at least 1"),
        ([256, 256], "twice"),
        ([96, 95], "twice"),  # ingest's rounding makes both 96
        ([8], "expected 16 to 4320"),
        ([30000], "expected 16 to 4320"),
        ([True], "expected a number, not true"),
    ],
)
def test_short_sides_that_make_no_sense_are_refused(sides, said):
    with pytest.raises(ValueError, match=said):
        PredictConfig(short_sides_px=sides)
