"""Which key frames a detector is trained on, and that the right frames are read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from acar.detection.key_images import KeyImageReader, key_images

FPS, N_FRAMES, WIDTH, HEIGHT = 2.0, 20, 40, 30


@pytest.fixture
def videos(tmp_path) -> pd.DataFrame:
    """Two frame folders that start at second 10; every frame's brightness is its number."""
    rows = []
    for video in ("a", "b"):
        (tmp_path / video).mkdir()
        for frame in range(N_FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), frame * 10 + (video == "b"), np.uint8)
            Image.fromarray(image).save(tmp_path / video / f"{frame + 1:03d}.png")
        rows.append({"video": video, "location": str(tmp_path / video)})
    same = {"kind": "frames", "pattern": "%03d.png", "first_number": 1, "fps": FPS, "n_frames": N_FRAMES,
            "width": WIDTH, "height": HEIGHT, "start_s": 10.0, "status": "ok", "reason": ""}  # fmt: skip
    return pd.DataFrame(rows).assign(**same)


def labels(*rows: tuple[str, float, float]) -> pd.DataFrame:
    """(video, second, left edge) of boxes that reach the lower right corner."""
    table = pd.DataFrame(rows, columns=["video", "time_s", "x1"])
    return table.assign(y1=0.0, x2=1.0, y2=1.0, action_id=1, actor_id="0")


def test_distinct_boxes_and_empty_seconds_between_labels(videos):
    rows = [("a", 11, 0.1), ("a", 11, 0.1), ("a", 11, 0.5), ("a", 14, 0.2), ("c", 11, 0.1), ("b", 99, 0.1)]
    table = labels(*rows)
    images = key_images(table, videos, None, {("a", 13.0)})
    found = [(image.video, image.time_s, image.frame) for image in images]
    assert found == [("a", 11, 2), ("a", 12, 4), ("a", 14, 8)]
    assert [len(image.boxes_xyxy_norm) for image in images] == [2, 0, 1]
    assert images[0].boxes_xyxy_norm.dtype == np.float32
    assert images[1].boxes_xyxy_norm.shape == (0, 4)


def test_no_empty_seconds_where_key_frames_are_no_seconds(videos):
    table = labels(("a", 11, 0.1), ("a", 12.5, 0.1), ("a", 14, 0.2))
    images = key_images(table, videos, None, set(), unlabelled_seconds=False)
    assert [(image.time_s, len(image.boxes_xyxy_norm)) for image in images] == [(11, 1), (12.5, 1), (14, 1)]


def test_labels_between_seconds_say_nothing_about_seconds(videos):
    images = key_images(labels(("a", 11.5, 0.1), ("a", 14.5, 0.1)), videos, None, set())
    assert [image.time_s for image in images] == [11.5, 14.5]
    mixed = labels(("a", 11.5, 0.1), ("a", 13, 0.1), ("a", 15, 0.1), ("a", 18.5, 0.1))
    found = [(image.time_s, len(image.boxes_xyxy_norm)) for image in key_images(mixed, videos, None, set())]
    assert found == [(11.5, 1), (13, 1), (14, 0), (15, 1), (18.5, 1)]


def test_span_skipped_videos_and_slips(videos):
    table = labels(("a", 11, 0.1), ("a", 12.5, 0.1), ("a", 14, 0.999), ("b", 11, 0.1))
    videos.loc[1, "status"] = "skipped"
    images = key_images(table, videos, (12, 14), set())
    found = [(image.time_s, len(image.boxes_xyxy_norm)) for image in images]
    assert found == [(12, 0), (12.5, 1), (13, 0), (14, 0)]


@pytest.mark.parametrize("memory_mib", [0, 1])
def test_reader_gives_the_frame_of_each_second(videos, memory_mib):
    table = labels(("a", 11, 0), ("a", 13, 0), ("b", 12.5, 0), ("b", 19.5, 0))
    images = key_images(table, videos, None, set())
    reader = KeyImageReader(images, videos, memory_mib)
    for index, image in reversed(list(enumerate(images))):
        frame = reader.read(index)
        assert frame.shape == (HEIGHT, WIDTH, 3) and frame.dtype == np.uint8
        assert frame[0, 0, 0] == (image.time_s - 10) * FPS * 10 + (image.video == "b")
