"""What data lack from the start, before anything is removed from them: slots of nothing but raw zeros.

Nobody says so, but it can be seen: own data that lack a modality hold zeros, NaN or nothing in its place, and all of
these are raw zeros once they are read. A slot of one number may well be zero and counts as there.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dream_jax.spec import DatasetSpec, ModalitySpec

_CHUNK = 1024  # slots looked at at a time


def missing_already(spec: DatasetSpec, features: Mapping[str, Any], zero: Mapping[str, np.ndarray]) -> np.ndarray:
  """Which slots hold nothing, bool [n, M].

  Args:
    spec: modalities.
    features: standardised features [n, ...] and lengths, without anything removed.
    zero: name -> [D], where raw zero lies; tokens have none.
  """
  columns = []
  for m in spec.modalities:
    length = features[m.length_name] if m.has_length else None
    columns.append(empty(m, features[m.name], length, None if m.kind == 'tokens' else zero[m.name]))
  return np.stack(columns, axis=1)


def empty(modality: ModalitySpec, x: Any, length: Any, zero: np.ndarray | None) -> np.ndarray:
  """Which slots [n] of one modality are raw zero in every feature of every frame; of tokens, without a known word."""
  found = np.zeros(len(x), bool)
  if modality.kind != 'tokens' and int(np.prod(modality.shape)) == 1:
    return found
  for i in range(0, len(x), _CHUNK):  # No second copy of a data set that may fill half the memory.
    part = np.asarray(x[i : i + _CHUNK])
    if zero is None:
      same = (part == 0) | (part == modality.unk_id)
    else:
      same = (np.asarray(part, np.float32) == zero).all(-1)
    if length is not None:
      same |= np.arange(x.shape[1]) >= np.asarray(length[i : i + _CHUNK])[:, None]
    found[i : i + _CHUNK] = same.reshape(len(same), -1).all(1)
  return found
