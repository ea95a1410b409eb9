"""Finds the files of IEMOCAP that a user has: which of three layouts, and where."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence

from dream_jax.data.builders.iemocap import dialogues, mmin
from dream_jax.data.builders.iemocap.utterance import MODALITIES, Sample
from dream_jax.errors import UserError

# Where the projects keep the files, relative to the user's folder or to a folder around theirs.
FOLDERS = ('', 'IEMOCAP', 'iemocap', 'dataset/IEMOCAP', 'IEMOCAP_features', 'IEMOCAP_features_2021')
PICKLES = ('IEMOCAP_features.pkl', 'IEMOCAP_features_raw.pkl')
_GCNET_README = 'the README of github.com/zeroQiaoba/GCNet'


@dataclasses.dataclass(frozen=True)
class Source:
  """Files of one layout.

  Attributes:
    path: the file or folder to name in messages.
    read: reads them, sample by sample.
    parts: the files, and the folders of others, that it reads.
  """

  path: str
  read: Callable[[], Iterator[Sample]]
  parts: tuple[str, ...]

  def files(self) -> list[str]:
    """Every file of it; of folders those with features."""
    found = [part for part in self.parts if os.path.isfile(part)]
    for part in self.parts:
      for folder, _, names in os.walk(part, followlinks=True):
        found += [os.path.join(folder, name) for name in names if name.endswith('.npy')]
    return found


def label_file(num_classes: int) -> str:
  """Name of GCNet's labels."""
  return f'IEMOCAP_features_raw_{num_classes}way.pkl'


def find(manual_dir: str, num_classes: int, features: Sequence[str]) -> Source | None:
  """The files in `manual_dir`; None where there are none.

  Args:
    manual_dir: folder to look in, and in its `FOLDERS`.
    num_classes: 4 or 6.
    features: names of GCNet's feature folders, by modality.

  Raises:
    UserError: labels of GCNet without their features, and no other files.
  """
  roots = [os.path.join(manual_dir, folder) if folder else manual_dir for folder in FOLDERS]
  labels = _first(roots, label_file(num_classes), os.path.isfile)
  # Features lie beside the labels in a folder of that name, or directly.
  feature_roots = [os.path.join(root, folder) for root in roots for folder in ('features', '')]
  folders = {n: _first(feature_roots, f, os.path.isdir) for n, f in zip(MODALITIES, features, strict=True)}
  found = {name: folder for name, folder in folders.items() if folder}
  if labels and len(found) == len(MODALITIES):
    return Source(
      labels, functools.partial(dialogues.read_gcnet, labels, found, num_classes), (labels, *found.values())
    )
  for name in PICKLES:
    path = _first(roots, name, os.path.isfile)
    if path:
      return Source(path, functools.partial(dialogues.read_bc_lstm, path), (path,))
  if num_classes == 4:
    for root in roots:
      files = tuple(os.path.join(root, name) for name in (*mmin.FILES.values(), *mmin.TARGETS))
      if all(os.path.isfile(path) for path in files):
        return Source(root, functools.partial(mmin.read_mmin, root), files)
  if labels:
    absent = ', '.join(f'{f} ({n})' for n, f in zip(MODALITIES, features, strict=True) if n not in found)
    folder = os.path.join(os.path.dirname(labels), 'features')
    raise UserError(
      f'{labels} needs feature folders beside it; not found in {folder}: {absent}; extract them as {_GCNET_README} '
      'says, or choose others with --config.data.options.features="(TEXT, AUDIO, VISION)"'
    )
  return None


def _first(roots: Sequence[str], name: str, exists: Callable[[str], bool]) -> str:
  """The first existing path of `name` in `roots`, or ''."""
  return next((path for path in (os.path.join(root, name) for root in roots) if exists(path)), '')


def description(num_classes: int, features: Sequence[str]) -> tuple[str, ...]:
  """What there may be, for people: one sentence a layout, with where it comes from."""
  text, audio, vision = features
  gcnet = (
    f'{label_file(num_classes)} with the folders features/{text}, features/{audio} and features/{vision} of .npy files '
    'by utterance (labels: dataset/IEMOCAP of github.com/zeroQiaoba/GCNet; features: extracted as its README says)'
  )
  pickles = (
    f'{" or ".join(PICKLES)}, the pickle [{", ".join(dialogues.BC_LSTM)}] of DialogueRNN (DialogueRNN_features.zip of '
    'github.com/declare-lab/conv-emotion), DialogueGCN or MMGCN'
  )
  mmins = f'{", ".join(mmin.FILES.values())} and target/1/*.npy (link in the README of github.com/AIM3-RUC/MMIN)'
  return (gcnet, pickles, mmins) if num_classes == 4 else (gcnet, pickles)
