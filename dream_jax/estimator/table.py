"""Columns by name, whatever holds them: a frame of pandas or Polars, a dict, a list of dicts, a plain 2-D array.

A cell is missing where it is None, NaN, NA, NaT, text without a word in it, or a list or array without a number in it.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np

from dream_jax.errors import InputError

_NUMBERS = (int, float, np.number, np.bool_, Decimal)
_NO_VALUE = ('NAType', 'NaTType')


class Column(NamedTuple):
  """The cells of one column.

  Attributes:
    kind: 'numbers' (float64 [n], NaN where missing), 'words' (objects: str or None), 'nested' (objects: an array of
      numbers or None) or 'empty' (nothing in it).
    values: the cells, as `kind` says.
    categories: whether the frame itself calls the words categories.
    integers: whether nested cells hold bytes, as pictures do.
  """

  kind: str
  values: np.ndarray
  categories: bool = False
  integers: bool = False


class Table:
  """Named columns of equal length; a column is read when it is asked for, and once."""

  def __init__(self, size: int, columns: Mapping[str, Any], *, plain: bool = False):
    """`plain` says that the names are mere numbers: whoever made the table named nothing."""
    self.size, self.plain = size, plain
    self._raw, self._read = dict(columns), {}

  @property
  def names(self) -> list[str]:
    return list(self._raw)

  def __contains__(self, name: str) -> bool:
    return name in self._raw

  def raw(self, name: str) -> Any:
    """A column as it was given."""
    return self._raw[name]

  def column(self, name: str) -> Column:
    """The cells of a column; of one that is not there, all are missing.

    Raises:
      InputError: it holds what is neither numbers nor words nor arrays of numbers, or several of them.
    """
    if name not in self._read:
      raw = self._raw.get(name)
      empty = raw is None
      self._read[name] = Column('empty', np.full(self.size, None)) if empty else _column(name, raw, self.size)
    return self._read[name]

  def numbers(self, names: Sequence[str]) -> np.ndarray:
    """Columns of numbers, float64 [n, columns], NaN where missing.

    Raises:
      InputError: a cell is no number, or infinite.
    """
    made = np.full((self.size, len(names)), np.nan)
    for i, name in enumerate(names):
      column = self.column(name)
      if column.kind == 'numbers':
        made[:, i] = column.values
      elif column.kind != 'empty':
        raise InputError(f'column {name!r} holds {SAID[column.kind]}; expected numbers, as in training')
    wrong = np.isinf(made)
    if wrong.any():
      row, i = np.argwhere(wrong)[0]
      raise InputError(f'row {row} of column {names[i]!r} is infinity; expected a number, or NaN where it is missing')
    return made

  def taken(self, rows: np.ndarray, names: Sequence[str]) -> 'Table':
    """The table of these rows and columns."""
    part = Table(len(rows), {name: self._raw[name] for name in names}, plain=self.plain)
    for name in names:
      column = self.column(name)
      part._read[name] = column._replace(values=column.values[rows])
    return part

  def renamed(self, names: Sequence[str]) -> 'Table':
    """The same columns under other names."""
    return Table(self.size, dict(zip(names, self._raw.values(), strict=True)), plain=self.plain)

  def without(self, *names: str) -> 'Table':
    """The table without some columns."""
    return Table(self.size, {name: raw for name, raw in self._raw.items() if name not in names}, plain=self.plain)


SAID = {'numbers': 'numbers', 'words': 'text', 'nested': 'lists or arrays', 'empty': 'nothing'}


def as_table(x: Any) -> Table:
  """The table of whatever a user calls a table.

  Args:
    x: a DataFrame of pandas or Polars, a dict of columns, a list of dicts (a sample each), or a 2-D array of numbers.

  Raises:
    InputError: it is none of these, or columns differ in length.
  """
  if isinstance(x, Table):
    return x
  if hasattr(x, 'toarray'):  # Before all others: some of them are dicts.
    raise InputError('X is a sparse matrix; expected a dense one: X.toarray()')
  if hasattr(x, 'columns') and hasattr(x, 'iloc'):
    return _of_pandas(x)
  if hasattr(x, 'columns') and hasattr(x, 'get_columns'):
    return Table(x.height, {series.name: series for series in x.get_columns()})
  if isinstance(x, Mapping):
    return _of_mapping(x)
  if isinstance(x, (list, tuple)) and x and all(isinstance(row, Mapping) for row in x):
    names = dict.fromkeys(str(name) for row in x for name in row)
    return Table(len(x), {name: [row.get(name) for row in x] for name in names})
  name = getattr(x, 'name', None)
  if name is not None and hasattr(x, 'to_numpy'):
    raise InputError(f'X is one column ({name!r}); expected a table: for a frame of one column frame[[{name!r}]]')
  return _of_array(x)


def _of_pandas(frame: Any) -> Table:
  names = [str(name) for name in frame.columns]
  if len(set(names)) < len(names):
    twice = next(name for name in names if names.count(name) > 1)
    raise InputError(f'the frame has two columns {twice!r}; expected each name once: rename one')
  return Table(len(frame), {str(name): frame[name] for name in frame.columns})


def _of_mapping(x: Mapping[Any, Any]) -> Table:
  columns = {str(name): values for name, values in x.items() if values is not None}
  for name, values in columns.items():
    one = isinstance(values, (str, bytes)) or not hasattr(values, '__len__') or getattr(values, 'shape', None) == ()
    if one:
      raise InputError(
        f'{name!r} is a single {type(values).__name__}; expected a column, a value for each sample: one sample is a'
        ' list of one dict, [{...}]'
      )
  sizes = {name: len(values) for name, values in columns.items()}
  if not sizes:
    raise InputError('X is an empty dict; expected columns by name')
  if len(set(sizes.values())) > 1:
    found = ', '.join(f'{name} {size}' for name, size in sizes.items())
    raise InputError(f'columns have different lengths: {found}; expected as many samples in each')
  return Table(next(iter(sizes.values())), columns)


def _of_array(x: Any) -> Table:
  try:
    array = np.asarray(x)
  except ValueError:
    raise InputError(
      'X is made of rows of different sizes; expected a frame, a dict of columns, or a list of dicts'
    ) from None
  if array.ndim != 2:
    hint = 'Reshape your data: one feature is X.reshape(-1, 1), one sample X.reshape(1, -1)'
    raise InputError(f'Expected 2D array, got {array.ndim}D array instead. {hint}')
  if array.dtype.kind == 'c':
    raise InputError('Complex data not supported: X holds complex numbers; expected real ones')
  return Table(len(array), {str(i): array[:, i] for i in range(array.shape[1])}, plain=True)


def _column(name: str, raw: Any, size: int) -> Column:
  dtype = getattr(raw, 'dtype', None)
  if hasattr(raw, 'iloc'):
    return _of_series(name, raw)
  if hasattr(raw, 'to_list') and hasattr(dtype, 'is_numeric'):
    return _of_polars(name, raw)
  if np.ma.isMaskedArray(raw):
    raw = np.ma.filled(raw.astype(float), np.nan)
  if _is_array(raw):
    array = np.asarray(raw)
    if array.dtype.type.__module__ == 'ml_dtypes':
      array = array.astype(np.float32)
    if array.dtype.kind in 'mM':
      raise _dates(name)
    if array.ndim == 1 and array.dtype.kind in 'biuf':
      return _numbers(array.astype(np.float64))
    if array.ndim > 1 and array.dtype.kind in 'biuf':
      cells = np.empty(len(array), object)
      cells[:] = [_cell(row) for row in array]
      return _nested(name, cells, array.dtype == np.uint8)
    raw = array.tolist() if array.ndim == 1 and array.dtype.kind != 'O' else array
  cells = np.empty(size, object)
  for i, value in enumerate(raw):
    cells[i] = value
  return _of_objects(name, cells)


def _of_series(name: str, series: Any) -> Column:
  dtype = series.dtype
  kind = getattr(dtype, 'kind', 'O')
  if str(dtype) == 'category':
    column = _of_objects(name, np.array([_word(v) for v in series.astype(object)], object))
    return column._replace(categories=True)
  if kind in 'biuf':
    if isinstance(dtype, np.dtype):
      return _numbers(series.to_numpy().astype(np.float64))
    return _numbers(series.to_numpy(dtype=np.float64, na_value=np.nan))
  if kind in 'mM':
    raise _dates(name)
  return _of_objects(name, series.to_numpy(dtype=object))


def _of_polars(name: str, series: Any) -> Column:
  dtype = series.dtype
  if dtype.is_numeric() or str(dtype) == 'Boolean':
    return _numbers(np.array([np.nan if v is None else v for v in series.to_list()], np.float64))
  if dtype.is_temporal():
    raise _dates(name)
  cells = np.empty(len(series), object)
  cells[:] = series.to_list()
  column = _of_objects(name, cells)
  return column._replace(categories=str(dtype).startswith(('Categorical', 'Enum')))


def _of_objects(name: str, cells: np.ndarray) -> Column:
  """The column of Python objects, each a number, a text, an array or missing."""
  kinds: dict[str, int] = {}
  made = np.empty(len(cells), object)
  integers = True
  for row, value in enumerate(cells):
    made[row] = None
    if _is_missing(value):
      continue
    if isinstance(value, str):
      if value.strip():
        kinds.setdefault('words', row)
        made[row] = value
    elif isinstance(value, _NUMBERS) and not isinstance(value, np.complexfloating):
      kinds.setdefault('numbers', row)
      made[row] = float(value)
    elif isinstance(value, (list, tuple)) or _is_array(value) or hasattr(value, '__array_interface__'):
      array = _as_cell(name, row, value)
      integers = integers and array.dtype == np.uint8
      made[row] = _cell(array)
      if made[row] is not None:
        kinds.setdefault('nested', row)
    elif type(value).__name__ in ('Timestamp', 'datetime', 'date', 'Timedelta', 'timedelta', 'datetime64'):
      raise _dates(name)
    else:
      raise InputError(
        f'row {row} of column {name!r} is a {type(value).__name__}; expected a number, text, or an array of numbers'
      )
  if not kinds:
    return Column('empty', made)
  if len(kinds) > 1:
    found = ' and '.join(f'{SAID[kind]} (row {row})' for kind, row in kinds.items())
    raise InputError(f'column {name!r} holds {found}; expected one kind of value: clean it, or turn all into text')
  (kind,) = kinds
  if kind == 'numbers':
    return _numbers(np.array([np.nan if v is None else v for v in made], np.float64))
  return Column('words', made) if kind == 'words' else _nested(name, made, integers)


def _numbers(values: np.ndarray) -> Column:
  return Column('empty' if np.isnan(values).all() else 'numbers', values)


def _nested(name: str, cells: np.ndarray, integers: bool) -> Column:
  held = {v.ndim for v in cells if v is not None}
  if not held:
    return Column('empty', cells)
  if len(held) > 1:
    raise InputError(f'column {name!r} holds arrays of {" and ".join(map(str, sorted(held)))} dimensions; expected one')
  return Column('nested', cells, integers=integers)


def _as_cell(name: str, row: int, value: Any) -> np.ndarray:
  if isinstance(value, (list, tuple)):
    if any(isinstance(v, str) for v in value):
      raise InputError(f"row {row} of column {name!r} is a list of words; expected text: ' '.join(words)")
    value = _filled(value)
  try:
    array = np.asarray(value)
    if array.dtype == object:  # None among numbers, or rows that are objects.
      array = np.array([_filled(v) if isinstance(v, (list, tuple)) else v for v in array.tolist()], np.float64)
  except (ValueError, TypeError):
    raise InputError(
      f'row {row} of column {name!r} is a list of parts of different sizes; expected as many features in each step'
    ) from None
  if array.dtype.kind not in 'biuf':
    raise InputError(f'row {row} of column {name!r} is an array of {array.dtype}; expected numbers')
  return array


def _filled(values: Any) -> list[Any]:
  return [np.nan if v is None else v for v in values]


def _cell(array: np.ndarray) -> np.ndarray | None:
  """None for an array that holds nothing."""
  nothing = not array.size or (array.dtype.kind == 'f' and bool(np.isnan(array).all()))
  return None if nothing else array


def _is_missing(value: Any) -> bool:
  if value is None or (isinstance(value, (float, np.floating)) and bool(value != value)):
    return True
  return type(value).__name__ in _NO_VALUE


def _is_array(value: Any) -> bool:
  return hasattr(value, '__array__') and hasattr(value, 'shape')


def _word(value: Any) -> str | None:
  return None if _is_missing(value) else as_word(value)


def as_word(value: Any) -> str:
  """How a category is written: whole numbers without a point."""
  return str(int(value)) if isinstance(value, (float, np.floating)) and value == int(value) else str(value)


def _dates(name: str) -> InputError:
  return InputError(
    f'column {name!r} holds dates or durations; expected numbers: turn them into days since a start, or leave them out'
  )
