"""Which part of a sample holds something: inside its length, and not all zeros.

A `Dataset` does not say what is missing, by design. What is all zeros probably is: lost sources and frames with NaN
arrive so. A modality of one number per sample or frame is the exception: there, zero is a value like any other.

Dimension letters: n samples of a split, T time, D features.
"""

import math
from collections.abc import Iterator

import numpy as np

from dream_jax.data.datasets import Split
from dream_jax.spec import ModalitySpec

# Samples looked at together: a data set may fill half of the memory, and copies that fit a cache are fast.
_CHUNK = 128


def chunks(n: int) -> Iterator[slice]:
  """Consecutive slices that cover n samples."""
  return (slice(start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))


def select(split: Split, rows: np.ndarray) -> Split:
  """The samples of a split at these positions, or where a mask is true."""
  return Split(
    ids=split.ids[rows],
    keys=split.keys[rows],
    features={name: values[rows] for name, values in split.features.items()},
    label=split.label[rows],
    extras={name: values[rows] for name, values in split.extras.items()},
  )


def inside(modality: ModalitySpec, split: Split) -> np.ndarray:
  """Which frames or tokens lie within the length, bool [n, T]; for vectors and images [n, 1], all true."""
  if not modality.has_length:
    return np.ones((len(split), 1), bool)
  return np.asarray(np.arange(modality.shape[0]) < split.features[modality.length_name][:, None])


def filled(modality: ModalitySpec, split: Split) -> np.ndarray:
  """Which frames inside the length are not all zero, bool [n, T] ([n, 1]); tokens: neither padding nor unknown."""
  values, within = split.features[modality.name], inside(modality, split)
  if modality.kind == 'tokens':
    return np.asarray(within & (values != 0) & (values != modality.unk_id))
  values = values.reshape(*within.shape, math.prod(values.shape[1 + modality.has_length :]))
  if values.shape[-1] == 1 and not modality.has_length:
    return within
  # True of nearly all; only the others are read in full.
  holds = np.logical_and(within, values[..., 0] != 0)
  for rows in chunks(len(values)):
    unsure = np.nonzero(within[rows] & ~holds[rows])
    holds[rows][unsure] = values[rows][unsure].any(-1)
  return holds


def empty(modality: ModalitySpec, split: Split) -> np.ndarray:
  """Samples that hold nothing of a modality, bool [n]: probably missing."""
  return ~np.asarray(filled(modality, split).any(1))


def observed(modality: ModalitySpec, split: Split) -> np.ndarray:
  """Frames that hold a measurement as far as one can see, bool [n, T] ([n, 1]).

  A frame of one number may well be zero, so there only samples that are zero throughout are left out.
  """
  holds = filled(modality, split)
  if modality.kind == 'sequence' and modality.shape[-1] == 1:
    return np.logical_and(inside(modality, split), holds.any(1, keepdims=True))
  return holds


def can_lack_frames(modality: ModalitySpec) -> bool:
  """Whether single frames of zeros tell that something is missing there."""
  return modality.kind == 'sequence' and modality.shape[-1] > 1
