"""Which sample goes where: ids, splits, labels and lengths of all rows, before the first is written."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from dream_jax.data.builders.folder import labels
from dream_jax.data.builders.folder.description import SPLITS, Description, split_named
from dream_jax.data.builders.folder.survey import Survey, row_lengths
from dream_jax.data.builders.folder.tables import Table, as_text
from dream_jax.errors import UserError

_FEWEST = 2  # Samples of a split: a swap needs another sample to take from.


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """What is known of the N rows of one file.

  Attributes:
    ids: [N].
    groups: [N], whose equal values share a split; the ids where there are no groups.
    splits: place in SPLITS, [N] int8.
    labels: [N] or [N, C].
    absent: modality -> which samples lack it, bool [N].
    lengths: modality -> frames or tokens that are kept, [N] int64, at least 1: a sample that lacks the modality has the
      length of another.
    declared: modality -> frames or tokens that its source says a sample has, [N] int64.
    cut: modality -> number of samples longer than its max_length.
  """

  ids: list[str]
  groups: list[str]
  splits: np.ndarray
  labels: np.ndarray
  absent: dict[str, np.ndarray]
  lengths: dict[str, np.ndarray]
  declared: dict[str, np.ndarray]
  cut: dict[str, int]


def make_index(survey: Survey) -> list[Rows]:
  """What is known of the rows of every file.

  Raises:
    UserError: ids that repeat, a split that gets too few samples, a group in two splits, or a label, length or name
      that is wrong.
  """
  homes: dict[str, str] = {}
  index = [_rows_of(survey, table, homes) for table in survey.tables]
  _check_ids(survey, index)
  counts = split_sizes(index)
  for split, count in counts.items():
    if count < _FEWEST:
      whole = 'groups' if survey.description.group else 'samples'
      raise UserError(
        f'{survey.description.path}: split {split} gets {count} of {sum(counts.values())} samples; expected at least '
        f'{_FEWEST}: give more {whole}, or change splits'
      )
  for modality in survey.description.modalities:
    if modality.has_length:
      _borrow_lengths(modality.name, survey.spec.modalities[survey.spec.index(modality.name)].shape[0], index)
  return index


def split_sizes(index: list[Rows]) -> dict[str, int]:
  """Split -> number of its samples."""
  splits = np.concatenate([rows.splits for rows in index])
  return {split: int((splits == i).sum()) for i, split in enumerate(SPLITS)}


def position(text: str) -> float:
  """Where in [0, 1) a sample or group stands when fractions decide; a function of its name alone."""
  digest = hashlib.sha256(f'split\0{text}'.encode()).digest()
  return int.from_bytes(digest[:7], 'little') / 2**56  # 56 bits: a float64 below 1.


def _rows_of(survey: Survey, table: Table, homes: dict[str, str]) -> Rows:
  """Of one file; `homes`, group -> split, grows from file to file."""
  description = survey.description
  ids = list(_names(description.id, table)) if description.id else _places(description, table)
  groups = list(_names(description.group, table)) if description.group else ids
  splits = list(_splits(description, table, groups))
  if description.group:
    for row, (group, split) in enumerate(zip(groups, splits, strict=True)):
      if homes.setdefault(group, split) != split:
        raise UserError(
          f'{table.where(description.group)}: row {row} puts group {group!r} into split {split}, other rows into '
          f'{homes[group]}; expected one split a group: change splits, or remove group from {description.path}'
        )
  absent, lengths, declared, cut = {}, {}, {}, {}
  for modality in description.modalities:
    name = modality.name
    if modality.has_length:
      found = row_lengths(modality, survey.wanted(name), table)
      most = survey.spec.modalities[survey.spec.index(name)].shape[0]
      declared[name] = found
      lengths[name], cut[name] = np.minimum(found, most), int((found > most).sum())
      absent[name] = found == 0
    else:
      absent[name] = table.absent(modality.array)
  return Rows(
    ids=ids,
    groups=groups,
    splits=np.array([SPLITS.index(split) for split in splits], np.int8),
    labels=labels.read_labels(description, survey.spec, table),
    absent=absent,
    lengths=lengths,
    declared=declared,
    cut=cut,
  )


def _places(description: Description, table: Table) -> list[str]:
  """FILE:ROW of every row."""
  name = description.relative(table.path)
  return [f'{name}:{row}' for row in range(table.num_rows)]


def _names(name: str, table: Table) -> Iterator[str]:
  """Every row of an array of texts or whole numbers, as text."""
  for row, value in enumerate(table.values(name)):
    text = as_text(value, table.where(name), row)
    if value is None or not text.strip():
      raise UserError(f'{table.where(name)} is empty in row {row}; expected a text or whole number in every row')
    yield text


def _splits(description: Description, table: Table, groups: list[str]) -> Iterator[str]:
  """The split of every row; `groups` are ids where there are no groups."""
  if description.split_column:
    for row, text in enumerate(_names(description.split_column, table)):
      split = split_named(text)
      if split is None:
        where = table.where(description.split_column)
        raise UserError(f'{where} is {text!r} in row {row}; expected train, validation (valid, val, dev) or test')
      yield split
    return
  named = description.files[table.path]
  share = description.fractions
  for group in groups:
    if named is None:
      place = position(group)
      rest = 'validation' if place < share['train'] + share['validation'] else 'test'
      yield 'train' if place < share['train'] else rest
    else:
      yield 'validation' if named == 'train' and position(group) < share.get('validation', 0) else named


def _check_ids(survey: Survey, index: list[Rows]) -> None:
  """Refuses an id that names two samples."""
  places: dict[str, str] = {}
  for table, rows in zip(survey.tables, index, strict=True):
    for row, name in enumerate(rows.ids):
      place = f'{table.path} row {row}'
      if places.setdefault(name, place) != place:
        raise UserError(f'id {name!r} names two samples, {places[name]} and {place}; expected every id once')


def _borrow_lengths(name: str, longest: int, index: list[Rows]) -> None:
  """Gives each sample that lacks the modality the length of one of its split that has it.

  Its own is not known, and zero would tell that something is missing. The draw is a function of the id.
  """
  for split in range(len(SPLITS)):
    present = np.concatenate([r.lengths[name][(r.splits == split) & ~r.absent[name]] for r in index])
    for rows in index:
      for row in np.flatnonzero((rows.splits == split) & rows.absent[name]):
        drawn = int(position(f'{name}\0{rows.ids[row]}') * len(present))
        rows.lengths[name][row] = present[drawn] if len(present) else longest
