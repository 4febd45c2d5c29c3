"""Tables of the finished videos of a job in progress, so that a killed job goes on after its last whole video.

An unbroken run writes and reads its tables here as well, so that what is put together is the same, byte for
byte, wherever a run was interrupted. Never imports torch.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from acar.files import atomic_path, write_json_atomic
from acar.provenance import digest_of

FORMAT = 1  # raise it when equal sources come to give other tables: kept ones are then dropped


class VideoPieces:
    """One small file a finished video below `work`, which lies outside everything a rule declares.

    Opening the `work` of an interrupted job keeps its finished videos. A `work` of another source is emptied,
    and so is a file that cannot be read back; both are told on stderr. One process at a time.

    Args:
        work: folder of the work in progress.
        source: whatever the tables follow from, by name, JSON-able (digests); the names of those that differ
            are printed.
        videos: ids of the job's videos, in the order of the table.
    """

    def __init__(self, work: Path, source: Mapping[str, Any], videos: Sequence[str]) -> None:
        self.work = Path(work)
        self._number = {video: number for number, video in enumerate(videos)}
        assert len(self._number) == len(videos), "a video is listed twice"
        self._source = {**source, "list of videos": digest_of(list(videos)), "format": FORMAT}
        self.finished: set[str] = set()
        if self._is_ours():
            self._keep_whole_files()
        else:
            self._start()

    def add(self, video: str, table: pd.DataFrame) -> None:
        """Keep a video's table, maybe an empty one; it is in `finished` from the moment this returns."""
        assert video not in self.finished, f"{video} added twice"
        with atomic_path(self._file(video)) as temporary:
            table.to_parquet(temporary, index=False, write_page_checksum=True)
        self.finished.add(video)

    def together(self, empty: pd.DataFrame) -> pd.DataFrame:
        """The tables of all videos, in the order of `videos`.

        Args:
            empty: a table of no rows with the columns and types of all others; it is returned if the job has
                no videos.
        """
        missing = [video for video in self._number if video not in self.finished]
        assert not missing, f"not finished: {', '.join(missing)}"
        tables = [_read(self._file(video)) for video in self._number]
        return pd.concat([empty, *tables], ignore_index=True)

    def remove(self) -> None:
        """Remove everything, once the artefact stands."""
        shutil.rmtree(self.work)

    def _file(self, video: str) -> Path:
        return self.work / f"{self._number[video]:07d}.parquet"  # an id may hold characters of a path

    @property
    def _source_file(self) -> Path:
        return self.work / "source.json"

    def _is_ours(self) -> bool:
        if not self._source_file.is_file():
            return False
        try:
            found = json.loads(self._source_file.read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        ours = json.loads(json.dumps(self._source))
        if found == ours:
            return True
        found = found if isinstance(found, dict) else {}
        differing = [name for name in sorted({*found, *ours}) if found.get(name) != ours.get(name)]
        _say(f"{self.work}: kept videos are of another {', '.join(differing)}; starting anew")
        return False

    def _start(self) -> None:
        if self.work.exists():
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True)
        write_json_atomic(self._source_file, self._source)

    def _keep_whole_files(self) -> None:
        """Take up the finished videos; remove what a kill left half-written."""
        files = {self._file(video): video for video in self._number}
        for path in sorted(self.work.iterdir()):
            if path in files and _is_whole(path):
                self.finished.add(files[path])
            elif path != self._source_file:
                path.unlink()


def digest_of_clips(videos: pd.DataFrame) -> str:
    """Digest of a videos table (`acar.data.tables.read_videos`) and of each clip's size and time of writing.

    The table alone would not tell apart two ingests whose frames differ, but not in number or size.
    """
    rows = videos.drop(columns="location").to_dict("records")
    return digest_of([rows, [_size_and_time(Path(location)) for location in videos["location"]]])


def _size_and_time(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None  # its reader will say so
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _is_whole(path: Path) -> bool:
    try:
        _read(path)
    except (OSError, pa.ArrowException) as error:
        _say(f"{path}: damaged ({str(error).splitlines()[0]}); its video is done again")
        return False
    return True


def _read(path: Path) -> pd.DataFrame:
    # A checksum a page: a flipped bit would otherwise read back as another box.
    return pq.read_table(path, partitioning=None, page_checksum_verification=True).to_pandas()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
