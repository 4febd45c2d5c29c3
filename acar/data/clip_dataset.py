"""Clips as the network takes them: frames, boxes, targets and the bank rows of the window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from acar.bank.layout import flip_maps
from acar.bank.reader import BankReader
from acar.config import BackboneConfig, ClipConfig, TrainConfig, WindowConfig
from acar.data.clips import clip_indices, frame_index
from acar.data.key_frames import KeyFrame
from acar.data.video import FrameCache
from acar.models.net import BankBatch
from acar.training.plan import Slot


@dataclass(frozen=True)
class Clips:
    """Clips, of one frame size or zero-padded to one, and their actors one after another.

    Attributes:
        frames: (B, T, H, W, 3) uint8 RGB.
        boxes_xyxy_norm: (K, 4) float32 in 0..1 of the clip's own frame.
        clip_index: (K,) int64, ascending: the clip of each actor.
        targets: (K, C) float32 multi-hot (empty at inference).
        names: "video@second" of each clip, for messages.
        bank_maps: (M, d, h, w) float16, or None without a bank; zero-padded to the largest grid.
        bank_index: (M,) int64, ascending: the clip of each bank row.
        bank_actors: (M, c) float16, or None without a bank.
        sizes_px: (B, 2) int64 height and width of each clip inside padded frames, or None: all of one size.
    """

    frames: torch.Tensor
    boxes_xyxy_norm: torch.Tensor
    clip_index: torch.Tensor
    targets: torch.Tensor
    names: list[str]
    bank_maps: torch.Tensor | None = None
    bank_index: torch.Tensor | None = None
    bank_actors: torch.Tensor | None = None
    sizes_px: torch.Tensor | None = None

    def bank(self, device: torch.device) -> BankBatch | None:
        """The bank rows on `device`, float32."""
        if self.bank_maps is None or self.bank_index is None:
            return None
        actors = None if self.bank_actors is None else self.bank_actors.to(device).float()
        return BankBatch(self.bank_maps.to(device).float(), self.bank_index.to(device), actors=actors)


def network_input(
    frames: torch.Tensor, backbone: BackboneConfig, device: torch.device, sizes_px: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, T, H, W, 3) uint8 RGB to (B, 3, T, H, W) float32, normalised by the config's mean and std.

    Outside of `sizes_px` (B, 2), the clips' own heights and widths, it is 0, as in the released code.
    """
    values = frames.to(device).permute(0, 4, 1, 2, 3).float().div_(255.0)
    mean = torch.tensor(backbone.mean, device=device).view(1, 3, 1, 1, 1)
    std = torch.tensor(backbone.std, device=device).view(1, 3, 1, 1, 1)
    values = ((values - mean) / std).contiguous()
    for clip, (height, width) in enumerate(sizes_px.tolist() if sizes_px is not None else ()):
        values[clip, ..., height:, :], values[clip, ..., width:] = 0.0, 0.0
    return values


def jitter_boxes(boxes_xyxy_norm: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Move each edge by up to `share` of the box's side, inside the frame; (N, 4) float32 in and out.

    With `share` below one half an edge never passes its opposite.
    """
    if share == 0 or len(boxes_xyxy_norm) == 0:
        return boxes_xyxy_norm
    sides = boxes_xyxy_norm[:, 2:] - boxes_xyxy_norm[:, :2]
    moves = rng.uniform(-share, share, boxes_xyxy_norm.shape) * np.concatenate([sides, sides], axis=1)
    return np.clip(boxes_xyxy_norm + moves, 0, 1).astype(np.float32)


def flip_boxes(boxes_xyxy_norm: np.ndarray) -> np.ndarray:
    """Mirror boxes left to right; (N, 4) in 0..1 of the frame."""
    x1, y1, x2, y2 = boxes_xyxy_norm.T
    return np.stack([1 - x2, y1, 1 - x1, y2], axis=1)


class TrainingClips(torch.utils.data.Dataset[Any]):
    """Indexed by `Slot`: one augmented clip. Picklable: decoders and the bank open where they are used."""

    def __init__(
        self,
        key_frames: Sequence[KeyFrame],
        videos: pd.DataFrame,
        clip: ClipConfig,
        train: TrainConfig,
        seed: int,
        bank: BankReader | None = None,
        window: WindowConfig | None = None,
    ) -> None:
        self.key_frames, self.clip, self.train, self.seed = key_frames, clip, train, seed
        self.bank, self.window = bank, window
        self.records = {str(row["video"]): row for _, row in videos.iterrows()}
        self.frames = FrameCache(videos, train.cache_mib)

    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) in pixels of each key frame's video."""
        rows = (self.records[frame.video] for frame in self.key_frames)
        return [(int(row["height"]), int(row["width"])) for row in rows]

    def __len__(self) -> int:
        return len(self.key_frames)

    def __getitem__(self, slot: Slot) -> dict[str, Any]:
        frame = self.key_frames[slot.item]
        rng = np.random.default_rng([self.seed, slot.position])
        flip = bool(rng.random() < self.train.flip_probability)
        pixels = self.frames.read(
            frame.video, frame_indices(self.records[frame.video], frame.time_s, self.clip)
        )
        boxes = jitter_boxes(frame.boxes_xyxy_norm, self.train.box_jitter, rng)
        if flip:
            pixels, boxes = pixels[:, :, ::-1], flip_boxes(boxes)
        maps = actors = None
        if self.bank is not None and self.window is not None:
            rows = self.bank.window(
                frame.video, frame.time_s, self.window.radius_s, self.window.exclude_radius_s
            )
            maps, actors = flip_maps(rows.maps) if flip else rows.maps, rows.actors
        name = f"{frame.video}@{frame.time_s:g}"
        return {"frames": pixels, "boxes": boxes, "targets": frame.targets, "name": name, "maps": maps,
                "actors": actors}  # fmt: skip


def frame_indices(record: Any, time_s: float, clip: ClipConfig) -> np.ndarray:
    """Frames of the clip around second `time_s` of an ingested video, (T,) int64."""
    center = frame_index(record, time_s)
    return clip_indices(center, int(record["n_frames"]), clip.frames, clip.stride)


def collate(items: Sequence[dict[str, Any]]) -> Clips:
    """Put clips together; actors and bank rows one clip after another.

    Clips of several frame sizes, which `BatchPlan` gives only where asked to, are zero-padded at the right and the
    bottom, and so are their bank's maps.
    """
    counts = [len(item["boxes"]) for item in items]
    maps = [item["maps"] for item in items]
    sizes = [item["frames"].shape[1:3] for item in items]
    has_bank = maps[0] is not None
    lengths = [len(m) for m in maps] if has_bank else []
    return Clips(
        frames=torch.from_numpy(_stack_padded([item["frames"] for item in items], (1, 2))),
        boxes_xyxy_norm=torch.from_numpy(
            np.concatenate([item["boxes"] for item in items]).astype(np.float32)
        ),
        clip_index=torch.repeat_interleave(torch.arange(len(items)), torch.tensor(counts)),
        targets=torch.from_numpy(np.concatenate([item["targets"] for item in items])).float(),
        names=[item["name"] for item in items],
        bank_maps=torch.from_numpy(np.concatenate(_padded(maps, (2, 3)))) if has_bank else None,
        bank_index=torch.repeat_interleave(torch.arange(len(items)), torch.tensor(lengths))
        if has_bank
        else None,
        bank_actors=torch.from_numpy(np.concatenate([item["actors"] for item in items]))
        if has_bank
        else None,
        sizes_px=None if len(set(sizes)) == 1 else torch.tensor(sizes),
    )


def _stack_padded(arrays: Sequence[np.ndarray], axes: tuple[int, ...]) -> np.ndarray:
    return np.stack(_padded(arrays, axes))


def _padded(arrays: Sequence[np.ndarray], axes: tuple[int, ...]) -> list[np.ndarray]:
    """The arrays, zero-padded behind to the greatest length of each of `axes`."""
    longest = {axis: max(array.shape[axis] for array in arrays) for axis in axes}
    return [
        np.pad(array, [(0, longest.get(axis, n) - n) for axis, n in enumerate(array.shape)])
        if any(array.shape[axis] != n for axis, n in longest.items())
        else array
        for array in arrays
    ]
