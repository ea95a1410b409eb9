"""What a data set holds, as one hash: results belong to the values they were made from, not to the names of files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from dream_jax.data.datasets import Dataset, Split

# Hashing lets go of the interpreter, so arrays are hashed side by side.
_THREADS = 4


def fingerprint(dataset: Dataset) -> str:
  """SHA-256 of everything that results depend on: the contract, and ids, labels, features and lengths of all splits.

  Extras count where they are numbers, since evaluation may compare with them. Texts beside the features do not. How
  the prepared files are cut, and where they lie, does not matter.

  Args:
    dataset: raw values, before anything is removed or standardised.
  """
  parts = [part for name, split in dataset.splits.items() for part in _arrays(name, split)]
  with ThreadPoolExecutor(_THREADS) as pool:
    digests = list(pool.map(lambda part: _digest(part[1]), parts))
  content = {
    'spec': dataclasses.asdict(dataset.spec),
    'arrays': [[name, x.dtype.str, list(x.shape), d] for (name, x), d in zip(parts, digests, strict=True)],
  }
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _arrays(split: str, s: Split) -> Iterator[tuple[str, np.ndarray]]:
  """(name, array) of all that counts in a split."""
  # Text arrays are as wide as their longest text, and pad with zeros; a list of texts is what it is.
  yield f'{split}:ids', np.frombuffer(json.dumps([str(i) for i in s.ids]).encode(), np.uint8)
  yield f'{split}:label', s.label
  for name in sorted(s.features):
    yield f'{split}:feature:{name}', s.features[name]
  for name in sorted(s.extras):
    if s.extras[name].dtype.kind in 'biuf':
      yield f'{split}:extra:{name}', s.extras[name]


def _digest(x: np.ndarray) -> str:
  flat = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
  return hashlib.sha256(flat.data).hexdigest()
