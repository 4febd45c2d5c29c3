"""Curves for TensorBoard, written at once: torch's own writer fails in a thread of its own, with a trace there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from acar.disk_errors import told_as_user_error


class Board:
    """An event file in `folder`; what an earlier file says of steps from `first` on is no longer shown.

    Raises:
        UserError: (all calls) the disk is full or refuses the write.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.path = (
            folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        )
        with told_as_user_error(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._records = RecordWriter(self._stream)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, values: Mapping[str, float], step: int) -> None:
        """One point of each curve."""
        found = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(Event(step=step, summary=Summary(value=found)))

    def close(self) -> None:
        """No more points."""
        self._stream.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with told_as_user_error(self.path):
            self._records.write(event.SerializeToString())
