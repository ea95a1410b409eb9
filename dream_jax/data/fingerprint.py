"""What a data set holds, as one hash: results belong to the values they were made from, not to the names of files."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from dream_jax.spec import DatasetSpec

# Hashing lets go of the interpreter, so arrays are hashed side by side.
_THREADS = 4


class Samples(Protocol):
  """What is read of a split, see `datasets.Split`."""

  @property
  def ids(self) -> np.ndarray: ...
  @property
  def label(self) -> np.ndarray: ...
  @property
  def features(self) -> Mapping[str, np.ndarray]: ...
  @property
  def extras(self) -> Mapping[str, np.ndarray]: ...


def fingerprint(spec: DatasetSpec, splits: Mapping[str, Samples]) -> str:
  """SHA-256 of everything that results depend on: the contract, and ids, labels, features and lengths of all splits.

  Extras count where they are numbers, since evaluation may compare with them. Texts beside the features do not. How
  the prepared files are cut, and where they lie, does not matter.

  Args:
    spec: the contract.
    splits: raw values, before anything is removed or standardised.
  """
  parts = [part for name, split in splits.items() for part in _arrays(name, split)]
  with ThreadPoolExecutor(_THREADS) as pool:
    digests = list(pool.map(lambda part: _digest(part[1]), parts))
  content = {
    'spec': dataclasses.asdict(spec),
    'arrays': [[name, x.dtype.str, list(x.shape), d] for (name, x), d in zip(parts, digests, strict=True)],
  }
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _arrays(split: str, s: Samples) -> Iterator[tuple[str, np.ndarray]]:
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
