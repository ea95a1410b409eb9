"""Arrays that stay in their file: shape and dtype are known, rows are read when asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class FileArray:
  """A C-ordered array inside a file; indexing reads rows, `np.asarray` all of it.

  Attributes:
    path: the file.
    offset: where its first byte lies.
    dtype: type of one value.
    shape: [N, ...].
  """

  path: str
  offset: int
  dtype: np.dtype
  shape: tuple[int, ...]

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: int | slice) -> np.ndarray:
    # Read, not mapped: mapped pages count as memory in use, and a file that fails under a map ends the process.
    rows = range(len(self))[index]
    if isinstance(rows, int):
      return self._read(rows, 1)[0]
    if rows.step != 1:
      raise IndexError(f'rows {index}; expected one row, or rows that follow one another')
    return self._read(rows.start, len(rows))

  def _read(self, start: int, count: int) -> np.ndarray:
    """Rows [count, ...] from `start` on."""
    values = np.empty((count, *self.shape[1:]), self.dtype)
    row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
    with open(self.path, 'rb', buffering=0) as file:
      file.seek(self.offset + start * row_bytes)
      left = values.reshape(-1).view(np.uint8).data
      while left.nbytes:
        size = file.readinto(left)
        if not size:
          raise EOFError('it became shorter while it was read')
        left = left[size:]
    return values

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy
    return np.asarray(self[:], dtype)

  @property
  def nbytes(self) -> int:
    return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class StackedRows:
  """Arrays of one shape, seen as one [N, ...] without stacking them."""

  rows: Sequence[np.ndarray | FileArray]

  @property
  def shape(self) -> tuple[int, ...]:
    return (len(self.rows), *self.rows[0].shape)

  @property
  def dtype(self) -> np.dtype:
    return self.rows[0].dtype

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: int) -> np.ndarray:
    return np.asarray(self.rows[index])
