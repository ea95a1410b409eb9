"""A column of arrays as sequences or pictures: centred and scaled, feature by feature, by the observed training cells.

A NaN inside of an array that holds something becomes the average of its feature. An array is missing where it holds
nothing: then it is zeros, of length 0 where there is a length.
"""

import dataclasses
from typing import Any

import numpy as np

from dream_jax.errors import InputError
from dream_jax.estimator.modality import Modality
from dream_jax.estimator.notes import Notes
from dream_jax.estimator.table import SAID, Table


@dataclasses.dataclass(frozen=True)
class Arrays:
  """What turns arrays into sequences [T, D] or pictures [H, W, C].

  Attributes:
    column: its name.
    kind: 'sequence' or 'image'.
    size: shape of a sample.
    means, scales: of the features, the last axis.
  """

  column: str
  kind: str
  size: list[int]
  means: list[float]
  scales: list[float]

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(self.size)

  def read(self, name: str, table: Table, notes: Notes) -> dict[str, np.ndarray]:
    """The arrays of a table, float32 [n, ...], and lengths int32 [n] of sequences."""
    held = table.column(self.column)
    if held.kind not in ('nested', 'empty'):
      raise InputError(f'column {self.column!r} holds {SAID[held.kind]}; expected arrays, as in training')
    made = np.zeros((table.size, *self.shape), np.float32)
    length = np.zeros(table.size, np.int32)
    cut = 0
    for row, cell in enumerate(held.values):
      if cell is None:
        continue
      array = _with_features(self.kind, cell)
      wanted = self.shape if self.kind == 'image' else (len(array), *self.shape[1:])
      if array.shape != wanted:
        shown = self.shape if self.kind == 'image' else ('T', *self.shape[1:])
        raise InputError(
          f'row {row} of column {self.column!r} has shape {cell.shape}; expected ({", ".join(map(str, shown))}), as in'
          ' training'
        )
      if self.kind == 'sequence':
        cut += len(array) > self.shape[0]
        array = array[: self.shape[0]]
      scaled = _scaled(self.column, row, array, self.means, self.scales)
      made[row][: len(array)] = scaled
      length[row] = len(array)
    if cut:
      notes.say(f'sequences of column {self.column!r} are longer than {self.shape[0]} steps and are cut to that')
    return {name: made, f'{name}_length': length} if self.kind == 'sequence' else {name: made}


def fit_arrays(name: str, modality: Modality, table: Table) -> Arrays:
  """Sizes, means and scales of training rows.

  Raises:
    InputError: they are empty, or of sizes that do not go together.
  """
  (column,) = modality.columns
  cells = [(i, _with_features(modality.kind, v)) for i, v in enumerate(table.column(column).values) if v is not None]
  if not cells:
    raise InputError(f'modality {name!r} holds nothing in any training row; expected some array: leave it out')
  rank = 3 if modality.kind == 'image' else 2
  first = cells[0][1].shape
  for row, cell in cells:
    if cell.ndim != rank or (cell.shape != first if modality.kind == 'image' else cell.shape[1:] != first[1:]):
      kind = 'pictures of one size' if modality.kind == 'image' else 'sequences of one width'
      raise InputError(
        f'row {row} of column {column!r} has shape {cell.shape}, row {cells[0][0]} {first}; expected {kind}'
      )
  longest = max(len(cell) for _, cell in cells)
  size = first if modality.kind == 'image' else (min(longest, modality.max_length or longest), first[1])
  total, count = np.zeros(first[-1]), np.zeros(first[-1])
  for row, cell in cells:
    flat = _finite(column, row, cell)
    count += (~np.isnan(flat)).sum(0)
    total += np.nansum(flat, 0)
  means = total / np.maximum(count, 1)
  total = np.zeros(first[-1])
  for row, cell in cells:
    total += np.nansum((_finite(column, row, cell) - means) ** 2, 0)
  scales = np.sqrt(total / np.maximum(count, 1))
  return Arrays(column, modality.kind, list(size), means.tolist(), np.where(scales > 0, scales, 1.0).tolist())


def _with_features(kind: str, cell: np.ndarray) -> np.ndarray:
  """With the last axis, which a series of numbers or a grey picture may lack."""
  return cell[..., None] if cell.ndim == (2 if kind == 'image' else 1) else cell


def _finite(column: str, row: int, cell: np.ndarray) -> np.ndarray:
  """All cells by feature, float64 [..., D]; NaN passes."""
  if cell.dtype.kind == 'f' and np.isinf(cell).any():
    raise InputError(f'row {row} of column {column!r} holds infinity; expected numbers, or NaN where one is missing')
  return cell.reshape(-1, cell.shape[-1]).astype(np.float64)


def _scaled(column: str, row: int, cell: np.ndarray, means: list[float], scales: list[float]) -> np.ndarray:
  flat = (_finite(column, row, cell) - means) / scales
  return np.where(np.isnan(flat), 0.0, flat).reshape(cell.shape).astype(np.float32)


def restore(state: dict[str, Any]) -> Arrays:
  """What `dataclasses.asdict` made of one."""
  return Arrays(**state)
