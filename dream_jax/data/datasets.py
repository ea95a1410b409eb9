"""Data sets in memory: raw values of the three splits, as the builders give them."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from dream_jax.spec import DatasetSpec


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One split of n samples.

  Attributes:
    ids: [n] str.
    keys: [n, 2] uint32, see `sample_keys`.
    features: modality name -> float32 [n, T, D], [n, D] or [n, H, W, C], int32 [n, T] for tokens; for sequences and
      tokens also `<name>_length` -> int32 [n]. Values beyond the length are zero.
    label: as `DatasetSpec.task` says.
    extras: further per-sample arrays, none of them an input of a model.
  """

  ids: np.ndarray
  keys: np.ndarray
  features: dict[str, np.ndarray]
  label: np.ndarray
  extras: dict[str, np.ndarray]

  def __len__(self) -> int:
    return len(self.ids)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """RAW values of the splits 'train', 'validation' and 'test'.

  Attributes:
    spec: what the data set is.
    splits: split name -> Split.
    non_finite: modality name -> number of NaN and infinite values in the source; they became missing frames (zeros).
  """

  spec: DatasetSpec
  splits: dict[str, Split]
  non_finite: dict[str, int]


def sample_keys(ids: Sequence[str]) -> np.ndarray:
  """The 64-bit key of each sample [n, 2] uint32: first 8 bytes of sha256(id), little endian words."""
  digests = b''.join(hashlib.sha256(str(i).encode('utf-8')).digest()[:8] for i in ids)
  return np.frombuffer(digests, '<u4').reshape(-1, 2).astype(np.uint32)
