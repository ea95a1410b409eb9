"""A data file as rows: what it holds is known at once, values are read a chunk at a time and never all of them.

A row is a sample. `open_table` gives an .npz or a Parquet file the same face.
"""

import abc
import contextlib
import dataclasses
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from dream_jax.errors import UserError
from dream_jax.suggest import near

NUMBERS = ('integer', 'number', 'boolean')
CHUNK_BYTES = 1 << 20
MOST_ROWS = 256  # In one chunk.
NULL_TOKEN = int(np.iinfo(np.int64).min)


@dataclasses.dataclass(frozen=True)
class Layout:
  """What is known of an array or column without reading it.

  Attributes:
    kind: 'integer', 'number', 'boolean', 'text', or the type as its format calls it.
    shape: of one row; None for a size that differs from row to row.
  """

  kind: str
  shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Wanted:
  """One array to be read as rows of numbers.

  Attributes:
    array: its name.
    shape: of one row when a missing last axis is added; the first size is not looked at.
    integers: read as int64, with NULL_TOKEN for null; else as float32, with NaN for null.
  """

  array: str
  shape: tuple[int, ...]
  integers: bool = False


class Table(abc.ABC):
  """One data file.

  Attributes:
    path: of the file.
    noun: what the format calls its parts.
    num_rows: samples in it; an .npz knows it after `expect_rows`.
    layouts: what it holds, by name.
  """

  noun: ClassVar[str] = ''

  def __init__(self, path: str, num_rows: int, layouts: dict[str, Layout]):
    self.path, self.num_rows, self.layouts = path, num_rows, layouts

  def where(self, name: str) -> str:
    """The place that a message speaks of."""
    return f'{self.path}: {self.noun} {name!r}'

  def layout(self, name: str) -> Layout:
    """What is known of an array.

    Raises:
      UserError: there is none of that name.
    """
    if name not in self.layouts:
      meant = near(name, self.layouts)
      hint = f'; did you mean {" or ".join(meant)}?' if meant else ''
      raise UserError(f'{self.path} has no {self.noun} {name!r}; found {", ".join(self.layouts) or "none"}{hint}')
    return self.layouts[name]

  def expect_rows(self, reference: str, names: Sequence[str]) -> None:
    """Takes the number of rows from the array `reference`; to be called before anything is read.

    Raises:
      UserError: one of the arrays is absent or has another number of rows.
    """
    for name in (reference, *names):
      self.layout(name)

  @abc.abstractmethod
  def values(self, name: str) -> Iterator[Any]:
    """Every row of a small array as Python's own type: a number, a text, a list of them, or None for null."""

  @abc.abstractmethod
  def rows(self, wanted: Sequence[Wanted]) -> Iterator[tuple[np.ndarray, ...]]:
    """Every row of several arrays side by side; a list that is null has no entries, see `absent`."""

  @abc.abstractmethod
  def sizes(self, name: str, rank: int) -> tuple[int, ...]:
    """Shape of one row whose sizes are all the same but the first, which is the longest; 0 where nothing is there.

    Args:
      name: of the array.
      rank: number of axes; one less than in the file adds an axis of one.
    """

  @abc.abstractmethod
  def lengths(self, name: str) -> np.ndarray:
    """Entries along the first axis of each row, [N] int64; 0 for null."""

  @abc.abstractmethod
  def absent(self, name: str) -> np.ndarray:
    """Which rows are null, bool [N]."""


def open_table(path: str) -> Table:
  """The data file at `path`.

  Raises:
    UserError: it cannot be read, or pyarrow is needed and not there.
  """
  if path.endswith('.npz'):
    from dream_jax.data.builders.folder.npz_table import NpzTable

    return NpzTable(path)
  from dream_jax.data.builders.folder.parquet_table import ParquetTable

  return ParquetTable(path)


@contextlib.contextmanager
def naming_damage(path: str, expected: str) -> Iterator[None]:
  """Turns what a damaged file raises into one line.

  Args:
    path: of the file.
    expected: what it should be: 'an .npz file of numpy.savez'.
  """
  try:
    yield
  except UserError:
    raise
  except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
    reason = ' '.join(str(error).split())[:160] or type(error).__name__
    raise UserError(f'{path} cannot be read as {expected} ({reason}); write or copy it again') from error


def rows_at_once(row_bytes: float) -> int:
  """Rows of one chunk."""
  return int(min(MOST_ROWS, max(1, CHUNK_BYTES // max(row_bytes, 1))))
