"""A modality of any kind as one vector per sample, for the linear probe: what a model without a sense of order sees.

Everything is fitted on the training samples: vocabulary, scale and directions. A sample that lacks the modality
becomes a zero vector, the training mean, about which a linear probe can say nothing.

Dimension letters: n samples, T time, D features, P pooled features.
"""

import numpy as np
from scipy import linalg

from dream_jax.data.datasets import Split
from dream_jax.datacheck import content
from dream_jax.spec import ModalitySpec

MAX_FEATURES = 800  # The probe decomposes matrices of this size.
_SEGMENTS = 4
_SIDE = 16
_CLIP = 5.0  # Standard deviations: one outlier of a recorder should not outweigh all else.


def pooled(modality: ModalitySpec, train: Split, validation: Split) -> tuple[np.ndarray, np.ndarray]:
  """(training [n, P], validation [n, P]) float32 vectors of one modality, P at most MAX_FEATURES.

  sequence: mean, deviation and largest value of each feature and its mean in four parts of the time, as far as there
  is room; tokens: weights of the most frequent ids (tf-idf); image: pixels averaged down to 16 x 16; vector: itself.
  """
  if modality.kind == 'tokens':
    vectors = _bags_of_words(modality, train, validation)
  else:
    pool = {'sequence': _pool_sequence, 'image': _pool_image, 'vector': _as_it_is}[modality.kind]
    vectors = pool(modality, train), pool(modality, validation)
  present = [~content.empty(modality, split) for split in (train, validation)]
  return reduced(*_standardised(*vectors, *present, each=modality.kind != 'tokens'), MAX_FEATURES)


def reduced(train: np.ndarray, validation: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
  """Both in at most `limit` directions, [n, min(P, limit)]: those in which the training samples vary most.

  With fewer training samples than `limit` nothing is lost: a ridge solution lies in the space they span.
  """
  width = min(limit, len(train))
  if train.shape[1] <= width:
    return train, validation
  rng = np.random.default_rng(0)
  # One power iteration from a random start (Halko, Martinsson and Tropp 2011): a few products instead of an
  # eigendecomposition.
  sketch = train @ rng.standard_normal((train.shape[1], width), dtype=np.float32)
  directions = linalg.qr(train.T @ sketch, mode='economic', check_finite=False)[0]
  return train @ directions, validation @ directions


def _pool_sequence(modality: ModalitySpec, split: Split) -> np.ndarray:
  values, mask = split.features[modality.name], content.observed(modality, split)
  lengths, width = split.features[modality.length_name], modality.shape[1]
  # Means of all features say more than all statistics in few directions.
  with_deviation = 3 * width <= MAX_FEATURES
  with_segments = (3 + _SEGMENTS) * width <= MAX_FEATURES
  result = []
  for rows in content.chunks(len(values)):
    x, seen = values[rows].astype(np.float64), mask[rows]
    averages = [_weights(seen)]
    if with_segments:
      averages += _segment_weights(seen, lengths[rows])
    means = np.stack(averages, axis=1) @ x
    parts = [means.reshape(len(x), -1)]
    if with_deviation:
      parts.append(np.sqrt(averages[0][:, None] @ (x - means[:, :1]) ** 2)[:, 0])
      x[~seen] = -np.inf
      parts.append(np.where(seen.any(1, keepdims=True), x.max(1), 0.0))
    result.append(np.concatenate(parts, axis=1).astype(np.float32))
  return np.concatenate(result)


def _weights(chosen: np.ndarray) -> np.ndarray:
  """What turns a sum over time into a mean over the chosen frames, [n, T]; zeros where none is chosen."""
  return chosen / np.maximum(chosen.sum(1, keepdims=True), 1)


def _segment_weights(seen: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
  """The same for equal parts of each sample's length; a part in which nothing was seen takes the whole."""
  time, result = np.arange(seen.shape[1]), []
  for part in range(_SEGMENTS):
    start, stop = (lengths * p // _SEGMENTS for p in (part, part + 1))
    chosen = seen & (time >= start[:, None]) & (time < stop[:, None])
    result.append(_weights(np.where(chosen.any(1, keepdims=True), chosen, seen)))
  return result


def _pool_image(modality: ModalitySpec, split: Split) -> np.ndarray:
  values = split.features[modality.name]
  parts = [_averaged(_averaged(values[rows], 1), 2) for rows in content.chunks(len(values))]
  return np.concatenate(parts).reshape(len(values), -1)


def _averaged(images: np.ndarray, axis: int) -> np.ndarray:
  """Neighbours along an axis averaged until at most _SIDE are left."""
  size = images.shape[axis]
  if size <= _SIDE:
    return images.astype(np.float32)
  starts = np.arange(_SIDE) * size // _SIDE
  counts = np.diff(np.append(starts, size)).astype(np.float32)
  shape = [-1 if a == axis else 1 for a in range(images.ndim)]
  return np.add.reduceat(images.astype(np.float32), starts, axis) / counts.reshape(shape)


def _as_it_is(modality: ModalitySpec, split: Split) -> np.ndarray:
  return split.features[modality.name].astype(np.float32)


def _bags_of_words(modality: ModalitySpec, train: Split, validation: Split) -> tuple[np.ndarray, np.ndarray]:
  """Log counts of the most frequent ids, rare ids weighing more, each sample of length one."""
  documents = np.bincount(_counts(modality, train)[1], minlength=modality.vocab_size)
  # An id that only one training sample has cannot teach anything.
  chosen = np.argsort(-documents, kind='stable')[:MAX_FEATURES]
  chosen = chosen[documents[chosen] >= 2]
  weight = np.log((1 + len(train)) / (1 + documents[chosen])) + 1
  column = np.full(len(documents), -1)
  column[chosen] = np.arange(len(chosen))
  bags = []
  for split in (train, validation):
    rows, ids, counts = _counts(modality, split)
    rows, columns, counts = (a[column[ids] >= 0] for a in (rows, column[ids], counts))
    bag = np.zeros((len(split), max(1, len(chosen))), np.float32)
    bag[rows, columns] = (1 + np.log(counts)) * weight[columns]
    bags.append(bag / np.maximum(np.linalg.norm(bag, axis=1, keepdims=True), 1e-6))
  return bags[0], bags[1]


def _counts(modality: ModalitySpec, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(row, id, how often) of every id that a sample holds, neither padding nor unknown."""
  rows, times = np.nonzero(content.filled(modality, split))
  ids = split.features[modality.name][rows, times].astype(np.int64)
  keys, counts = np.unique(rows * modality.vocab_size + ids, return_counts=True)
  return keys // modality.vocab_size, keys % modality.vocab_size, counts


def _standardised(train, validation, train_present, validation_present, *, each: bool):
  """Both on the scale of the training samples that have the modality; zeros where a sample lacks it."""
  seen = train[train_present].astype(np.float64)
  if not len(seen):
    return np.zeros_like(train), np.zeros_like(validation)
  mean, std = seen.mean(0), seen.std(0)
  if not each:
    # Words: a rare one would otherwise weigh as much as all others together.
    std = np.full_like(std, np.sqrt((std**2).mean())) if std.size else std
  varies = std > 1e-6 * np.maximum(np.abs(mean), 1e-6)
  result = []
  for x, present in ((train, train_present), (validation, validation_present)):
    z = np.where(varies, (x - mean) / np.where(varies, std, 1.0), 0.0)
    if each:
      z = z.clip(-_CLIP, _CLIP)
    result.append((z * present[:, None]).astype(np.float32))
  return result[0], result[1]
