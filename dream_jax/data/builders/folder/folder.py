"""The user's own data as a TFDS data set: a folder with `dataset.toml` and .npz or Parquet files.

`description` reads what the user says, `tables` what the files hold, `survey` makes the `DatasetSpec` of both, `index`
decides what goes where; here samples are written. Memory holds labels, ids and lengths, and of features a few rows.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from typing import ClassVar, cast

import numpy as np
import tensorflow_datasets as tfds

from dream_jax.data import raw_inputs, seals
from dream_jax.data.builders.base import ModalityBuilder
from dream_jax.data.builders.folder.description import FILE, SPLITS, Description, Modality, read_description
from dream_jax.data.builders.folder.index import Rows, make_index, split_sizes
from dream_jax.data.builders.folder.survey import Survey, length_array, survey_folder
from dream_jax.data.builders.folder.tables import NULL_TOKEN, Resolution
from dream_jax.errors import UserError
from dream_jax.spec import DatasetSpec, ModalitySpec


@dataclasses.dataclass(eq=False)
class FolderConfig(tfds.core.BuilderConfig):
  """One folder as it is now; its name changes with `dataset.toml` and with the data files."""

  survey: Survey | None = None


class Folder(ModalityBuilder):
  """Two or more modalities of any kind, and any task."""

  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First version.', '1.1.0': 'Groups are extras.'}
  DESCRIPTION = f"""
  A folder of the user's own data: .npz or Parquet files, and a `{FILE}` that says what they hold.
  """

  @property
  def _survey(self) -> Survey:
    found = cast(FolderConfig, self.builder_config).survey
    assert found is not None
    return found

  @property
  def dataset_spec(self) -> DatasetSpec:
    return self._survey.spec

  @classmethod
  def config_from_options(cls, name, options, folder=None):
    if folder is None:
      raise UserError(f'data set {cls.name} needs a folder with {FILE} in it; name it with --config.data.dir=DIR')
    super().config_from_options(name, options)
    description = read_description(folder)
    return FolderConfig(
      name=f'{re.sub("[^A-Za-z0-9]+", "_", description.name).strip("_") or "data"}_{_digest(description)}',
      description=f'{description.name}, from {description.folder}',
      survey=survey_folder(description),
    )

  def extra_features(self) -> dict[str, tfds.features.FeatureConnector]:
    return {'group': tfds.features.Text()} if self._survey.description.group else {}

  def find_source(self, manual_dir: str, *, explicit: bool = True) -> str:
    del manual_dir, explicit
    return self._survey.description.folder

  def source_files(self, manual_dir: str, *, explicit: bool = True) -> list[str]:
    del manual_dir, explicit
    description = self._survey.description
    return [description.path, *description.files]

  def _split_generators(self, dl_manager):
    del dl_manager
    index = make_index(self._survey)
    self.require_memory(sum(len(rows.ids) for rows in index))
    self.notes = tuple(_notes(self._survey, index))
    return {split: self._generate_examples(split, index) for split in SPLITS}

  def _generate_examples(self, split: str, index: list[Rows]) -> Iterator[tuple[str, dict]]:
    modalities = self._survey.spec.modalities
    wanted = [dataclasses.replace(self._survey.wanted(m.name), resolution=Resolution()) for m in modalities]
    ends = {m.name: _Ends(m) for m in modalities if m.has_length}
    for table, rows in zip(self._survey.tables, index, strict=True):
      chosen = rows.splits == SPLITS.index(split)
      if not chosen.any():
        continue
      for row, values in enumerate(table.rows(wanted)):
        if not chosen[row]:
          continue
        sample = {'id': rows.ids[row], 'label': rows.labels[row]}
        if self._survey.description.group:
          sample['group'] = rows.groups[row]
        for m, array, value in zip(modalities, wanted, values, strict=True):
          where = f'{table.where(array.array)}, row {row}'
          if m.has_length:
            ends[m.name].look(value, rows.declared[m.name][row], where)
          value = None if rows.absent[m.name][row] else value
          if m.has_length:
            length = rows.lengths[m.name][row]
            sample[m.length_name] = length
            sample[m.name] = _padded(m, value, length, where)
          else:
            sample[m.name] = _whole(m, value, where)
        yield sample['id'], sample
      for array in wanted:
        assert array.resolution is not None
        array.resolution.check(table.where(array.array))
    for end in ends.values():
      end.finish()


def _digest(description: Description) -> str:
  """Of `dataset.toml` and of name and content of every data file: what changed is prepared anew, and nothing else."""
  digest = hashlib.sha256(description.text.encode())
  for path in description.files:
    name = description.relative(path).encode('utf-8', 'surrogateescape')
    digest.update(b'\0' + name + b'\0' + seals.digest(path).encode())
  return digest.hexdigest()[:12]


class _Ends:
  """Looks for content behind the declared lengths of a modality, row by row, as `raw_inputs` does in arrays."""

  def __init__(self, modality: ModalitySpec):
    self._modality = modality
    self._unsure: dict[int, str] = {}
    self._known: set[int] = set()

  def look(self, value: np.ndarray, length: int, where: str) -> None:
    """Refuses content behind the length: either the length is wrong, or the padding is in front.

    Raises:
      UserError: there is some.
    """
    if length >= len(value):
      return
    tokens = self._modality.kind == 'tokens'
    x = np.where(value == NULL_TOKEN, 0, value) if tokens else value
    found = raw_inputs.look_beyond(self._modality, x[None], np.array([length]))
    self._known |= found.known
    if not found.content[0] and not found.unsure:
      return
    last = np.flatnonzero((x[length:] != 0).reshape(len(x) - length, -1).any(1))
    message = (
      f'{where} has content in {"token" if tokens else "frame"} {length + last[-1]}, beyond its '
      f'length of {length}; mend the lengths, or, where padding stands in front, move the content to the front'
    )
    if found.content[0]:
      raise UserError(message)
    for _, pad in found.unsure:
      self._unsure.setdefault(pad, message)

  def finish(self) -> None:
    """Raises UserError where an id stands alone behind a length, and pads nowhere else."""
    for pad, message in self._unsure.items():
      if pad not in self._known:
        raise UserError(message)


def _padded(m: ModalitySpec, value: np.ndarray | None, length: int, where: str) -> np.ndarray:
  """Frames [T, D] or tokens [T], zero from `length` on; what is missing is zeros or the unknown id.

  Raises:
    UserError: a token id that is out of range, or frames of another width.
  """
  if m.kind == 'sequence':
    padded = np.zeros(m.shape, np.float32)
    if value is not None:
      if value.shape[1:] != m.shape[1:]:
        raise UserError(f'{where}: frames have shape {value.shape[1:]}; expected {m.shape[1:]}')
      padded[:length] = value[:length]
    return padded
  padded = np.zeros(m.shape, np.int32)
  ids = np.full(length, NULL_TOKEN) if value is None else value[:length]
  ids = np.where(ids == NULL_TOKEN, m.unk_id, ids)
  wrong = ids[(ids < 0) | (ids >= m.vocab_size)]
  if len(wrong):
    raise UserError(
      f'{where}: token id {wrong[0]}; expected 0 to {m.vocab_size - 1}: raise vocab_size, or give lengths if that is '
      'padding'
    )
  padded[:length] = ids
  return padded


def _whole(m: ModalitySpec, value: np.ndarray | None, where: str) -> np.ndarray:
  """A vector or an image; zeros where there is none.

  Raises:
    UserError: it has another shape than the others.
  """
  if value is None:
    return np.zeros(m.shape, np.float32)
  if value.shape != m.shape:
    raise UserError(f'{where} has shape {value.shape}; expected {m.shape}, as in other rows')
  return value


def _notes(found: Survey, index: list[Rows]) -> Iterator[str]:
  """What was understood, for the user to check."""
  spec, sizes = found.spec, split_sizes(index)
  outputs = f', {spec.num_outputs} classes' if spec.num_outputs > 1 else ''
  splits = ', '.join(f'{split} {size}' for split, size in sizes.items())
  yield f'{spec.name}: {sum(sizes.values())} samples ({splits}), {spec.task}{outputs}'
  for m, described in zip(spec.modalities, found.description.modalities, strict=True):
    parts = [f'{m.kind} {list(m.shape)}' + (f' of {m.vocab_size} ids' if m.kind == 'tokens' else '')]
    if m.has_length:
      parts.append(_length_note(found, described))
      cut = sum(rows.cut[m.name] for rows in index)
      parts += [f'{cut} cut to {m.shape[0]}'] if cut else []
    absent = sum(int(rows.absent[m.name].sum()) for rows in index)
    parts += [f'missing in {absent} samples'] if absent else []
    yield f'  {m.name}: {"; ".join(parts)}'
  for path in found.description.unread():
    yield f'  {found.description.relative(path)}: in no split, not read'


def _length_note(found: Survey, modality: Modality) -> str:
  table = found.tables[0]
  name = length_array(modality, table)
  if name:
    return f'lengths from {name}'
  if table.noun == 'column' and (table.layout(modality.array).shape or (None,))[0] is None:
    return 'lengths of the lists'
  return f'no {modality.name}_length, so zeros at the end are taken for padding'
