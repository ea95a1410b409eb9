"""The ledger of a study: one line a finished run, appended when everything the line speaks of is on the disk."""

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from dream_jax.errors import UserError
from dream_jax.writers import plain

LEDGER_FILE = 'study.jsonl'


class Ledger:
  """`WORKDIR/study.jsonl`, open for one process at a time.

  Attributes:
    records: key -> the line of that run.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    """Reads what is there; a torn last line, left by a kill, is dropped.

    Raises:
      UserError: another process is at work in this workdir.
    """
    path = Path(workdir) / LEDGER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      os.close(self._file)
      if error.errno not in (errno.EAGAIN, errno.EACCES):
        raise
      raise UserError(
        f'another process is at work on the study in {workdir}; wait for it or choose another --workdir'
      ) from None
    content = path.read_bytes()
    whole = content[: content.rfind(b'\n') + 1]
    if whole != content:
      os.ftruncate(self._file, len(whole))
    self.records: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(whole.splitlines(), 1):
      try:
        record = json.loads(line)
        self.records[record['key']] = record
      except (ValueError, KeyError, TypeError):
        os.close(self._file)
        raise UserError(f'line {number} of {path} is damaged; remove that line: its run is made again') from None

  def append(self, record: dict[str, Any]) -> None:
    """Adds a run; it is on the disk when this returns."""
    line = json.dumps(plain(record), allow_nan=False).encode() + b'\n'
    written = os.write(self._file, line)
    if written != len(line):  # A full disk takes a part.
      os.ftruncate(self._file, os.fstat(self._file).st_size - written)
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), LEDGER_FILE)
    os.fsync(self._file)
    self.records[record['key']] = record

  def close(self) -> None:
    """Lets other processes in."""
    os.close(self._file)

  def __enter__(self) -> 'Ledger':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()
