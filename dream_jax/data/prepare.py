"""What the trainer reads: the data set, made incomplete once if asked for, and standardised.

What `train_missing` removes from the training and validation splits is gone: no statistic, no fill and no length ever
reads it. The test split is only standardised; what it lacks is up to the evaluation.

Dimension letters: n samples of a split, M modalities, T time, D features (an image: channels).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dream_jax.data.datasets import Dataset, Split
from dream_jax.data.raw_inputs import received
from dream_jax.errors import UserError
from dream_jax.missingness import counter, fills
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import PREPARE_EPOCH, Keep, Missing, draw_keep, in_parts, removes, validate
from dream_jax.spec import DatasetSpec, ModalitySpec

_DONOR = 32  # Stream of words; see `fills` for the others.
_CHUNK = 1024  # Samples converted at a time.
SMALLEST_STD = 1e-6  # In units of the mean or of 1: what varies less is not rescaled.


@dataclasses.dataclass(frozen=True, eq=False)
class Statistics:
  """Mean and standard deviation of the observed training values.

  Attributes:
    mean: name -> float32 [D]; tokens have none.
    std: name -> float32 [D]; 1 for a feature that does not vary.
  """

  mean: dict[str, np.ndarray]
  std: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
  """A data set as the trainer and the evaluation read it.

  Attributes:
    spec: what the data set is.
    splits: the splits, standardised; 'train' and 'validation' without what `train_missing` removed. Where it removed
      something, `extras['kept']` is float32 [n, M], the share that stayed: for reports, not an input.
    statistics: what they were standardised with.
    zero: name -> float32 [D], where raw zero lies after standardising; tokens have none.
    data: fingerprint of the data set it was made from, whatever is missing.
  """

  spec: DatasetSpec
  splits: dict[str, Split]
  statistics: Statistics
  zero: dict[str, np.ndarray]
  data: str = ''


def prepare(dataset: Dataset, *, train_missing: Missing, seed: int) -> Prepared:
  """The data set without what `train_missing` removes from it, standardised.

  Args:
    dataset: raw values.
    train_missing: what training and validation samples lack, in every epoch alike.
    seed: decides what each sample lacks.

  Raises:
    UserError: a specification that does not fit the data, values that are none of the data set's, see
      `raw_inputs.received`, or a swap with nothing observed to swap in.
  """
  spec = dataset.spec
  validate(train_missing, spec)
  # Beyond lengths may be anything: where whole sequences go missing, lengths are hidden too.
  raw = {name: received(spec, split.features, beyond=False) for name, split in dataset.splits.items()}
  incomplete = ('train', 'validation') if removes(train_missing) else ()
  keeps = {
    name: draw_keep(
      train_missing,
      spec,
      lengths=_lengths(spec, raw[name]),
      seed=seed,
      keys=dataset.splits[name].keys,
      epoch=PREPARE_EPOCH,
      backend=NUMPY,
    )
    for name in incomplete
    if name in dataset.splits
  }
  statistics = _measure(spec, raw['train'], keeps.get('train'))
  zero = {name: (np.float32(0) - mean) / statistics.std[name] for name, mean in statistics.mean.items()}
  splits = {}
  for name, split in dataset.splits.items():
    features, extras = _scaled(statistics, spec, raw[name]), split.extras
    if name in keeps:
      features = _without_removed(train_missing, spec, features, zero, keeps[name], seed, split.keys)
      extras = {**extras, 'kept': keeps[name].share}
    splits[name] = dataclasses.replace(split, features=features, extras=extras)
  return Prepared(spec, splits, statistics, zero, dataset.fingerprint)


def standardise(statistics: Statistics, spec: DatasetSpec, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Raw inputs on the scale that models read; a notebook's arrays and a data set's go the same way.

  A frame (vector, image) with a NaN or infinite value counts as missing: it becomes raw zero. So does a sample with
  `<name>_length` 0, as zeros of the full length, whatever was in its place. Tokens of nothing but padding are missing
  too: they become the unknown id. Values beyond a length become 0.

  Args:
    statistics: from `prepare`.
    spec: the data set.
    inputs: name -> raw values [B, ...] of the spec's shape; `<name>_length` [B], when absent up to the last frame that
      is not all zeros or NaN (the full time where all are).

  Raises:
    UserError: an input that is refused, see `raw_inputs.received`, or a value that is too far from those of training.
  """
  return _scaled(statistics, spec, received(spec, inputs))


def _scaled(statistics: Statistics, spec: DatasetSpec, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """What `raw_inputs.received` gave, standardised."""
  outputs = {}
  for modality in spec.modalities:
    x = inputs[modality.name]
    inside = np.ones((len(x), *modality.shape[:1]), bool)
    if modality.has_length:
      outputs[modality.length_name] = length = inputs[modality.length_name]
      inside = np.arange(modality.shape[0]) < length[:, None]
    if modality.kind == 'tokens':
      ids = np.where(inside, x, 0)
      outputs[modality.name] = np.where(inside & ~ids.any(1, keepdims=True), np.int32(modality.unk_id), ids)
      continue
    outputs[modality.name] = scaled = np.empty(x.shape, np.float32)
    frame_axes = tuple(range(1 + modality.has_length, x.ndim))
    mean, std = statistics.mean[modality.name], statistics.std[modality.name]
    for i in range(0, len(x), _CHUNK):  # No second copy of a data set that may fill half the memory.
      part = x[i : i + _CHUNK]
      bad = ~np.isfinite(part).all(frame_axes, keepdims=True)
      if bad.any():
        part = np.where(bad, np.float32(0), part)
      try:
        with np.errstate(over='raise'):
          part = (part - mean) / std
      except FloatingPointError:
        part = _far_from_training(modality, part, mean, std, inside[i : i + _CHUNK], i)
      if modality.has_length:
        part[~inside[i : i + _CHUNK]] = 0.0
      scaled[i : i + _CHUNK] = part
  return outputs


def _far_from_training(modality: ModalitySpec, part, mean, std, inside, first: int) -> np.ndarray:
  """Standardised values of which some leave float32: harmless where they pad, refused where they are content."""
  with np.errstate(over='ignore', invalid='ignore'):
    scaled = (part - mean) / std
  lost = ~np.isfinite(scaled)
  if modality.has_length:
    lost &= inside[..., None]
  if lost.any():
    at = tuple(np.argwhere(lost)[0])
    raise UserError(
      f'row {first + at[0]} of input {modality.name!r} holds {part[at]:.4g}; expected values like those of training, '
      f'which are {mean[at[-1]]:.4g} on average with a deviation of {std[at[-1]]:.4g}: is it in another unit?'
    )
  return scaled


def _lengths(spec: DatasetSpec, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {m.name: features[m.length_name] for m in spec.modalities if m.has_length}


def _observed(
  modality: ModalitySpec, m: int, features: Mapping[str, np.ndarray], keep: Keep | None, n: int
) -> np.ndarray:
  """Which frames (vectors, images) of a modality may be read, bool [n, T] or [n]."""
  observed = np.ones(n, bool) if keep is None else keep.slots[:, m]
  if not modality.has_length:
    return observed
  time = np.arange(modality.shape[0])
  observed = observed[:, None] & (time < features[modality.length_name][:, None])
  return observed & keep.frames[modality.name] if keep is not None and keep.frames else observed


def _measure(spec: DatasetSpec, features: Mapping[str, np.ndarray], keep: Keep | None) -> Statistics:
  """Statistics of the observed values; a modality without any gets mean 0 and deviation 1."""
  mean, std = {}, {}
  for m, modality in enumerate(spec.modalities):
    if modality.kind == 'tokens':
      continue
    x, width = features[modality.name], modality.shape[-1]
    observed = _observed(modality, m, features, keep, len(x))

    def moment(power: int, centre, x=x, observed=observed, width=width):
      # Selecting before computing: a removed NaN times zero would still be NaN.
      total, count = np.zeros(width), 0
      for i in range(0, len(x), _CHUNK):
        values = x[i : i + _CHUNK][observed[i : i + _CHUNK]].reshape(-1, width).astype(np.float64)
        total += ((values - centre) ** power).sum(0)
        count += len(values)
      return total / max(count, 1)

    centre = moment(1, 0.0)
    deviation = np.sqrt(moment(2, centre))
    floor = SMALLEST_STD * np.maximum(np.abs(centre), 1.0)
    mean[modality.name] = centre.astype(np.float32)
    std[modality.name] = np.where(deviation > floor, deviation, 1.0).astype(np.float32)
  return Statistics(mean, std)


def _without_removed(missing, spec, features, zero, keep: Keep, seed, keys) -> dict[str, np.ndarray]:
  """Standardised features of a split with all that is removed replaced, donors being what is observed in it."""
  donors, donor_rows = _observed_donors(missing, spec, features, keep, seed, keys)
  return fills.apply_missing(
    missing,
    spec,
    features,
    zero=zero,
    donors=donors,
    rows=np.arange(len(keys), dtype=np.int32),
    keep=keep,
    seed=seed,
    keys=keys,
    epoch=PREPARE_EPOCH,
    backend=NUMPY,
    donor_rows=donor_rows,
  )


def _observed_donors(missing, spec, features, keep: Keep, seed, keys) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Donors [n + 1, ...] with their observed frames moved to the front, and whose turn it is for each slot [n, M].

  Row n is for slots that nobody can give anything to: full length, no content.
  """
  n, donors = len(keys), {}
  donor_rows = np.empty([n, spec.num_modalities], np.int32)
  state = counter.sample_state(seed, PREPARE_EPOCH, keys, NUMPY)
  slots, first = np.arange(spec.num_modalities), np.arange(1)
  word, _ = counter.words(state, _DONOR, slots, first, NUMPY)
  for m, modality in enumerate(spec.modalities):
    x, givers = features[modality.name], keep.slots[:, m]
    if modality.has_length:
      length = features[modality.length_name]
      if in_parts(missing):
        observed = _observed(modality, m, features, keep, n)
        order = np.argsort(~observed, axis=1, kind='stable')
        x = np.take_along_axis(x, order.reshape(order.shape + (1,) * (x.ndim - 2)), 1)
        length = observed.sum(1, dtype=np.int32)
        givers = length > 0
      donors[modality.length_name] = np.append(length, np.int32(modality.shape[0]))
    donors[modality.name] = np.concatenate([x, np.zeros_like(x[:1])])
    donor_rows[:, m] = _draw_among(np.flatnonzero(givers), word[:, m])
    if 'swap' in missing.fills and not givers.any():
      raise UserError(
        f'no sample has {modality.name!r} left to swap in; use another fill than swap, or keep the modality somewhere'
      )
  return donors, donor_rows


def _draw_among(givers: np.ndarray, word: np.ndarray) -> np.ndarray:
  """One of the givers for each of n rows, never itself; n where there is no other."""
  n = len(word)
  rows = np.arange(n)
  rank = np.searchsorted(givers, rows)
  gives = np.isin(rows, givers)
  others = len(givers) - gives
  drawn = counter.below(word, np.maximum(others, 1), NUMPY)
  index = np.where(gives, rank + 1 + drawn, drawn) % max(len(givers), 1)
  chosen = givers[index] if len(givers) else rows
  return np.where(others > 0, chosen, n).astype(np.int32)
