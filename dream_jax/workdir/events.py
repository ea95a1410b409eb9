"""Event files of TensorBoard, written by whoever calls.

The writer of tensorboardX has a thread for it. On a full disk that thread dies with a traceback, and the run waits for
it for ever.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

from dream_jax.workdir import storage

_FLUSH_SECONDS = 30.0


class Events:
  """One event file with scalars.

  Every method raises OSError where the disk refuses.
  """

  def __init__(self, folder: Path, *, forget_from: int):
    """Opens the file; makes the folder.

    Args:
      folder: the folder of the run, as TensorBoard names it.
      forget_from: TensorBoard forgets what an earlier file of the folder says of this step and later ones.
    """
    from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
    from tensorboardX.record_writer import RecordWriter

    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    self._path = folder / f'events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}'
    self._event, self._flushed = Event, now
    self._file = RecordWriter(str(self._path))
    self._write(file_version='brain.Event:2')
    self._write(step=forget_from, session_log=SessionLog(status=SessionLog.START))

  def add(self, step: int, values: dict[str, float]) -> None:
    """Adds the scalars of a step."""
    from tensorboardX.summary import scalar

    for name, value in values.items():
      self._write(step=step, summary=scalar(name, value))
    if time.time() - self._flushed >= _FLUSH_SECONDS:
      self.flush()

  def flush(self) -> None:
    """Forces everything down to the disk."""
    with storage.naming(self._path):
      self._file.flush()
    self._flushed = time.time()

  def close(self) -> None:
    """Closes the file; what the disk does not take is lost."""
    with storage.naming(self._path):
      self._file.close()

  def _write(self, **content: Any) -> None:
    with storage.naming(self._path):
      self._file.write(self._event(wall_time=time.time(), **content).SerializeToString())
