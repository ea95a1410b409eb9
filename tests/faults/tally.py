"""Counts of what was tried, and every failure with what repeats it."""

import collections
import dataclasses
import json
import threading
import time
from pathlib import Path
from typing import Any

_MOST = 200


@dataclasses.dataclass(frozen=True)
class Failure:
  """Something that must not happen.

  Attributes:
    kind: 'traceback', 'hang', 'another end', ...
    where: what was tried, in words that repeat it.
    said: what was seen, one line.
    kept: the folder it was seen in.
  """

  kind: str
  where: str
  said: str
  kept: str = ''

  def __str__(self) -> str:
    return f'{self.kind}: {self.where}: {self.said}' + (f' (kept: {self.kept})' if self.kept else '')


class Tally:
  """Of one kind of trial; threads may share it."""

  def __init__(self, title: str, *, aloud: bool = False):
    """`aloud`: print failures as they come."""
    self.title, self._aloud = title, aloud
    self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    self.failures: list[Failure] = []
    self._start = time.monotonic()
    self._lock = threading.Lock()

  def count(self, column: str, row: str) -> None:
    """One more of `row` in the table `column`."""
    with self._lock:
      self.counts[column][row] += 1

  def fail(self, failure: Failure) -> None:
    """One more failure."""
    with self._lock:
      self.failures.append(failure)
    if self._aloud:
      print(f'FAILURE {failure}', flush=True)

  @property
  def hopeless(self) -> bool:
    """Whether more failures would tell nothing more."""
    return len(self.failures) >= _MOST

  @property
  def hours(self) -> float:
    """Since the start."""
    return (time.monotonic() - self._start) / 3600

  def table(self) -> str:
    """All of it in lines."""
    lines = [f'{self.title}: {self.hours:.2f} h, {len(self.failures)} failures']
    for column, counts in self.counts.items():
      lines.append(f'  {column}: {sum(counts.values())}')
      lines += [f'    {count:6} {row}' for row, count in sorted(counts.items(), key=lambda item: -item[1])]
    lines += [f'  {failure}' for failure in self.failures]
    return '\n'.join(lines)

  def as_json(self) -> dict[str, Any]:
    """The same for a file."""
    return {
      'title': self.title,
      'hours': self.hours,
      'counts': {column: dict(counts) for column, counts in self.counts.items()},
      'failures': [dataclasses.asdict(failure) for failure in self.failures],
    }


def write(path: Path, tallies: list[Tally], **facts: Any) -> None:
  """All tallies as JSON, with facts of the whole."""
  path.write_text(json.dumps({**facts, 'tallies': [tally.as_json() for tally in tallies]}, indent=1) + '\n')
