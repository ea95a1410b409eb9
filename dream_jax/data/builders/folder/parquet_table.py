"""A Parquet file as a `Table`: nested lists become arrays without passing through Python's own lists."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from dream_jax.data.builders.folder.tables import (
  CHUNK_BYTES,
  NULL_TOKEN,
  Layout,
  Table,
  Wanted,
  naming_damage,
  rows_at_once,
)
from dream_jax.errors import UserError

_EXPECTED = 'a Parquet file'


class ParquetTable(Table):
  """Columns of one Parquet file; a row is a sample, lists may have any length."""

  noun: ClassVar[str] = 'column'

  def __init__(self, path: str):
    """Reads the schema.

    Raises:
      UserError: pyarrow is not installed, or the file is damaged.
    """
    try:
      import pyarrow
      import pyarrow.parquet
    except ImportError as error:
      raise UserError(f'{path} needs the package pyarrow, which is not installed; run: pip install pyarrow') from error
    with naming_damage(path, _EXPECTED), pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
      layouts = {field.name: _layout(field.type) for field in file.schema_arrow}
      total = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
      super().__init__(path, file.metadata.num_rows, layouts)
    self._step = rows_at_once(total / max(self.num_rows, 1))

  def values(self, name: str) -> Iterator[Any]:
    self.layout(name)
    for batch in self._batches([name]):
      yield from batch[0].to_pylist()

  def rows(self, wanted: Sequence[Wanted]) -> Iterator[tuple[np.ndarray, ...]]:
    for batch in self._batches([w.array for w in wanted]):
      columns = [self._rows(column, w) for column, w in zip(batch, wanted, strict=True)]
      yield from zip(*columns, strict=True)

  def sizes(self, name: str, rank: int) -> tuple[int, ...]:
    known = self.layout(name).shape
    axes = len(known)
    found: list[set[int]] = [set() for _ in range(axes)]
    for batch in self._batches([name]) if None in known else ():
      for sizes, level in zip(found, _unnest(batch[0], axes)[0], strict=True):
        sizes.update(np.unique(level[level >= 0]).tolist())
    for level in found[1:]:
      if len(level) > 1:
        raise UserError(f'{self.where(name)} holds lists of {min(level)} and of {max(level)} values; expected one size')
    shape = tuple(max(level, default=size or 0) for level, size in zip(found, known, strict=True))
    return shape if axes == rank else (*shape, 1)

  def lengths(self, name: str) -> np.ndarray:
    if self.layout(name).kind == 'null':
      return np.zeros(self.num_rows, np.int64)
    parts = [_unnest(batch[0], 1)[0][0] for batch in self._batches([name])]
    return np.maximum(np.concatenate([np.zeros(0, np.int64), *parts]), 0)

  def absent(self, name: str) -> np.ndarray:
    parts = [batch[0].is_null().to_numpy(zero_copy_only=False) for batch in self._batches([name])]
    return np.concatenate([np.zeros(0, bool), *parts])

  def _batches(self, names: Sequence[str]) -> Iterator[list[Any]]:
    """Arrow arrays of several columns, some rows at a time."""
    import pyarrow.parquet

    options = {'buffer_size': CHUNK_BYTES, 'pre_buffer': False}  # Else a whole row group is read ahead.
    options['page_checksum_verification'] = True  # Where pages have one, which few writers give them.
    with naming_damage(self.path, _EXPECTED), pyarrow.parquet.ParquetFile(self.path, **options) as file:
      for batch in file.iter_batches(self._step, columns=list(dict.fromkeys(names)), use_threads=False):
        yield [batch.column(name) for name in names]

  def _rows(self, column: Any, wanted: Wanted) -> list[np.ndarray]:
    """Each row of an Arrow array as NumPy."""
    axes = len(self.layout(wanted.array).shape)
    sizes, flat = _unnest(column, axes)
    values = _numbers(flat, wanted.integers)
    if axes < len(wanted.shape):
      values = values[:, None]
    for level in range(axes - 1, 0, -1):
      values = self._stacked(values, sizes[level], wanted, level)
    if not axes:
      return list(values)
    ends = np.cumsum(np.maximum(sizes[0], 0))
    starts = ends - np.maximum(sizes[0], 0)
    return [values[a:b] for a, b in zip(starts, ends, strict=True)]

  def _stacked(self, values: np.ndarray, sizes: np.ndarray, wanted: Wanted, level: int) -> np.ndarray:
    """Values [total, ...] as [lists, width, ...]; a null list is NaN throughout."""
    width, present = wanted.shape[level], sizes >= 0
    if (sizes[present] != width).any():
      wrong = sizes[present & (sizes != width)][0]
      raise UserError(f'{self.where(wanted.array)} holds a list of {wrong} values; expected {width} as elsewhere')
    stacked = np.full((len(sizes), width, *values.shape[1:]), NULL_TOKEN if wanted.integers else np.nan, values.dtype)
    stacked[present] = values.reshape(-1, width, *values.shape[1:])
    return stacked


def _layout(arrow_type: Any) -> Layout:
  import pyarrow.types as t

  shape: list[int | None] = []
  while True:
    if t.is_fixed_size_list(arrow_type):
      shape.append(arrow_type.list_size)
    elif t.is_list(arrow_type) or t.is_large_list(arrow_type):
      shape.append(None)
    else:
      break
    arrow_type = arrow_type.value_type
  if t.is_dictionary(arrow_type):  # A categorical column.
    arrow_type = arrow_type.value_type
  if t.is_integer(arrow_type):
    kind = 'integer'
  elif t.is_floating(arrow_type):
    kind = 'number'
  elif t.is_boolean(arrow_type):
    kind = 'boolean'
  elif t.is_string(arrow_type) or t.is_large_string(arrow_type) or t.is_binary(arrow_type):
    kind = 'text'
  else:
    kind = str(arrow_type)
  return Layout(kind, tuple(shape))


def _unnest(array: Any, levels: int) -> tuple[list[np.ndarray], Any]:
  """Sizes of the lists of each level, -1 for null, and the values that are left: of what is null there are none."""
  import pyarrow.compute

  sizes = []
  for _ in range(levels):
    counts = pyarrow.compute.call_function('list_value_length', [array])
    sizes.append(counts.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
    array = array.flatten()
  return sizes, array


def _numbers(array: Any, integers: bool) -> np.ndarray:
  import pyarrow
  import pyarrow.types as t

  if t.is_dictionary(array.type):
    array = array.dictionary_decode()
  if integers:
    return array.cast(pyarrow.int64()).fill_null(NULL_TOKEN).to_numpy(zero_copy_only=False)
  return array.cast(pyarrow.float32(), safe=False).to_numpy(zero_copy_only=False).astype(np.float32)
