"""Columns of numbers and categories as one vector.

A number is centred and scaled by the observed cells of training; a missing one becomes the median of training, and a
column of its own says so where training had missing cells too. A category is a column for each word of training and one
for whatever else: unknown words and missing cells. A slot is missing where all of its cells are: then the vector is
zeros, which no observed slot is, since the columns are centred.
"""

import dataclasses
from typing import Any

import numpy as np

from dream_jax.errors import InputError
from dream_jax.estimator.modality import Modality
from dream_jax.estimator.notes import Notes
from dream_jax.estimator.table import SAID, Table, as_word

_MOST_CATEGORIES = 200


@dataclasses.dataclass(frozen=True)
class Categories:
  """One column of words.

  Attributes:
    column: its name.
    words: the categories of training, sorted.
    shares: of the words and of whatever else, in training.
  """

  column: str
  words: list[str]
  shares: list[float]


@dataclasses.dataclass(frozen=True)
class Vectors:
  """What turns columns into a vector.

  Attributes:
    columns: their names, as in the table.
    width: numbers in a cell, where the one column holds lists; 0 elsewhere.
    numbers: what is numeric: names of columns, or 'COLUMN[i]'.
    medians, means, scales: of the numbers.
    gaps: which of the numbers have a column that says where they are missing.
    gap_shares: how often they were.
    incomplete: which of the numbers had missing cells in training.
    categories: the columns of words.
  """

  columns: list[str]
  width: int
  numbers: list[str]
  medians: list[float]
  means: list[float]
  scales: list[float]
  gaps: list[int]
  gap_shares: list[float]
  incomplete: list[int]
  categories: list[Categories]

  kind = 'vector'

  @property
  def features(self) -> list[str]:
    """What each number of the vector is."""
    words = [f'{c.column}={word}' for c in self.categories for word in (*c.words, 'unknown or missing')]
    made = [*self.numbers, *(f'{self.numbers[i]} missing' for i in self.gaps), *words]
    return made if len(made) > 1 else [*made, 'present']

  @property
  def shape(self) -> tuple[int, ...]:
    return (len(self.features),)

  def read(self, name: str, table: Table, notes: Notes) -> dict[str, np.ndarray]:
    """The vectors of a table, float32 [n, D]."""
    x, words, empty = _cells(self, table)
    missing = np.isnan(x)
    new = np.asarray(missing[~empty].any(0))
    new[self.incomplete] = False
    if new.any():
      columns = [self.numbers[i] for i in np.flatnonzero(new)]
      notes.say(
        f'cells of {_few(columns)} (modality {name!r}) are missing, and none was in training: the median of training'
        ' takes their place'
      )
    scaled = (np.where(missing, self.medians, x) - self.means) / self.scales
    parts = [scaled, missing[:, self.gaps] - np.array(self.gap_shares, np.float64)]
    parts += [_one_hot(c, words[c.column]) for c in self.categories]
    made = np.concatenate([p.reshape(table.size, -1) for p in parts], axis=1)
    if made.shape[1] == 1:  # Zero may be a value; a second column tells it from nothing.
      made = np.concatenate([made, np.ones((table.size, 1))], axis=1)
    made = np.where(np.reshape(empty, (-1, 1)), 0.0, made)
    with np.errstate(over='ignore'):
      made = made.astype(np.float32)
    far = ~np.isfinite(made).all(1)
    if far.any():
      raise InputError(
        f'row {int(np.argmax(far))} of modality {name!r} holds a number too large for float32; expected values like'
        ' those of training'
      )
    return {name: made}


def fit_vectors(name: str, modality: Modality, table: Table, notes: Notes, *, indicators: bool) -> Vectors:
  """Medians, scales and categories of training rows.

  Raises:
    InputError: a column cannot be a part of a vector.
  """
  columns, width = list(modality.columns), 0
  kinds = {column: table.column(column).kind for column in columns}
  if 'nested' in kinds.values():
    width = _width(columns[0], table)
    names = [f'{columns[0]}[{i}]' for i in range(width)]
  else:
    empty = [column for column in columns if kinds[column] == 'empty']
    if len(empty) == len(columns):
      raise InputError(f'modality {name!r} holds nothing in any training row; expected some value: leave it out')
    if empty:
      notes.say(f'column {_few(empty)} (modality {name!r}) holds nothing in any training row and is left out')
      columns = [column for column in columns if column not in empty]
    names = [column for column in columns if kinds[column] == 'numbers']
  blank = Vectors(columns, width, names, [], [], [], [], [], [], [_blank(c) for c in columns if kinds[c] == 'words'])
  x, words, empty_rows = _cells(blank, table)
  x, words = x[~empty_rows], {column: cells[~empty_rows] for column, cells in words.items()}
  gone = np.isnan(x)
  whole = gone.all(0)
  if whole.any():
    notes.say(f'{_few([names[i] for i in np.flatnonzero(whole)])} (modality {name!r}) holds nothing in training')
  x = np.where(whole, 0.0, x)
  medians = np.nanmedian(x, 0) if x.size else np.zeros(len(names))
  filled = np.where(np.isnan(x), medians, x)
  with np.errstate(over='ignore'):
    means, scales = filled.mean(0), filled.std(0)
  if not (np.isfinite(means) & np.isfinite(scales)).all():
    odd = names[int(np.argmax(~(np.isfinite(means) & np.isfinite(scales))))]
    raise InputError(f'column {odd!r} (modality {name!r}) holds numbers too large to average; expected another unit')
  incomplete = [int(i) for i in np.flatnonzero(gone.any(0) & ~whole)]
  gaps = incomplete if indicators else []
  return Vectors(
    columns,
    width,
    names,
    medians.tolist(),
    means.tolist(),
    np.where(scales > 1e-12 * np.maximum(np.abs(means), 1e-300), scales, 1.0).tolist(),
    gaps,
    gone.mean(0)[gaps].tolist() if gaps else [],
    sorted({*incomplete, *(int(i) for i in np.flatnonzero(whole))}),
    [_fit_categories(name, column, words[column]) for column in columns if kinds[column] == 'words'],
  )


def _blank(column: str) -> Categories:
  return Categories(column, [], [0.0])


def _width(column: str, table: Table) -> int:
  shapes = {v.shape for v in table.column(column).values if v is not None}
  if len(shapes) > 1 or len(next(iter(shapes))) != 1:
    raise InputError(
      f'column {column!r} is said to be a vector and holds arrays of shapes {", ".join(map(str, sorted(shapes)[:3]))};'
      f' expected lists of one length: say dream_jax.sequence({column!r})'
    )
  return next(iter(shapes))[0]


def _cells(v: Vectors, table: Table) -> tuple[np.ndarray, dict[str, np.ndarray], Any]:
  """(numbers [n, N] with NaN, words of each column of words, which rows [n] have nothing at all)."""
  if v.width:
    x = _lists(v, table)
  else:
    x = table.numbers(v.numbers)
  words = {c.column: _texts(c.column, table) for c in v.categories}
  empty = np.asarray(np.isnan(x).all(1))
  for cells in words.values():
    empty = empty & np.array([cell is None for cell in cells], bool)
  return x, words, empty


def _lists(v: Vectors, table: Table) -> np.ndarray:
  (column,) = v.columns
  held = table.column(column)
  x = np.full((table.size, v.width), np.nan)
  if held.kind == 'empty':
    return x
  if held.kind != 'nested':
    raise InputError(f'column {column!r} holds {SAID[held.kind]}; expected lists of {v.width} numbers, as in training')
  for row, cell in enumerate(held.values):
    if cell is None:
      continue
    if cell.shape != (v.width,):
      raise InputError(
        f'row {row} of column {column!r} has shape {cell.shape}; expected {v.width} numbers, as in training'
      )
    if np.isinf(cell).any():
      raise InputError(f'row {row} of column {column!r} holds infinity; expected numbers, or NaN where one is missing')
    x[row] = cell
  return x


def _texts(column: str, table: Table) -> np.ndarray:
  held = table.column(column)
  if held.kind in ('words', 'empty'):
    return np.array([v if isinstance(v, str) else None for v in held.values], object)
  if held.kind == 'numbers':
    return np.array([None if np.isnan(v) else as_word(v) for v in held.values], object)
  raise InputError(f'column {column!r} holds {SAID[held.kind]}; expected words, as in training')


def _fit_categories(name: str, column: str, cells: np.ndarray) -> Categories:
  present = [v for v in cells if v is not None]
  words = sorted(set(present))
  if len(words) > _MOST_CATEGORIES:
    raise InputError(
      f'column {column!r} of modality {name!r} holds {len(words)} different words; expected at most {_MOST_CATEGORIES}'
      f' categories: leave it out, or say dream_jax.text({column!r}) in a modality of its own'
    )
  shares = [float((cells == word).mean()) for word in words]
  return Categories(column, words, [*shares, 1.0 - len(present) / max(len(cells), 1)])


def _one_hot(c: Categories, cells: np.ndarray) -> np.ndarray:
  """[n, words and one], centred; whatever training had nothing like is the average of training."""
  place = {word: i for i, word in enumerate(c.words)}
  index = np.array([place.get(v, len(c.words)) for v in cells], int)
  shares = np.array(c.shares)
  made = np.eye(len(c.words) + 1)[index] - shares
  if c.shares[-1] == 0.0:
    made[index == len(c.words)] = 0.0
  return made


def _few(names: list[str]) -> str:
  more = f' and {len(names) - 3} others' if len(names) > 3 else ''
  return ', '.join(map(repr, names[:3])) + more


def restore(state: dict[str, Any]) -> Vectors:
  """What `dataclasses.asdict` made of one."""
  return Vectors(**{**state, 'categories': [Categories(**c) for c in state['categories']]})
