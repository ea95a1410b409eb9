"""What a folder of data holds: shapes, classes and vocabulary, known before any sample is written.

Only headers are read, and where a format does not tell: sizes of lists (Parquet), labels and token ids.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dream_jax.data.builders.folder import labels
from dream_jax.data.builders.folder.description import Description, Modality, length_names
from dream_jax.data.builders.folder.formats import open_table
from dream_jax.data.builders.folder.tables import NULL_TOKEN, NUMBERS, Table, Wanted
from dream_jax.errors import UserError
from dream_jax.machine import memory
from dream_jax.spec import DatasetSpec, ModalitySpec

_AXES = {
  'sequence': '[N, T, D], or [N, T] for D = 1',
  'vector': '[N, D], or [N] for D = 1',
  'tokens': '[N, T]',
  'image': '[N, H, W, C], or [N, H, W] for C = 1',
}
_MOST_IDS = 2**31 - 1  # Ids are int32.
_ID_BYTES = 4 * 32 * 6  # Of one row of a table of vectors, its averages and its optimizer, at the default width.
# How to make numbers of what has some.
_CONVERT = {
  'time': '; write them as numbers, such as days since the first',
  'structs': '; write each field as a column, or all as one list',
  'text': '; write text as token ids, categories as numbers',
}
_RANKS = {'sequence': 2, 'vector': 1, 'tokens': 1, 'image': 3}


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
  """A folder of data whose files fit its description and each other.

  Attributes:
    description: what the user says.
    tables: the data files.
    spec: the contract with the models.
  """

  description: Description
  tables: tuple[Table, ...]
  spec: DatasetSpec

  def wanted(self, name: str) -> Wanted:
    """How the array of a modality is to be read."""
    modality = next(m for m in self.description.modalities if m.name == name)
    spec = self.spec.modalities[self.spec.index(name)]
    return Wanted(modality.array, spec.shape, modality.kind == 'tokens')


def survey_folder(description: Description) -> Survey:
  """Opens the files of a description.

  Raises:
    UserError: a file that is damaged, lacks an array, or does not fit the others.
  """
  tables = tuple(open_table(path) for path in description.files)
  for table in tables:
    _check_arrays(description, table)
  for modality in description.modalities:
    if modality.has_length:
      _check_lengths_of_files(modality, tables)
  if not any(table.num_rows for table in tables):
    raise UserError(f'{description.folder} holds no sample; expected rows in {", ".join(description.files)}')
  num_outputs, class_names = labels.outputs_of(description, tables)
  spec = DatasetSpec(
    name=description.name,
    modalities=tuple(
      dataclasses.replace(_modality_spec(m, tables), key=f'slot{i}') for i, m in enumerate(description.modalities)
    ),
    task=description.task,
    num_outputs=num_outputs,
    data_kind=description.data_kind,
    class_names=class_names,
    label_range=description.label_range,
  )
  return Survey(description, tables, spec)


def length_array(modality: Modality, table: Table) -> str | None:
  """The array that holds the lengths of a modality, or None.

  Raises:
    UserError: the array that the user names is not there.
  """
  if modality.length:
    table.layout(modality.length)
    return modality.length
  return next((name for name in length_names(modality) if name in table.layouts), None)


def row_lengths(modality: Modality, wanted: Wanted, table: Table) -> np.ndarray:
  """Length of every row of a sequence or of tokens, [N] int64, not yet cut; 0 where there is nothing.

  It is what the length array says; without one, the number of entries of a list; and where the file stores rows padded
  to one size, the place of the last frame that holds something else than zeros and NaN.

  Raises:
    UserError: a length that is no whole number or longer than the row.
  """
  name = length_array(modality, table)
  if name:
    most = table.lengths(modality.array)
    lengths = np.zeros(len(most), np.int64)
    for row, value in enumerate(table.values(name)):
      if value is None or not most[row]:
        continue
      if value % 1 != 0 or not 0 <= value <= most[row]:  # Also true of NaN and infinities.
        raise UserError(f'{table.where(name)} is {value!r} in row {row}; expected a whole number from 0 to {most[row]}')
      lengths[row] = int(value)
    return lengths
  layout = table.layout(modality.array)
  if layout.kind == 'null' or layout.shape[0] is None:
    return table.lengths(modality.array)
  lengths = np.zeros(table.num_rows, np.int64)
  for row, (frames,) in enumerate(table.rows([wanted])):
    content = (frames != 0) if wanted.integers else (frames != 0) & ~np.isnan(frames)
    filled = np.flatnonzero(content.any(tuple(range(1, content.ndim))))
    lengths[row] = filled[-1] + 1 if len(filled) else 0
  return lengths


def _check_arrays(description: Description, table: Table) -> None:
  """Refuses a file that lacks an array or holds one of another kind or number of axes."""
  others = [m.array for m in description.modalities]
  others += [n for m in description.modalities if m.has_length and (n := length_array(m, table))]
  others += [n for n in (description.id, description.group, description.split_column) if n]
  table.expect_rows(description.label, others)
  for m in description.modalities:
    layout, rank = table.layout(m.array), _RANKS[m.kind]
    if layout.kind == 'null':  # What a Parquet column without any value is; other files may have some.
      continue
    if layout.kind not in (('integer',) if m.kind == 'tokens' else NUMBERS):
      expected = 'whole numbers, the ids of tokens' if m.kind == 'tokens' else 'numbers'
      how = _CONVERT.get(layout.kind.split()[0], '')
      found = _called(layout.kind)
      raise UserError(f'{table.where(m.array)} holds {found}; expected {expected} (modality {m.name}){how}')
    axes = len(layout.shape)
    if axes != rank and (m.kind == 'tokens' or axes != rank - 1):
      found = 'rows of lists nested ' + str(axes) + ' deep' if table.noun == 'column' else f'{axes + 1} axes'
      nested = f' (lists nested {rank} deep)' if table.noun == 'column' else ''
      raise UserError(f'{table.where(m.array)} has {found}; expected {_AXES[m.kind]}{nested} for kind {m.kind}')
    length = length_array(m, table) if m.has_length else None
    if length and (table.layout(length).kind not in ('integer', 'number') or table.layout(length).shape):
      raise UserError(f'{table.where(length)} is no list of lengths; expected one whole number a sample')
  for name in (description.id, description.group, description.split_column):
    if name and (table.layout(name).kind not in ('integer', 'text', 'time') or table.layout(name).shape):
      found = _called(table.layout(name).kind)
      raise UserError(f'{table.where(name)} holds {found}; expected one text or whole number a sample')


def _check_lengths_of_files(modality: Modality, tables: Sequence[Table]) -> None:
  """Refuses lengths in some files and none in others: one of the two is a slip."""
  names = [length_array(modality, table) for table in tables]
  with_lengths = next((name for name in names if name), None)
  if with_lengths and None in names:
    lacking, having = tables[names.index(None)], tables[names.index(with_lengths)]
    raise UserError(
      f'{lacking.path} has no {lacking.noun} {with_lengths!r}, and {having.path} has; expected it in all files or none'
    )


def _modality_spec(modality: Modality, tables: Sequence[Table]) -> ModalitySpec:
  """The spec of one modality: its shape is that of all files, time as long as the longest."""
  rank, ragged = _RANKS[modality.kind], modality.has_length
  filled = [t for t in tables if t.num_rows and t.layout(modality.array).kind != 'null']
  shapes = {table: table.sizes(modality.array, rank) for table in filled}
  # A file whose lists are all empty tells nothing.
  shapes = {table: shape for table, shape in shapes.items() if min(shape)}
  if not shapes:
    raise UserError(f'{tables[0].where(modality.array)} holds nothing in any row; expected a {modality.kind}')
  first = next(iter(shapes))
  for table, shape in shapes.items():
    if shape[ragged:] != shapes[first][ragged:]:
      raise UserError(
        f'{table.where(modality.array)} has samples of shape {shape} and {first.path} of {shapes[first]}; expected the '
        f'same{" but for the time" if ragged else ""}'
      )
  shape = shapes[first]
  if ragged:
    shape = (modality.max_length or max(s[0] for s in shapes.values()), *shape[1:])
  if modality.kind != 'tokens':
    return ModalitySpec(modality.name, modality.kind, shape)
  count = modality.vocab_size or max(_highest_token(modality, shape, t) for t in tables) + 1
  count, where = max(count, modality.unk_id + 1), tables[0].where(modality.array)
  if count > _MOST_IDS:
    raise UserError(f'{where}: {count} token ids; expected at most {_MOST_IDS}: number the words that occur from 2')
  what = f'{where}: a table of {count} token ids (number the words that occur from 2)'
  memory.require(_ID_BYTES * count, what)
  return ModalitySpec(modality.name, 'tokens', shape, count, modality.unk_id)


def _highest_token(modality: Modality, shape: tuple[int, ...], table: Table) -> int:
  wanted = Wanted(modality.array, shape, integers=True)
  lengths = row_lengths(modality, wanted, table)
  inside = (ids[:n] for n, (ids,) in zip(lengths, table.rows([wanted]), strict=True) if n)
  return max((int(ids.max()) for ids in inside), default=NULL_TOKEN)


def _called(kind: str) -> str:
  words = {'integer': 'whole numbers', 'number': 'numbers with a fraction', 'boolean': 'true and false'}
  return {**words, 'time': 'dates or times'}.get(kind, kind)
