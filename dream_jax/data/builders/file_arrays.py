"""Arrays that stay in their file: shape and dtype are known, rows are read when asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class FileArray:
  """A C-ordered array inside a file; indexing reads rows, `np.asarray` all of it.

  Attributes:
    path: the file.
    offset: where its first byte lies.
    dtype: of one value.
    shape: [N, ...].
  """

  path: str
  offset: int
  dtype: np.dtype
  shape: tuple[int, ...]

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index) -> np.ndarray:
    # Mapped for this one read: pages that stayed mapped would count as memory in use until all of the file did.
    return np.array(np.memmap(self.path, self.dtype, 'r', self.offset, self.shape)[index])

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
