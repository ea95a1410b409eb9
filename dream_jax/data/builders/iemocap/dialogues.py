"""Reads the pickles that list IEMOCAP by dialogue: GCNet's labels, and the features of bc-LSTM and its successors.

Both are lists of dicts {dialogue: one value an utterance} and, at the end, the names of the training and the test
dialogues. Letters: T frames, D feature width.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dream_jax.data import reading
from dream_jax.data.builders.iemocap.utterance import (
  CLASSES,
  MODALITIES,
  Sample,
  Utterance,
  as_frames,
  load_npy,
  make_utterance,
)
from dream_jax.data.pickles.file_arrays import FileArray
from dream_jax.data.pickles.safe_pickle import load_arrays
from dream_jax.errors import UserError

_GCNET = ('ids', 'labels', 'speakers', 'sentences', 'train', 'test')
BC_LSTM = ('ids', 'speakers', 'labels', *MODALITIES, 'sentences', 'train', 'test')


def read_gcnet(path: str, folders: Mapping[str, str], num_classes: int) -> Iterator[Sample]:
  """Samples of GCNet's layout: labels in a pickle, features in files.

  Args:
    path: `IEMOCAP_features_raw_4way.pkl` or `_6way.pkl`.
    folders: modality -> folder of `ID.npy` files, or of folders `ID` of faces.
    num_classes: 4 or 6.

  Raises:
    UserError: a file is not what it should be, or absent.
  """
  for utterance, _ in _utterances(path, _GCNET, num_classes):
    yield utterance, {name: _read_files(folder, name, utterance) for name, folder in folders.items()}


def read_bc_lstm(path: str) -> Iterator[Sample]:
  """Samples of a pickle that holds the features, too; six classes.

  Raises:
    UserError: the file is not what it should be.
  """
  for utterance, values in _utterances(path, BC_LSTM, len(CLASSES)):
    yield utterance, {n: as_frames(values[n], f'{path}: the {n} features of {utterance.id}') for n in MODALITIES}


def _utterances(path: str, layout: Sequence[str], num_classes: int) -> Iterator[tuple[Utterance, dict[str, Any]]]:
  """Utterances of the training and test dialogues, each with what the file says about it."""
  entries = _entries(path, layout)
  for dialogue in entries.pop('dialogues'):
    columns = {name: _column(entry, dialogue, f'{path}: {name}') for name, entry in entries.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
      found = ', '.join(f'{n} {name}' for name, n in lengths.items())
      raise UserError(f'{path}: dialogue {dialogue} has {found}; expected as many of each: fetch the file again')
    for i in range(lengths['ids']):
      values = {name: column[i] for name, column in columns.items()}
      where = f'{path}: dialogue {dialogue}'
      label = _label(values['labels'], num_classes, f'{where}, utterance {i}')
      text = values['sentences']
      yield make_utterance(values['ids'], label, where, speaker=values['speakers'], text=text), values


def _entries(path: str, layout: Sequence[str]) -> dict[str, Any]:
  """The parts of a pickle by name; `dialogues`, sorted, in place of `train` and `test`."""
  content = load_arrays(path)
  if not isinstance(content, list | tuple) or len(content) != len(layout):
    size = f' of {len(content)}' if isinstance(content, list | tuple) else ''
    raise UserError(
      f'{path} holds a {type(content).__name__}{size}; expected a list of {len(layout)}: {", ".join(layout)}; is this '
      'the file of another data set?'
    )
  entries = dict(zip(layout, content, strict=True))
  dialogues = set()
  for name in ('train', 'test'):
    part = entries.pop(name)
    if not isinstance(part, set | frozenset | list | tuple | np.ndarray | FileArray):
      raise UserError(f'{path}: {name} is a {type(part).__name__}; expected names of dialogues: is the order another?')
    dialogues.update(reading.exact_text(d, f'{path}: a dialogue in {name}') for d in _listed(part))
  for name, entry in entries.items():
    if not isinstance(entry, dict):
      raise UserError(f'{path}: {name} is a {type(entry).__name__}; expected a dict by dialogue: is the order another?')
    entries[name] = _by_dialogue(entry, f'{path}: {name}')
  return entries | {'dialogues': sorted(dialogues)}


def _by_dialogue(entry: dict[Any, Any], where: str) -> dict[str, Any]:
  """The entry with names of dialogues as text."""
  named = {reading.exact_text(key, f'{where}: a dialogue'): column for key, column in entry.items()}
  if len(named) < len(entry):
    raise UserError(f'{where} has a dialogue twice, as text and as bytes or number; expected every one once')
  return named


def _listed(values: Any) -> list[Any]:
  """The entries of an array or a container as Python's own."""
  return np.asarray(values).tolist() if isinstance(values, np.ndarray | FileArray) else list(values)


def _column(entry: dict[str, Any], dialogue: str, where: str) -> Any:
  """The values of a dialogue, one an utterance."""
  if dialogue not in entry:
    raise UserError(f'{where} lacks dialogue {dialogue}, which is in train or test: fetch the file again')
  column = entry[dialogue]
  if isinstance(column, list | tuple):
    return column
  if not isinstance(column, np.ndarray | FileArray) or not column.shape:
    raise UserError(f'{where} of dialogue {dialogue} is a {type(column).__name__}; expected a list: fetch it again')
  return np.asarray(column)


def _label(value: Any, num_classes: int, where: str) -> int:
  if not isinstance(value, int | np.integer) or not 0 <= value < num_classes:
    names = ', '.join(CLASSES[:num_classes])
    raise UserError(
      f'{where}: its label is {value!r}; expected 0 to {num_classes - 1} ({names}): is it the published file?'
    )
  return int(value)


def _read_files(folder: str, modality: str, utterance: Utterance) -> np.ndarray | None:
  """Frames of an utterance: of its file, or of the faces of who speaks in its folder."""
  path = os.path.join(folder, utterance.id)
  if os.path.isfile(f'{path}.npy'):
    return as_frames(load_npy(f'{path}.npy'), f'the features in {path}.npy')
  if not os.path.isdir(path):
    raise UserError(
      f'utterance {utterance.id} has no {modality} features: neither {path}.npy nor a folder {path}; extract them, or '
      'choose others with --config.data.options.features="(TEXT, AUDIO, VISION)"'
    )
  faces = []
  for name in sorted(n for n in os.listdir(path) if n.endswith('.npy')):
    # Both people are filmed; the letter in a file's name says whose face it is.
    owner = next((letter for letter in 'FM' if letter in name.removesuffix('.npy')), None)
    if owner is None:
      raise UserError(f'{os.path.join(path, name)} is the face of nobody; expected F or M in its name: rename it')
    if owner == utterance.speaker:
      faces.append(as_frames(load_npy(os.path.join(path, name)), f'the features in {os.path.join(path, name)}'))
  faces = [face for face in faces if face is not None]
  if len({face.shape[1] for face in faces}) > 1:
    raise UserError(f'the faces in {path} differ in width; expected one width: extract them again')
  return np.concatenate(faces) if faces else None
