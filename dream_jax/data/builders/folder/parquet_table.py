"""A Parquet file as a `Table`: nested lists become arrays without passing through Python's own lists."""

import math
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
    options = {'page_checksum_verification': True}
    with naming_damage(path, _EXPECTED), pyarrow.parquet.ParquetFile(path, **options) as file:
      names = file.schema_arrow.names
      twice = next((name for name in names if names.count(name) > 1), None)
      if twice is not None:
        raise UserError(f'{path}: column {twice!r} is there twice; expected every name once: rename or drop one')
      layouts = {field.name: _layout(field.type) for field in file.schema_arrow}
      total = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
      super().__init__(path, file.metadata.num_rows, layouts)
    self._step = rows_at_once(total / max(self.num_rows, 1))

  def values(self, name: str) -> Iterator[Any]:
    self.layout(name)
    for (column,) in self._batches([name]):
      yield from _decoded(column).to_pylist()

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
        sizes.update(np.unique(level[level > 0]).tolist())
    for level in found[1:]:
      if len(level) > 1:
        raise UserError(f'{self.where(name)} holds lists of {min(level)} and of {max(level)} values; expected one size')
    shape = tuple(max(level, default=size or 0) for level, size in zip(found, known, strict=True))
    return shape if axes == rank else (*shape, 1)

  def lengths(self, name: str) -> np.ndarray:
    if self.layout(name).kind == 'null':
      return np.zeros(self.num_rows, np.int64)
    axes = len(self.layout(name).shape)
    parts = [_lengths(_unnest(batch[0], axes)[0]) for batch in self._batches([name])]
    return np.concatenate([np.zeros(0, np.int64), *parts])

  def absent(self, name: str) -> np.ndarray:
    axes = len(self.layout(name).shape)
    if self.layout(name).kind == 'null':
      return np.ones(self.num_rows, bool)
    if not axes:
      parts = [batch[0].is_null().to_numpy(zero_copy_only=False) for batch in self._batches([name])]
    else:
      parts = [_lengths(_unnest(batch[0], axes)[0]) == 0 for batch in self._batches([name])]
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
    values = _numbers(flat, wanted)
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
    """Values [total, ...] as [lists, width, ...]; a list that is null or empty is NaN throughout."""
    width, present = wanted.shape[level], sizes > 0
    if (sizes[present] != width).any():
      wrong = sizes[present & (sizes != width)][0]
      raise UserError(f'{self.where(wanted.array)} holds a list of {wrong} values; expected {width} as elsewhere')
    stacked = np.full((len(sizes), width, *values.shape[1:]), NULL_TOKEN if wanted.integers else np.nan, values.dtype)
    stacked[present] = values.reshape(-1, width, *values.shape[1:])
    return stacked


def _layout(arrow_type: Any) -> Layout:
  import pyarrow
  import pyarrow.types as t

  shape: list[int | None] = []
  while True:
    if isinstance(arrow_type, pyarrow.FixedShapeTensorType):
      shape += list(_tensor_shape(arrow_type))
    elif isinstance(arrow_type, pyarrow.BaseExtensionType):
      if isinstance(arrow_type, pyarrow.UuidType):
        return Layout('text', tuple(shape))
      arrow_type = arrow_type.storage_type
      continue
    elif t.is_fixed_size_list(arrow_type):
      shape.append(arrow_type.list_size)
    elif _is_list(arrow_type):
      shape.append(None)
    elif t.is_dictionary(arrow_type) or t.is_run_end_encoded(arrow_type):  # A categorical column, or runs of one value.
      pass
    else:
      break
    arrow_type = arrow_type.value_type
  if t.is_integer(arrow_type):
    kind = 'integer'
  elif t.is_floating(arrow_type) or t.is_decimal(arrow_type):
    kind = 'number'
  elif t.is_boolean(arrow_type):
    kind = 'boolean'
  elif any(is_text(arrow_type) for is_text in _text_types()):
    kind = 'text'
  elif t.is_temporal(arrow_type):
    kind = 'time'
  elif t.is_struct(arrow_type):
    kind = f'structs of {", ".join(field.name for field in arrow_type)}'
  else:
    kind = str(arrow_type)
  return Layout(kind, tuple(shape))


def _text_types() -> tuple[Any, ...]:
  import pyarrow.types as t

  return (
    t.is_string, t.is_large_string, t.is_string_view,
    t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary,
  )  # fmt: skip


def _is_list(arrow_type: Any) -> bool:
  import pyarrow.types as t

  return t.is_list(arrow_type) or t.is_large_list(arrow_type) or _is_view(arrow_type)


def _is_view(arrow_type: Any) -> bool:
  import pyarrow.types as t

  return t.is_list_view(arrow_type) or t.is_large_list_view(arrow_type)


def _tensor_shape(arrow_type: Any) -> tuple[int, ...]:
  """Shape of a tensor as its user sees it; the storage may hold the axes in another order."""
  shape, order = tuple(arrow_type.shape), arrow_type.permutation
  return tuple(shape[axis] for axis in order) if order else shape


def _decoded(array: Any) -> Any:
  """An Arrow array without dictionaries, runs and extension types around its values."""
  import pyarrow
  import pyarrow.compute
  import pyarrow.types as t

  while True:
    if t.is_dictionary(array.type):
      array = array.dictionary_decode()
    elif t.is_run_end_encoded(array.type):
      array = pyarrow.compute.call_function('run_end_decode', [array])
    elif isinstance(array.type, pyarrow.BaseExtensionType) and not isinstance(array.type, pyarrow.UuidType):
      array = array.storage
    elif _is_view(array.type):
      array = array.cast(pyarrow.large_list(array.type.value_type))
    else:
      return array


def _unnest(array: Any, levels: int) -> tuple[list[np.ndarray], Any]:
  """Sizes of the lists of each level, -1 for null, and the values that are left: of what is null there are none."""
  import pyarrow
  import pyarrow.compute

  sizes: list[np.ndarray] = []
  while len(sizes) < levels:
    if isinstance(array.type, pyarrow.FixedShapeTensorType):
      present, shape = array.is_valid().to_numpy(zero_copy_only=False), _tensor_shape(array.type)
      stored = array.drop_null().storage.flatten().to_numpy(zero_copy_only=False).reshape(-1, *array.type.shape)
      # Not `to_numpy_ndarray`, which gives other values where the axes are stored in another order (pyarrow 26).
      order = array.type.permutation or range(len(shape))
      array = pyarrow.array(stored.transpose(0, *(axis + 1 for axis in order)).reshape(-1))
      sizes.append(np.where(present, shape[0], -1).astype(np.int64))
      sizes += [np.full(int(present.sum()) * math.prod(shape[:i]), n, np.int64) for i, n in enumerate(shape) if i]
      continue
    array = _decoded(array)
    counts = pyarrow.compute.call_function('list_value_length', [array])
    sizes.append(counts.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
    array = array.flatten()
  return sizes, array


def _lengths(sizes: list[np.ndarray]) -> np.ndarray:
  """Entries of each row [N] from the sizes of its lists of each level; 0 where there is no value in any of them."""
  counts = np.maximum(sizes[-1], 0)
  for level in reversed(sizes[:-1]):
    ends = np.cumsum(np.maximum(level, 0))
    total = np.concatenate([[0], np.cumsum(counts)])
    counts = total[ends] - total[ends - np.maximum(level, 0)]
  return np.where(counts > 0, np.maximum(sizes[0], 0), 0)


def _numbers(array: Any, wanted: Wanted) -> np.ndarray:
  """The values of a flat Arrow array: int64, or float32."""
  import pyarrow
  import pyarrow.types as t

  array = _decoded(array)
  if wanted.integers:
    return array.cast(pyarrow.int64()).fill_null(NULL_TOKEN).to_numpy(zero_copy_only=False)
  if t.is_decimal(array.type):
    array = array.cast(pyarrow.float64())
  values = array.cast(pyarrow.float32(), safe=False).to_numpy(zero_copy_only=False).astype(np.float32)
  width = wanted.shape[-1]
  if wanted.resolution is not None and (t.is_integer(array.type) or t.is_floating(array.type)) and len(values):
    wide = array.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    if len(values) % width == 0 and array.type.bit_width > 32:
      wanted.resolution.see(wide, values.reshape(-1, width))
  return values
