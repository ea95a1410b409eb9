"""Reads the feature files of MMIN: HDF5 {utterance: [T, D]} by modality, labels as .npy; four classes.

Letters: N utterances, T frames, D feature width.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from dream_jax.data import reading
from dream_jax.data.builders.iemocap.utterance import CLASSES, Sample, as_frames, load_npy, make_utterance
from dream_jax.errors import UserError

FILES = {'text': 'L/bert_large.h5', 'audio': 'A/comparE.h5', 'vision': 'V/denseface.h5'}
# All ten folds list all utterances with the same labels; they only divide them differently.
TARGETS = tuple(f'target/1/{split}_{kind}.npy' for split in ('trn', 'val', 'tst') for kind in ('int2name', 'label'))
_MOST_VALUES = 1 << 26  # Of one utterance.
_ORDER = ('angry', 'happy', 'neutral', 'sad')


def read_mmin(folder: str) -> Iterator[Sample]:
  """Samples of a folder that has `FILES` and `TARGETS`.

  Raises:
    UserError: h5py is not installed, or a file is not what it should be.
  """
  with contextlib.ExitStack() as stack:
    files = {name: stack.enter_context(_open(os.path.join(folder, file))) for name, file in FILES.items()}
    for names, labels in zip(TARGETS[::2], TARGETS[1::2], strict=True):
      for key, label in _targets(os.path.join(folder, names), os.path.join(folder, labels)):
        utterance = make_utterance(key, label, os.path.join(folder, names))
        yield utterance, {name: _frames(file, utterance.id) for name, file in files.items()}


def _open(path: str) -> Any:
  """The HDF5 file, opened to read."""
  try:
    import h5py
  except ImportError as error:
    raise UserError(
      f'{path} is read with the package h5py, which is not installed; install it: pip install h5py'
    ) from error
  with reading.naming(path, 'HDF5', 'fetch it again'):
    return h5py.File(path, 'r')


def _targets(names_path: str, labels_path: str) -> Iterator[tuple[Any, int]]:
  """Ids of utterances and their labels as indices into `CLASSES`."""
  names, labels = load_npy(names_path).reshape(-1), load_npy(labels_path)
  expected = (len(names), len(_ORDER))
  if labels.shape != expected:
    raise UserError(f'{labels_path} has shape {labels.shape}; expected {expected}, one row a name: fetch it again')
  if labels.dtype.kind not in 'fiub' or not ((labels == 0) | (labels == 1)).all() or (labels.sum(axis=1) != 1).any():
    raise UserError(f'{labels_path} has rows that are not one-hot; expected one 1 and {len(_ORDER) - 1} zeros each')
  for key, label in zip(names.tolist(), labels.argmax(axis=1), strict=True):
    yield key, CLASSES.index(_ORDER[label])


def _frames(file: Any, key: str) -> np.ndarray | None:
  """Frames of an utterance without those that are all zero: text and faces are padded with zeros to one length."""
  with reading.naming(file.filename, 'HDF5', 'fetch it again'):
    dataset = file.get(key)
    if dataset is None or not hasattr(dataset, 'dtype'):
      raise UserError(f'{file.filename} lacks utterance {key}, which is in {TARGETS[0]} or its like: fetch it again')
    if dataset.dtype.kind not in 'fiu' or dataset.size > _MOST_VALUES:  # What is not stored is made up when read.
      raise UserError(
        f'{file.filename}: the features of {key} are {dataset.dtype} of shape {dataset.shape}; expected numbers '
        '[T, D]: fetch it again'
      )
    values = dataset[()]
  frames = as_frames(values, f'{file.filename}: the features of {key}')
  if frames is not None:
    frames = frames[(frames != 0).any(axis=1)]
  return frames if frames is not None and len(frames) else None
