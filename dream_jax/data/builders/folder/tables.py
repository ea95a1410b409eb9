"""A data file as rows: what it holds is known at once, values are read a chunk at a time and never all of them.

A row is a sample. An .npz and a Parquet file have the same face.
"""

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from dream_jax.data.reading import exact_text
from dream_jax.errors import UserError, near

NUMBERS = ('integer', 'number', 'boolean')
CHUNK_BYTES = 1 << 20
MOST_ROWS = 256  # In one chunk.
NULL_TOKEN = int(np.iinfo(np.int64).min)
_MOST_LOST = 0.01  # Of the range of a feature.


@dataclasses.dataclass(frozen=True)
class Layout:
  """What is known of an array or column without reading it.

  Attributes:
    kind: 'integer', 'number', 'boolean', 'text', 'time' (dates and moments), or the type as its format calls it.
    shape: shape of one row; None for a size that differs from row to row.
  """

  kind: str
  shape: tuple[int | None, ...]


class Resolution:
  """Whether float32, which is what is stored, still tells the values of each feature apart.

  Moments in milliseconds since 1970 are near 1.7e12, where float32 has steps of 131,072: what differs by less is gone.
  """

  def __init__(self):
    self._low = self._high = self._lost = np.zeros(0)

  def see(self, wide: np.ndarray, stored: np.ndarray) -> None:
    """Values [..., D] as the file has them, and as float32."""
    if wide.dtype.kind not in 'iuf' or wide.dtype.itemsize <= 4 or not wide.size:
      return
    width = stored.shape[-1]
    values = wide.reshape(-1, width).astype(np.float64)
    lost = np.abs(values - stored.reshape(-1, width).astype(np.float64))
    usable = np.isfinite(values) & np.isfinite(lost)
    seen = (
      np.where(usable, values, np.inf).min(0),
      np.where(usable, values, -np.inf).max(0),
      np.where(usable, lost, 0.0).max(0),
    )
    if not len(self._low):
      self._low, self._high, self._lost = seen
    else:
      self._low, self._high = np.minimum(self._low, seen[0]), np.maximum(self._high, seen[1])
      self._lost = np.maximum(self._lost, seen[2])

  def check(self, where: str) -> None:
    """Raises UserError for a feature of which float32 keeps too little."""
    spread = self._high - self._low
    bad = np.flatnonzero((spread > 0) & (self._lost > _MOST_LOST * spread))
    if len(bad):
      d = bad[0]
      step = float(np.spacing(np.float32(max(abs(self._low[d]), abs(self._high[d])))))
      raise UserError(
        f'{where}: feature {d} goes from {self._low[d]:.17g} to {self._high[d]:.17g}, where float32 has steps of'
        f' {step:g}, so its differences would be lost; subtract the first value (times: count from a start)'
      )


@dataclasses.dataclass(frozen=True)
class Wanted:
  """One array to be read as rows of numbers.

  Attributes:
    array: its name.
    shape: shape of one row when a missing last axis is added; the first size is not looked at.
    integers: read as int64, with NULL_TOKEN for null; else as float32, with NaN for null.
    resolution: is shown the values before and after they became float32; None where nobody asks.
  """

  array: str
  shape: tuple[int, ...]
  integers: bool = False
  resolution: Resolution | None = None


class Table(abc.ABC):
  """One data file.

  Attributes:
    path: the file.
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
      name: name of the array.
      rank: number of axes; one less than in the file adds an axis of one.
    """

  @abc.abstractmethod
  def lengths(self, name: str) -> np.ndarray:
    """Entries along the first axis of each row, [N] int64; 0 for null."""

  @abc.abstractmethod
  def absent(self, name: str) -> np.ndarray:
    """Which rows are null, bool [N]."""


def as_text(value: Any, where: str, row: int) -> str:
  """One text, whole number, date or uuid of an array or column, as text; bytes that are no UTF-8 are refused."""
  return exact_text(value if isinstance(value, bytes) else str(value), f'{where}, row {row},')


def rows_at_once(row_bytes: float) -> int:
  """Rows of one chunk."""
  return int(min(MOST_ROWS, max(1, CHUNK_BYTES // max(row_bytes, 1))))
