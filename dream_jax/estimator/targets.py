"""Labels of any type, and which rows are validation."""

from typing import Any

import numpy as np

from dream_jax.errors import InputError

# Whole numbers with more different values than this may be amounts.
_MOST_CLASSES = 20


def classes_of(y: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
  """(classes, sorted; index of every label).

  Raises:
    InputError: a label is missing or a fraction, there are no two classes, or there are more or fewer than `size`.
  """
  y = _column(y, size)
  if y.dtype.kind == 'f' and (y != np.floor(y)).any():
    row = int(np.argmax(y != np.floor(y)))
    raise InputError(
      f'Unknown label type: continuous (row {row} is {y[row]:g}); expected classes: for amounts use DreamRegressor'
    )
  if y.dtype.kind == 'O' and len({type(v) for v in y}) > 1 and not all(isinstance(v, str) for v in y):
    found = ', '.join(sorted({type(v).__name__ for v in y}))
    raise InputError(f'Unknown label type: labels are of several types ({found}); expected one')
  if y.dtype.kind not in 'biufUSO':
    raise InputError(f'Unknown label type: labels are {y.dtype}; expected text, whole numbers or booleans')
  classes, codes = np.unique(y, return_inverse=True)
  if len(classes) < 2:
    raise InputError(f'y holds 1 class, {classes[0]!r}; expected at least two classes')
  return classes, codes.astype(np.int32)


def amounts_of(y: Any, size: int) -> np.ndarray:
  """Labels of a regression, float64 [n].

  Raises:
    InputError: a label is missing or no finite number, or there are more or fewer than `size`.
  """
  y = _column(y, size)
  try:
    y = y.astype(np.float64)
  except (TypeError, ValueError):
    raise InputError(f'y holds {y[0]!r}; expected numbers: for classes use DreamClassifier') from None
  if not (np.abs(y) < np.finfo(np.float32).max).all():
    row = int(np.argmax(~(np.abs(y) < np.finfo(np.float32).max)))
    raise InputError(f'label {row} is {y[row]:g} (infinity or too large for float32); expected another unit')
  return y


def is_classes(y: Any, size: int, name: str) -> bool:
  """Whether labels are classes rather than amounts, where nobody says so.

  Raises:
    InputError: they may be either.
  """
  y = _column(y, size)
  if y.dtype.kind not in 'iuf':
    return True
  if y.dtype.kind == 'f' and (y != np.floor(y)).any():
    return False
  different = len(np.unique(y))
  if different <= _MOST_CLASSES and different <= max(2, len(y) / 5):
    return True
  raise InputError(
    f'target {name!r} holds {different} different whole numbers, which may be classes or amounts; say'
    " task='classification' or task='regression'"
  )


def groups_of(groups: Any, size: int) -> np.ndarray | None:
  """Index of the group of every row, None where there are none."""
  if groups is None:
    return None
  values = _column(groups, size, 'groups')
  return np.unique(values.astype(str), return_inverse=True)[1]


def validation_rows(
  codes: np.ndarray | None, groups: np.ndarray | None, *, size: int, fraction: float, seed: int
) -> np.ndarray:
  """Which rows are validation, bool [n]: of every class its share, or whole groups.

  Of a class with one sample, training has it. A group is never in both.

  Raises:
    InputError: too few rows or groups for two parts.
  """
  rng = np.random.default_rng(seed)
  chosen = np.zeros(size, bool)
  if groups is not None:
    sizes = np.bincount(groups)
    if len(sizes) < 2:
      raise InputError('groups holds 1 group; expected at least two: validation takes whole groups')
    order = rng.permutation(len(sizes))
    reached = np.cumsum(sizes[order]) - sizes[order] / 2  # As near to the fraction as whole groups come.
    taken = order[: max(1, min(int((reached < fraction * size).sum()), len(sizes) - 1))]
    chosen = np.isin(groups, taken)
  else:
    parts = [np.arange(size)] if codes is None else [np.flatnonzero(codes == c) for c in np.unique(codes)]
    owed = 0.0
    for rows in sorted(parts, key=len):
      wanted = fraction * len(rows) + owed
      take = max(0, min(round(wanted), len(rows) - 1))
      owed = wanted - take
      chosen[rng.permutation(rows)[:take]] = True
  if not chosen.any():
    order = rng.permutation(size)
    counts = None if codes is None else np.bincount(codes)
    spare = [row for row in order if counts is None or counts[codes[row]] > 1]  # pyright: ignore[reportOptionalSubscript]
    if size < 2 or not spare:
      raise InputError(f'X has {size} sample{"s" * (size != 1)}; expected more: some train, others validate')
    chosen[spare[0]] = True
  if codes is not None and len(np.unique(codes[~chosen])) < len(np.unique(codes)):
    raise InputError(
      'a class is in no group that trains; expected every class in several groups: give fewer rows to'
      ' validation, or another random_state'
    )
  return chosen


def _column(y: Any, size: int, what: str = 'y') -> np.ndarray:
  """One label for each of `size` samples, none missing."""
  if y is None:
    raise InputError('requires y to be passed, but the target y is None')
  if hasattr(y, 'to_list') and not hasattr(y, 'iloc'):  # Polars.
    y = y.to_list()
  values = np.asarray(y)
  if values.dtype.kind == 'V' or values.dtype.kind == 'c':
    raise InputError(f'{what} holds {values.dtype}; Complex data not supported; expected labels')
  if values.ndim == 2 and values.shape[1] == 1:
    values = values[:, 0]
  if values.ndim != 1:
    raise InputError(f'{what} has shape {values.shape}; expected one label for each sample, ({size},)')
  if len(values) != size:
    raise InputError(f'{what} has {len(values)} labels and X {size} samples; they are inconsistent; expected as many')
  if values.dtype.kind == 'O':
    lost = np.array([v is None or type(v).__name__ in ('NAType', 'NaTType') or v != v for v in values], bool)
  else:
    lost = np.isnan(values) if values.dtype.kind == 'f' else np.zeros(len(values), bool)
  if lost.any():
    more = f' (and {lost.sum() - 1} more)' if lost.sum() > 1 else ''
    raise InputError(
      f'{what} is missing (NaN) in row {int(np.argmax(lost))}{more}; expected a label: leave such rows out'
    )
  if values.dtype.kind == 'f' and np.isinf(values).any():
    raise InputError(f'{what} is infinity in row {int(np.argmax(np.isinf(values)))}; expected a number')
  if values.dtype.kind == 'O' and len({type(v) for v in values}) == 1 and not isinstance(values[0], str):
    return np.asarray(values.tolist())  # Numbers that came as objects.
  return values
