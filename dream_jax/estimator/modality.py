"""Which columns are one modality, and of which kind: said by the user, or found from what the columns hold."""

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dream_jax.errors import InputError, did_you_mean
from dream_jax.estimator.table import SAID, Column, Table

KINDS = ('vector', 'text', 'sequence', 'image')
# A column of text with at most so many different values may be a list of categories.
_FEW = 20
_SAY = 'say dream_jax.{0}({2!r}) or dream_jax.{1}({2!r})'


@dataclasses.dataclass(frozen=True)
class Modality:
  """Columns that are one modality.

  Attributes:
    columns: names of columns, or wildcards; of one of these columns for all kinds but 'vector'.
    kind: 'vector', 'text', 'sequence' or 'image'; '' to find it from the content.
    max_length: steps of a sequence or words of a text that are read, from the start; None for the longest of training,
      and 256 words at most.
    vocabulary: how many different words of a text are told apart at most.
  """

  columns: tuple[str, ...]
  kind: str = ''
  max_length: int | None = None
  vocabulary: int = 20_000

  def __post_init__(self):
    if self.kind not in ('', *KINDS):
      raise InputError(f'a modality has kind {self.kind!r}; {did_you_mean(self.kind, KINDS)}')
    if not self.columns:
      raise InputError('a modality has no columns; expected at least one name')
    for field, least in (('max_length', 1), ('vocabulary', 3)):
      value = getattr(self, field)
      if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise InputError(f'{field} of a modality is {value!r}; expected a whole number from {least} on')


def vector(*columns: str) -> Modality:
  """Columns of numbers or categories, or one column of lists of equal length, as one vector."""
  return Modality(_names(columns), 'vector')


def text(column: str, *, max_length: int | None = None, vocabulary: int = 20_000) -> Modality:
  """A column of text, as words; see `Modality`."""
  return Modality(_names((column,)), 'text', max_length, vocabulary)


def sequence(column: str, *, max_length: int | None = None) -> Modality:
  """A column of lists [T] or arrays [T, D], whose T may differ; see `Modality`."""
  return Modality(_names((column,)), 'sequence', max_length)


def image(column: str) -> Modality:
  """A column of pictures [H, W] or [H, W, C] of one size."""
  return Modality(_names((column,)), 'image')


def resolve(modalities: Mapping[str, Any] | None, table: Table) -> dict[str, Modality]:
  """Name -> modality with the columns of this table and its kind; one vector of everything where nothing is said.

  Raises:
    InputError: a name that no column has, a column in two modalities, or a kind that has to be said.
  """
  if modalities is None:
    return {'x': Modality(tuple(table.names), 'vector')}
  if not isinstance(modalities, Mapping) or not modalities:
    raise InputError(
      f"modalities is {modalities!r}; expected a dict such as {{'labs': ['lab_*', 'age'], 'note': 'text_column'}}"
    )
  found, owner = {}, {}
  for name, given in modalities.items():
    said = _declared(str(name), given)
    columns = _matched(str(name), said.columns, table)
    for column in columns:
      if column in owner:
        raise InputError(
          f'column {column!r} is in the modalities {owner[column]!r} and {name!r}; expected each column once'
        )
      owner[column] = str(name)
    found[str(name)] = dataclasses.replace(said, columns=columns, kind=_kind(str(name), said.kind, columns, table))
  return found


def _names(columns: Iterable[Any]) -> tuple[str, ...]:
  return tuple(str(c) for group in columns for c in (group if isinstance(group, (list, tuple, range)) else (group,)))


def _declared(name: str, given: Any) -> Modality:
  if isinstance(given, Modality):
    return given
  if isinstance(given, (str, int, np.integer)):
    return Modality((str(given),))
  if isinstance(given, Mapping):
    known = [field.name for field in dataclasses.fields(Modality)]
    for key in given:
      if key not in known:
        raise InputError(f'modality {name!r} has an entry {key!r}; {did_you_mean(str(key), known)}')
    if 'columns' not in given:
      raise InputError(f"modality {name!r} names no columns; expected {{'columns': [...], 'kind': ...}}")
    columns = given['columns']
    return Modality(**{**given, 'columns': _names((columns,) if isinstance(columns, str) else columns)})
  if isinstance(given, Iterable):
    return Modality(_names(given))
  raise InputError(
    f'modality {name!r} is {given!r}; expected a column, a list of columns, or dream_jax.text(...) and such'
  )


def _matched(name: str, patterns: tuple[str, ...], table: Table) -> tuple[str, ...]:
  """The columns that names and wildcards mean, each once; a name that is there is no wildcard."""
  found: dict[str, None] = {}
  for pattern in patterns:
    here = [pattern] if pattern in table else fnmatch.filter(table.names, pattern) if _wild(pattern) else []
    here = [column for column in table.names if column in set(here)]
    if not here:
      what = 'matches no column' if _wild(pattern) else 'is no column'
      raise InputError(f'modality {name!r}: {pattern!r} {what}; {did_you_mean(pattern, table.names)}')
    found.update(dict.fromkeys(here))
  return tuple(found)


def _wild(pattern: str) -> bool:
  return any(sign in pattern for sign in '*?[')


def _kind(name: str, said: str, columns: tuple[str, ...], table: Table) -> str:
  if said and said != 'vector' and len(columns) > 1:
    raise InputError(
      f'modality {name!r} is {said} of {len(columns)} columns; expected one column: several make a vector'
    )
  if len(columns) > 1:
    for column in columns:
      if table.column(column).kind == 'nested':
        raise InputError(
          f'modality {name!r}: column {column!r} holds lists or arrays; expected numbers or words: give it a'
          ' modality of its own'
        )
    return 'vector'
  column = next(iter(columns))
  held = table.column(column)
  if said:
    fitting = {'vector': ('numbers', 'words', 'nested'), 'text': ('words',)}.get(said, ('nested',))
    if held.kind not in fitting and held.kind != 'empty':
      raise InputError(
        f'modality {name!r} is said to be {said}, and column {column!r} holds {SAID[held.kind]}; expected'
        f' {" or ".join(SAID[kind] for kind in fitting)}'
      )
    return said
  return _found(column, held)


def _found(column: str, held: Column) -> str:
  """The kind of one column, from its cells."""
  if held.kind == 'empty':
    raise InputError(f'column {column!r} holds nothing in any training row; expected some value: leave it out')
  if held.kind == 'numbers' or held.categories:
    return 'vector'
  if held.kind == 'words':
    return _words_or_category(column, [v for v in held.values if v is not None])
  cells = [v for v in held.values if v is not None]
  shapes = {v.shape for v in cells}
  rank = cells[0].ndim
  if rank == 1:
    return 'vector' if len(shapes) == 1 else 'sequence'
  if rank == 2:
    if len(shapes) > 1 and len({shape[1] for shape in shapes}) == 1:
      return 'sequence'
    if len(shapes) == 1 and held.integers:
      return 'image'
    if len(shapes) == 1:
      raise InputError(
        f'column {column!r} holds arrays of shape {shapes.pop()}, which may be sequences or grey pictures;'
        f' {_SAY.format("sequence", "image", column)}'
      )
  if rank == 3 and len(shapes) == 1:
    return 'image'
  sizes = ', '.join(map(str, sorted(shapes)[:3]))
  raise InputError(
    f'column {column!r} holds arrays of different shapes ({sizes}, ...); expected pictures of one size or sequences of'
    ' one width: bring them to one size'
  )


def _words_or_category(column: str, values: list[str]) -> str:
  different = len(set(values))
  wordy = sum(len(re.findall(r'\w+', value)) > 1 for value in values) > len(values) / 2
  many = different > _FEW or different > len(values) / 2
  if wordy and many:
    return 'text'
  if not wordy and different <= max(_FEW, len(values) // 10) and different <= len(values) / 2:
    return 'vector'
  raise InputError(
    f'column {column!r} holds {different} different texts in {len(values)} rows, such as {values[0][:40]!r}, which may'
    f' be words or categories; {_SAY.format("text", "vector", column)}'
  )
