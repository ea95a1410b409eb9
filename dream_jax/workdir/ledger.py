"""The ledger of a study: one line a finished run, appended when everything the line speaks of is on the disk."""

import os
from typing import Any

from dream_jax.errors import UserError
from dream_jax.workdir import sealed, storage

LEDGER_FILE = 'study.jsonl'


class Ledger:
  """`WORKDIR/study.jsonl`; who opens it holds the workdir, see `storage.lock`.

  Attributes:
    records: key -> the line of that run.
  """

  def __init__(self, workdir: str | os.PathLike[str]):
    """Reads what is there; a torn last line, left by a kill, is dropped.

    Raises:
      UserError: a line is damaged.
    """
    path = storage.place(workdir) / LEDGER_FILE
    self._log = storage.open_log(path)
    content = self._log.read()
    try:
      lines = sealed.records(content, path, run=LEDGER_FILE, remedy='remove that line: its run is made again')
    except UserError:
      self._log.close()
      raise
    self._log.truncate(sum(len(line) for line, _ in lines))
    self.records: dict[str, dict[str, Any]] = {record['key']: record for _, record in lines}

  def append(self, record: dict[str, Any]) -> None:
    """Adds a run; it is on the disk when this returns."""
    self._log.append(sealed.line(record, run=LEDGER_FILE))
    self._log.sync()
    self.records[record['key']] = record

  def close(self) -> None:
    """What was appended to a log in a bucket is there when this returns."""
    self._log.close()

  def __enter__(self) -> 'Ledger':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()
