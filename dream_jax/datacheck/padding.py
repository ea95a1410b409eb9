"""Padding of another make, which is read as content here: in front, or with another id than 0.

Sequences and tokens are padded behind, with zeros. Files of other programs are padded in front, and other tokenizers
pad with an id of their own. Neither can be told for sure, but both leave a trace that content hardly leaves.

Dimension letters: n samples of a split, T time.
"""

import dataclasses

import numpy as np

from dream_jax.data.datasets import Split
from dream_jax.datacheck import content
from dream_jax.spec import ModalitySpec

_MOST, _NEARLY_ALL, _ALIKE = 0.5, 0.9, 0.9
_STRAY = 0.01  # Share of a padding id that may stand elsewhere.


@dataclasses.dataclass(frozen=True)
class Padding:
  """What looks like padding of another make.

  Attributes:
    side: 'front' or 'behind'.
    value: the id that pads; 0 for frames of zeros.
    samples: how many training samples are padded with it.
    median: how many frames or tokens of those are padding, the median over samples.
  """

  side: str
  value: int
  samples: int
  median: float


def foreign_padding(modality: ModalitySpec, split: Split) -> Padding | None:
  """What most samples of a split seem to be padded with, if it is none of ours."""
  if not modality.has_length or modality.shape[0] < 3:
    return None
  present = ~content.empty(modality, split)
  if not present.any():
    return None
  if modality.kind == 'tokens':
    ids, lengths = split.features[modality.name][present], split.features[modality.length_name][present]
    return _padding_id(ids, lengths, 'behind') or _padding_id(ids, lengths, 'front')
  holds = content.filled(modality, split)[present]
  full = split.features[modality.length_name][present] == modality.shape[0]
  return _padding_of('front', 0, _runs(~holds), full & holds[:, -1])


def padded(modality: ModalitySpec, split: Split, padding: Padding) -> np.ndarray:
  """Which tokens of a split are that padding, bool [n, T]."""
  ids, lengths = split.features[modality.name], split.features[modality.length_name]
  time = np.arange(ids.shape[1])
  if padding.side == 'front':
    return np.asarray(time < _runs(ids == padding.value)[:, None])
  runs = _runs(_from_the_end(ids, lengths) == padding.value)
  return np.asarray((time < lengths[:, None]) & (time >= (lengths - runs)[:, None]))


def _padding_id(ids: np.ndarray, lengths: np.ndarray, side: str) -> Padding | None:
  """An id that most samples [n, T] begin or end with, more than once, and that stands nowhere else."""
  full = lengths == ids.shape[1]
  turned = ids if side == 'front' else _from_the_end(ids, lengths)
  twice = turned[:, 0] == turned[:, 1]
  if not twice.any():
    return None
  values, counts = np.unique(turned[twice, 0], return_counts=True)
  value = int(values[np.argmax(counts)])
  runs = _runs(turned == value)
  inside = np.arange(ids.shape[1]) < lengths[:, None]
  if ((ids == value) & inside).sum() - runs.sum() > _STRAY * runs.sum() or (side == 'behind' and value == 0):
    return None
  return _padding_of(side, value, runs, full if side == 'front' else np.ones(len(ids), bool))


def _padding_of(side: str, value: int, runs: np.ndarray, ends_well: np.ndarray) -> Padding | None:
  """Padding of these lengths [n], if most samples have some, its lengths differ, and nearly all samples end well."""
  some = runs > 0
  if ends_well.mean() < _NEARLY_ALL or (some & ends_well).mean() < _MOST:
    return None
  alike = np.unique(runs[some], return_counts=True)[1].max() / some.sum()
  median = float(np.median(runs[some]))
  return Padding(side, value, int(some.sum()), median) if median >= 2 and alike < _ALIKE else None


def _runs(same: np.ndarray) -> np.ndarray:
  """How many entries of each row are true before the first that is not, [n]."""
  return np.where(same.all(1), same.shape[1], np.argmin(same, axis=1))


def _from_the_end(ids: np.ndarray, lengths: np.ndarray) -> np.ndarray:
  """Ids [n, T] read backwards from the end of each length; -1 behind that."""
  place = lengths[:, None] - 1 - np.arange(ids.shape[1])
  return np.where(place >= 0, np.take_along_axis(ids, place.clip(0), 1), -1)
