"""The ledger of a study: one line a finished run, appended when everything the line speaks of is on the disk."""

import json
import os
from typing import Any

from dream_jax import storage
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
    path = storage.place(workdir) / LEDGER_FILE
    self._log = storage.open_log(path, alone=True)
    content = self._log.read()
    whole = content[: content.rfind(b'\n') + 1]
    if whole != content:
      self._log.truncate(len(whole))
    self.records: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(whole.splitlines(), 1):
      try:
        record = json.loads(line)
        self.records[record['key']] = record
      except (ValueError, KeyError, TypeError):
        self._log.close()
        raise UserError(f'line {number} of {path} is damaged; remove that line: its run is made again') from None

  def append(self, record: dict[str, Any]) -> None:
    """Adds a run; it is on the disk when this returns."""
    self._log.append(json.dumps(plain(record), allow_nan=False).encode() + b'\n')
    self._log.sync()
    self.records[record['key']] = record

  def close(self) -> None:
    """Lets other processes in."""
    self._log.close()

  def __enter__(self) -> 'Ledger':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()
