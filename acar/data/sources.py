"""Where a run's labels, label map and videos are: the drawn data set or the user's files. Light to import."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from acar.config import Config, Split
from acar.data.frame_folder import BadVideoError
from acar.data.tables import read_labels
from acar.errors import UserError
from acar.paths import Paths

VIDEO_SUFFIXES = frozenset([
    ".3gp", ".asf", ".avi", ".divx", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mkv",
    ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".rm", ".rmvb", ".ts", ".vob", ".webm",
    ".wmv",
])  # fmt: skip


def labels_path(config: Config, split: Split) -> Path:
    """The AVA-format labels csv of a split."""
    if config.data.source == "synthetic":
        return Paths.of(config).data / f"{split}.csv"
    named = getattr(config.data, split).labels
    assert named is not None, split  # the config refuses `source: files` without it
    return Path(named)


def excluded_path(config: Config, split: Split) -> Path | None:
    """The csv of key frames left out of evaluation, or None if there is none."""
    if config.data.source == "synthetic":
        return Paths.of(config).data / f"{split}_excluded.csv"
    named = getattr(config.data, split).excluded
    return None if named is None else Path(named)


def label_map_path(config: Config) -> Path:
    """The label map (pbtxt)."""
    if config.data.source == "synthetic":
        return Paths.of(config).data / "label_map.pbtxt"
    assert config.data.label_map is not None
    return Path(config.data.label_map)


def videos_folder(config: Config) -> Path:
    """The folder of source videos and frame folders, named by video id."""
    if config.data.source == "synthetic":
        return Paths.of(config).data / "videos"
    assert config.data.videos is not None
    return Path(config.data.videos)


def video_ids(config: Config, split: Split) -> list[str]:
    """Sorted ids of the videos that a split's labels name (before any is skipped by ingest)."""
    return sorted(set(read_labels(labels_path(config, split))["video"]))


class SourceFolder:
    """Finds the video file or frame folder of an id in a folder, listing each directory once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def find(self, video: str) -> Path:
        """The one file `<video>.<video suffix>` or directory `<video>/`; an id may contain `/`.

        Raises:
            BadVideoError: none, or several.
            UserError: the id would lead out of the folder.
        """
        parts = PurePosixPath(video).parts
        if not parts or PurePosixPath(video).is_absolute() or ".." in parts:
            raise UserError(
                f"video `{video}`: ids name files below {self.folder}; expected no leading `/` and no `..`"
            )
        place, name = (self.folder / video).parent, parts[-1]
        found = self._list(place).get(name, [])
        if not found:
            raise BadVideoError(f"no {name}.mp4 (or other video file) and no frame folder {name}/ in {place}")
        if len(found) > 1:
            raise BadVideoError(f"several sources in {place}: {', '.join(p.name for p in found)}; keep one")
        if not found[0].exists():
            raise BadVideoError(f"{found[0]} is a link to {found[0].readlink()}, which does not exist")
        return found[0]

    def others(self, videos: Collection[str]) -> list[str]:
        """Video files and folders, relative to the folder and sorted, that are of none of these ids.

        A folder counts as a whole, unless an id names something below it.
        """
        named = set(videos)
        parents = {str(parent) for video in named for parent in PurePosixPath(video).parents}
        found: list[str] = []
        places = [self.folder]
        while places:
            for name, paths in self._list(places.pop()).items():
                for path in paths:
                    relative = path.relative_to(self.folder)
                    video = str(relative.parent / name)
                    if video in named or name.startswith("."):
                        continue
                    if path.is_dir() and video in parents:
                        places.append(path)
                    else:
                        found.append(str(relative))
        return sorted(found)

    def _list(self, place: Path) -> dict[str, list[Path]]:
        if place not in self._listed:
            by_name: dict[str, list[Path]] = {}
            for path in sorted(place.iterdir()) if place.is_dir() else []:
                if path.is_dir():
                    by_name.setdefault(path.name, []).append(path)
                elif path.suffix.lower() in VIDEO_SUFFIXES:
                    by_name.setdefault(path.stem, []).append(path)
            self._listed[place] = by_name
        return self._listed[place]
