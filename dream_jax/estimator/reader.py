"""All modalities of a table: fitted on training rows, then the same numbers for every table."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dream_jax.errors import InputError, near
from dream_jax.estimator import arrays, vectors, words
from dream_jax.estimator.modality import resolve
from dream_jax.estimator.notes import Notes
from dream_jax.estimator.table import Table
from dream_jax.spec import ModalitySpec

_RESTORE = {'vector': vectors.restore, 'tokens': words.restore, 'sequence': arrays.restore, 'image': arrays.restore}
# Where a model has one modality: the engine knows no fewer than two, and this one never holds anything.
ALONE = 'nothing'


class Reader:
  """What turns tables into the inputs of a model.

  Attributes:
    parts: name of a modality -> what reads its columns.
    columns: all columns of the training table, whether they are used or not.
    plain: whether they had no names.
    notes: what has been said.
  """

  def __init__(self, parts: Mapping[str, Any], columns: list[str], *, plain: bool):
    self.parts, self.columns, self.plain = dict(parts), columns, plain
    self.notes = Notes()

  @property
  def used(self) -> list[str]:
    """The columns that some modality reads."""
    return [column for part in self.parts.values() for column in _columns(part)]

  @property
  def modalities(self) -> tuple[ModalitySpec, ...]:
    """As models see them; there are always two."""
    made = [
      ModalitySpec(name, part.kind, part.shape, vocab_size=getattr(part, 'vocab_size', 0), key=f'slot{i}')
      for i, (name, part) in enumerate(self.parts.items())
    ]
    if len(made) == 1:
      made.append(ModalitySpec(f'{ALONE}_{made[0].name}', 'vector', (1,), key='slot1'))
    return tuple(made)

  def inputs(self, table: Table) -> dict[str, np.ndarray]:
    """Name -> array [n, ...] of every modality, with lengths; what is missing is zeros, of length 0.

    Raises:
      InputError: the table has other columns, or columns hold other things than in training.
    """
    table = self._checked(table)
    made: dict[str, np.ndarray] = {}
    for name, part in self.parts.items():
      made |= part.read(name, table, self.notes)
    if len(self.parts) == 1:
      made[self.modalities[1].name] = np.zeros((table.size, 1), np.float32)
    return made

  def state(self) -> dict[str, Any]:
    """Everything as JSON has it."""
    parts = [{'name': name, 'kind': p.kind, 'fit': dataclasses.asdict(p)} for name, p in self.parts.items()]
    return {'parts': parts, 'columns': self.columns, 'plain': self.plain}

  def describe(self) -> str:
    """The modalities in a line, such as 'labs vector [12], note text [40 words]'."""
    return ', '.join(f'{name} {_said(part)}' for name, part in self.parts.items())

  def _checked(self, table: Table) -> Table:
    """The table with the columns of training: by place where one of the two had no names, else by name."""
    if self.plain or table.plain:
      if len(table.names) != len(self.columns):
        raise InputError(
          f'X has {len(table.names)} features; expected {len(self.columns)} features as input, as in training'
        )
      return table.renamed(self.columns)
    absent = [column for column in self.used if column not in table]
    new = [name for name in table.names if name not in set(self.columns)]
    for column in absent:
      meant = near(column, new)
      if meant:
        raise InputError(
          f'X has no column {column!r}, and has {meant[0]!r}, which training had not; did you mean that? rename it, or'
          f' leave it out to have {column!r} count as missing'
        )
    if len(absent) == len(self.used):
      few = ', '.join(map(repr, self.used[:5]))
      raise InputError(f'X has none of the columns that the model reads; expected some of {few}')
    return table


def fit_reader(
  modalities: Mapping[str, Any] | None, table: Table, train: np.ndarray, *, indicators: bool
) -> tuple[Reader, list[str]]:
  """(the reader of a table, columns that no modality uses); kinds are found from all rows, the rest from `train`.

  Raises:
    InputError: see `modality.resolve`; or a modality holds nothing in the training rows.
  """
  known = resolve(modalities, table)
  used = list(dict.fromkeys(column for modality in known.values() for column in modality.columns))
  part = table.taken(train, used)
  reader = Reader({}, table.names, plain=table.plain)
  for name, modality in known.items():
    if modality.kind == 'vector':
      made: Any = vectors.fit_vectors(name, modality, part, reader.notes, indicators=indicators)
    elif modality.kind == 'text':
      made = words.fit_texts(name, modality, part)
    else:
      made = arrays.fit_arrays(name, modality, part)
    reader.parts[name] = made
  return reader, [name for name in table.names if name not in used]


def restore_reader(state: Mapping[str, Any]) -> Reader:
  """What `Reader.state` made of one."""
  parts = {p['name']: _RESTORE[p['kind']](p['fit']) for p in state['parts']}
  return Reader(parts, list(state['columns']), plain=state['plain'])


def _columns(part: Any) -> list[str]:
  return part.columns if isinstance(part, vectors.Vectors) else [part.column]


def _said(part: Any) -> str:
  if part.kind == 'tokens':
    return f'text [{part.shape[0]} words]'
  return f'{part.kind} [{", ".join(map(str, part.shape))}]'
