"""Targets of every task: what the label array may hold, and what becomes of it."""

import decimal
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from dream_jax.data.builders.folder.description import Description
from dream_jax.data.builders.folder.tables import NUMBERS, Table, as_text
from dream_jax.errors import UserError, did_you_mean
from dream_jax.spec import DatasetSpec

_LARGEST = float(np.finfo(np.float32).max)
# What libraries write for nothing when they turn a column into text.
_NOTHING = ('nan', 'NaN', 'NAN', 'None', 'NA', 'N/A', '<NA>', 'NaT', 'null', 'NULL')


def outputs_of(description: Description, tables: Sequence[Table]) -> tuple[int, tuple[str, ...]]:
  """(number of outputs, class names); classes that the user does not name are counted.

  Raises:
    UserError: the label array cannot be the target of this task.
  """
  task, classes = description.task, description.classes
  for table in tables:
    _check_layout(description, table)
  kinds = {table.layout(description.label).kind == 'text' for table in tables}
  if len(kinds) > 1:
    raise UserError(f'{description.path}: label {description.label!r} is text in some files and numbers in others')
  if classes and kinds == {False}:
    _check_places(description)
  if task in ('regression', 'binary'):
    return 1, classes
  if classes:
    return len(classes), classes
  first = tables[0].where(description.label)
  if kinds == {True}:
    found = {v for t in tables for _, value in _values(description, t) for v in np.atleast_1d(value).tolist()}
    if len(found) < 2:
      raise UserError(f'{first} holds {len(found)} different names; expected at least 2')
    _check_alike(found, first)
    return len(found), tuple(sorted(found))
  if task == 'multilabel':
    widths = {len(value) for t in tables for _, value in _values(description, t)}
    if len(widths) > 1 or max(widths, default=0) < 2:
      shown = ' and '.join(map(str, sorted(widths))) or 'no'
      raise UserError(f'{first} holds {shown} labels a sample; expected the same number everywhere, at least 2')
    return max(widths), ()
  seen = {_whole(value, t, description, row) for t in tables for row, value in _values(description, t)}
  count = max(seen, default=-1) + 1
  gap = next((c for c in range(count) if c not in seen), None)
  if count < 2 or min(seen) < 0 or gap is not None:
    found = f'{gap} never occurs, {count - 1} does' if gap is not None else f'found {_few(seen)}'
    raise UserError(f'{first}: {found}; expected classes 0, 1, 2 ...; number them so, or name all in classes = [...]')
  return count, ()


def read_labels(description: Description, spec: DatasetSpec, table: Table) -> np.ndarray:
  """Labels of one file: [N] int32 or float32 (regression), [N, C] float32 (multilabel).

  Raises:
    UserError: a label that is missing, or none of this task; the row is named.
  """
  convert = {'regression': _number, 'binary': _class, 'multiclass': _class, 'multilabel': _tags}[spec.task]
  floats = spec.task in ('regression', 'multilabel')
  shape = (table.num_rows, spec.num_outputs) if spec.task == 'multilabel' else (table.num_rows,)
  labels = np.zeros(shape, np.float32 if floats else np.int32)
  for row, value in _values(description, table):
    labels[row] = convert(value, spec, table, description, row)
  return labels


def _check_layout(description: Description, table: Table) -> None:
  """Refuses what can be refused without reading it."""
  task, layout, where = description.task, table.layout(description.label), table.where(description.label)
  text = layout.kind == 'text'
  if not text and layout.kind not in NUMBERS:
    raise UserError(f'{where} holds {layout.kind}; expected the target of task {task} as numbers or text')
  if text and task == 'regression':
    raise UserError(f'{where} holds text; expected numbers, the target of task regression')
  if text and task == 'binary' and not description.classes:
    raise UserError(f'{where} holds text; name what is 0 and what is 1 in {description.path}: classes = ["no", "yes"]')
  if task == 'multilabel':
    if len(layout.shape) != 1:
      expected = 'a list of names or of 0 and 1 a sample' if table.noun == 'column' else '[N, C] of 0 and 1'
      raise UserError(f'{where} has {len(layout.shape) + 1} axes; expected {expected}, the target of task multilabel')
    if text and table.noun == 'array':
      raise UserError(f'{where} holds text; expected [N, C] of 0 and 1, the target of task multilabel')
  elif layout.shape not in ((), (1,)):
    several = (
      '; say task = "multilabel" if several classes may hold, else turn one-hot rows into numbers with argmax(-1)'
    )
    hint = several if task == 'multiclass' else ''
    sizes = ', '.join('any' if n is None else str(n) for n in layout.shape)
    raise UserError(f'{where} has shape [N, {sizes}]; expected [N], one target a sample{hint}')


def _check_places(description: Description) -> None:
  """Refuses names of classes that are numbers, where labels are numbers too and stand for places."""
  for place, name in enumerate(description.classes):
    try:
      number = float(name)
    except ValueError:
      continue
    if number != place:
      raise UserError(
        f'{description.path}: class {name!r} stands at place {place} of classes, and the labels are numbers, which '
        f'mean places: {place} would be read as {name!r}; write labels as text, or call classes by words'
      )


def _check_alike(names: Iterable[str], where: str) -> None:
  """Refuses names that a reader cannot tell apart."""
  seen: dict[str, str] = {}
  for name in sorted(names):
    shown = ''.join(c for c in unicodedata.normalize('NFKC', name) if unicodedata.category(c) != 'Cf')
    other = seen.setdefault(' '.join(shown.split()), name)
    if other != name:
      raise UserError(
        f'{where} holds {other!r} and {name!r}, which look alike and would be two classes; write them the same way'
      )


def _values(description: Description, table: Table) -> Iterator[tuple[int, Any]]:
  """(row, label) of one file, a number, a text or a list of them."""
  for row, value in enumerate(table.values(description.label)):
    if description.task != 'multilabel' and isinstance(value, list):
      value = value[0]
    if value is None or (isinstance(value, list) and None in value):
      raise UserError(
        f'{table.where(description.label)} is null in row {row}; expected a target in every row: leave such rows out'
      )
    yield row, _plain(value, description, table, row)


def _plain(value: Any, description: Description, table: Table, row: int) -> Any:
  """Bytes as text and decimals as numbers, also inside a list; a name that says nothing is refused."""
  if isinstance(value, list):
    return [_plain(v, description, table, row) for v in value]
  if isinstance(value, decimal.Decimal):
    return int(value) if value == value.to_integral_value() else float(value)
  if not isinstance(value, str | bytes):
    return value
  text = as_text(value, table.where(description.label), row)
  if not text.strip():
    raise _fault(text, table, description, row, 'a target in every row: leave such rows out')
  if text in _NOTHING and text not in description.classes:
    raise _fault(
      text, table, description, row, 'a target in every row: leave such rows out, or name it in classes if it is one'
    )
  return text


def _fault(value: Any, table: Table, description: Description, row: int, expected: str) -> UserError:
  return UserError(f'{table.where(description.label)} is {value!r} in row {row}; expected {expected}')


def _number(value, spec, table, description, row) -> float:
  low, high = spec.label_range
  if not abs(value) <= _LARGEST:  # Also false for NaN.
    raise _fault(value, table, description, row, 'a finite number: leave such rows out')
  # As float32, which is what is stored: its 0.6 is a little more than 0.6.
  if low < high and not np.float32(low) <= np.float32(value) <= np.float32(high):
    raise _fault(value, table, description, row, f'label_range = [{low:g}, {high:g}]')
  return value


def _class(value, spec, table, description, row) -> int:
  count = max(2, spec.num_outputs)
  if isinstance(value, str):
    if value not in spec.class_names:
      raise _fault(value, table, description, row, f'one of the classes; {did_you_mean(value, spec.class_names)}')
    return spec.class_names.index(value)
  number = _whole(value, table, description, row)
  if not 0 <= number < count:
    names = ', places in classes (names as text may stand there too)' if spec.class_names else ''
    raise _fault(value, table, description, row, f'a whole number from 0 to {count - 1}{names}')
  return number


def _whole(value, table, description, row) -> int:
  if isinstance(value, str) or value % 1 != 0:  # Also true of NaN and infinities.
    raise _fault(value, table, description, row, 'a whole number, the class')
  return int(value)


def _tags(value, spec, table, description, row) -> np.ndarray:
  if any(isinstance(v, str) for v in value):
    unknown = [v for v in value if v not in spec.class_names]
    if unknown:
      meant = did_you_mean(str(unknown[0]), spec.class_names)
      raise _fault(unknown[0], table, description, row, f'names of classes; {meant}')
    return np.isin(spec.class_names, value)
  if not value and table.layout(description.label).kind == 'text':
    return np.zeros(spec.num_outputs)
  if len(value) != spec.num_outputs:
    where = f'{table.where(description.label)}, row {row}'
    raise UserError(f'{where} has {len(value)} labels; expected {spec.num_outputs}, each 0 or 1')
  for v in value:
    if v not in (0, 1):
      raise _fault(v, table, description, row, '0 or 1 for every label')
  return np.array(value)


def _few(values) -> str:
  values = sorted(values)
  return ', '.join(map(str, values[:4])) + (' ...' if len(values) > 4 else '') if values else 'nothing'
