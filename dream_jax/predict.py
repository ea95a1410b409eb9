"""Prediction: the parameters of all seeds on a whole split under one condition, every sample exactly once.

Masks are a function of (condition, seed, sample id): every method meets the same damage, so differences between methods
are paired. What comes back are NumPy arrays; metrics are computed from whole splits, never averaged over batches.

Dimension letters: S seeds, n samples of a split, B batch, M modalities, C outputs.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dream_jax.data.missing import Missing
from dream_jax.data.pipeline import eval_batches
from dream_jax.data.prepare import Prepared
from dream_jax.models.coalitions import MAX_EXACT, coalition_matrix
from dream_jax.models.model import ORACLE_MASK
from dream_jax.parallel.mesh import put, sharding
from dream_jax.spec import ModalitySpec

# What leaves the devices; latents and reconstructions would be most of the traffic and no metric reads them.
_REPORTED = ('prediction', 'contributions', 'presence', 'gates', 'soft_mask', 'unimodal_predictions')
_CPU_ROWS, _ACCELERATOR_ROWS = 128, 2048


@dataclasses.dataclass(frozen=True)
class LabelScale:
  """Standardisation of a regression target: models read and predict (label - mean) / std; 0 and 1 for other tasks."""

  mean: float = 0.0
  std: float = 1.0

  def standardise(self, label: np.ndarray) -> np.ndarray:
    """Labels as models read them; class labels pass unchanged."""
    if label.dtype.kind != 'f' or (self.mean, self.std) == (0.0, 1.0):
      return label
    return ((label - self.mean) / self.std).astype(np.float32)

  def restore(self, prediction: np.ndarray) -> np.ndarray:
    """Predictions in the units of the labels."""
    return (
      prediction if (self.mean, self.std) == (0.0, 1.0) else prediction * np.float32(self.std) + np.float32(self.mean)
    )


def label_scale(prepared: Prepared) -> LabelScale:
  """Scale of the training labels of a regression task; the identity otherwise."""
  if prepared.spec.task != 'regression':
    return LabelScale()
  label = prepared.splits['train'].label.astype(np.float64)
  return LabelScale(float(label.mean()), float(label.std()) or 1.0)


class EvalInputs:
  """Inputs of whole splits under conditions of missingness, on the devices; what one method made the next one reads.

  Attributes:
    prepared: the data.
    scale: of its labels.
    batch_size: rows of a batch.
  """

  def __init__(self, prepared: Prepared, mesh: jax.sharding.Mesh, *, batch_size: int, keep_bytes: int = 0):
    """Sets nothing up yet: batches are made when they are asked for.

    Args:
      prepared: the data.
      mesh: of the devices.
      batch_size: rows of a batch over all devices; rounded to what they can share and the data fill.
      keep_bytes: how much may be kept for the next method. First come stays: methods ask in the same order, and
        throwing out the oldest would throw out what is asked for next.
    """
    self.prepared, self.scale = prepared, label_scale(prepared)
    self.batch_size = eval_rows(prepared, mesh, batch_size)
    self._where = sharding(mesh, 'data')
    self._left = keep_bytes
    self._kept: dict[Any, list[tuple[dict[str, jax.Array], dict[str, np.ndarray]]]] = {}

  def batches(
    self, split: str, missing: Missing, seed: int
  ) -> Iterator[tuple[dict[str, jax.Array], dict[str, np.ndarray]]]:
    """(inputs on the devices, {'kept', 'weight', 'index'} on the host) of each batch, see `pipeline.eval_batches`."""
    key = (split, missing, seed)
    if key in self._kept:
      yield from self._kept[key]
      return
    made, size = [], 0
    for batch in eval_batches(
      self.prepared.splits[split],
      self.prepared,
      missing=missing,
      seed=seed,
      batch_size=self.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ):
      rows = {name: batch[name] for name in ('kept', 'weight', 'index')}
      size += sum(x.nbytes for x in batch['inputs'].values())
      inputs = put(batch['inputs'], self._where)
      if size <= self._left:
        made.append((inputs, rows))
      yield inputs, rows
    if size <= self._left:
      self._left -= size
      self._kept[key] = made

  def coalition_batches(
    self, split: str, seed: int
  ) -> Iterator[tuple[dict[str, jax.Array], dict[str, Any], np.ndarray]]:
    """(inputs on the devices, {'kept', 'coalitions': G}, indices of the samples) of batches of all coalitions.

    Rows of a batch are [samples, G] flattened, filled up with zeros.
    """
    spec, data = self.prepared.spec, self.prepared.splits[split]
    members = coalition_matrix(spec.num_modalities)
    n, each = len(data), len(members)
    whole = next(self._whole(split, Missing(), seed))['inputs']
    removed: dict[str, np.ndarray] = {}
    for modality in spec.modalities:
      others = tuple(name for name in spec.names if name != modality.name)
      made = next(self._whole(split, Missing('subset', kept=others), seed))['inputs']
      removed.update({name: made[name] for name in _features(modality)})
    per_batch = max(1, self.batch_size // each)
    rows = self.batch_size
    for start in range(0, n, per_batch):
      index = np.arange(start, min(start + per_batch, n))
      kept = np.zeros((rows, spec.num_modalities), np.float32)
      kept[: len(index) * each] = np.tile(members, (len(index), 1))
      inputs = {}
      for m, modality in enumerate(spec.modalities):
        for name in _features(modality):
          x = np.zeros((rows, *whole[name].shape[1:]), whole[name].dtype)
          there = members[:, m].reshape(1, each, *(1,) * (x.ndim - 1))
          both = np.where(there, whole[name][index][:, None], removed[name][index][:, None])
          x[: len(index) * each] = both.reshape(-1, *x.shape[1:])
          inputs[name] = x
      yield put(inputs, self._where), {'kept': kept, 'coalitions': each}, index

  def _whole(self, split: str, missing: Missing, seed: int) -> Iterator[dict[str, Any]]:
    """The split as one batch."""
    data = self.prepared.splits[split]
    return eval_batches(data, self.prepared, missing=missing, seed=seed, batch_size=len(data))

  def told(self, rows: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """What a method with an oracle is told of a batch."""
    return put({ORACLE_MASK: rows['kept']}, self._where)


def _features(modality: ModalitySpec) -> list[str]:
  return [modality.name, *([modality.length_name] if modality.has_length else [])]


def eval_rows(prepared: Prepared, mesh: jax.sharding.Mesh, batch_size: int) -> int:
  """Rows of a batch of evaluation: at most `batch_size` and the largest split, a multiple of what devices share.

  With 0 what suits the device: on a CPU activations should stay in its caches. Never fewer rows than coalitions.
  """
  ways, m = mesh.shape['data'], prepared.spec.num_modalities
  batch_size = batch_size or (_CPU_ROWS * ways if jax.default_backend() == 'cpu' else _ACCELERATOR_ROWS)
  rows = min(batch_size, max(len(split) for split in prepared.splits.values()))
  return -(-max(rows, len(coalition_matrix(m)) if m <= MAX_EXACT else 1) // ways) * ways


class Predictor:
  """One compiled forward pass of all seeds on a batch of fixed size; it knows shapes and no data."""

  def __init__(
    self,
    model: Any,
    mesh: jax.sharding.Mesh,
    abstract_params: Any,
    abstract_inputs: Any,
    *,
    compiler_options: dict[str, Any],
    oracle: bool = False,
  ):
    """Compiles.

    Args:
      model: Flax module that returns `Outputs`.
      mesh: of the devices.
      abstract_params: shapes of the parameters with leading axis S.
      abstract_inputs: shapes of a batch of inputs.
      compiler_options: of XLA.
      oracle: whether the model is told what is missing.
    """
    self._oracle = oracle

    def forward(params, inputs):
      outputs = jax.vmap(lambda p: model.apply({'params': p}, inputs, train=False))(params)
      return {name: getattr(outputs, name) for name in _REPORTED if getattr(outputs, name) is not None}

    compiled = jax.jit(forward, out_shardings=sharding(mesh, 'seed', 'data'))
    self._forward = compiled.lower(abstract_params, abstract_inputs).compile(compiler_options=compiler_options)

  def split(
    self,
    params: Any,
    inputs: EvalInputs,
    split: str,
    *,
    missing: Missing,
    seed: int,
    only: Iterable[str] = _REPORTED,
  ) -> dict[str, np.ndarray]:
    """Outputs for a whole split, name -> [S, n, ...], and 'kept' [n, M], the share of each modality that was left.

    Args:
      params: leading axis S.
      inputs: of the data.
      split: name of the split.
      missing: what its samples lack.
      seed: decides what each sample lacks.
      only: names of the outputs that are wanted.
    """
    n = len(inputs.prepared.splits[split])
    found: dict[str, np.ndarray] = {}
    kept = np.empty((n, inputs.prepared.spec.num_modalities), np.float32)
    started: list[tuple[dict[str, jax.Array], dict[str, Any]]] = []
    for batch, rows in inputs.batches(split, missing, seed):
      # A batch is made while the devices are at work on the one before.
      told = inputs.told(rows) if self._oracle else {}
      started.append((self._forward(params, {**batch, **told}), rows))
      if len(started) > 1:
        _collect(*started.pop(0), found, kept, n, only)
    for outputs, rows in started:
      _collect(outputs, rows, found, kept, n, only)
    for name in ('prediction', 'unimodal_predictions'):
      if name in found:
        found[name] = inputs.scale.restore(found[name])
    return {**found, 'kept': kept}

  def coalitions(self, params: Any, inputs: EvalInputs, split: str, *, seed: int) -> dict[str, np.ndarray]:
    """Outputs for every coalition of modalities, name -> [S, n, G, ...], in the order of `coalition_matrix`.

    Raw zeros stand for what is not in the coalition. A batch holds all coalitions of its samples.

    Args:
      params: leading axis S.
      inputs: of the data.
      split: name of the split.
      seed: decides which lengths removed sequences get.
    """
    n = len(inputs.prepared.splits[split])
    found: dict[str, np.ndarray] = {}
    for batch, rows, index in inputs.coalition_batches(split, seed):
      told = inputs.told(rows) if self._oracle else {}
      outputs = self._forward(params, {**batch, **told})
      size, each = len(index), rows['coalitions']
      for name, values in outputs.items():
        values = np.asarray(values)[:, : size * each]
        values = values.reshape(values.shape[0], size, each, *values.shape[2:])
        place = found.setdefault(name, np.empty((values.shape[0], n, *values.shape[2:]), values.dtype))
        place[:, index] = values
    for name in ('prediction', 'unimodal_predictions'):
      if name in found:
        found[name] = inputs.scale.restore(found[name])
    return found


def _collect(outputs, rows, found, kept, n, only) -> None:
  """Writes the rows of one batch to their places; padding has weight zero and goes nowhere."""
  index, weight, share = rows['index'], rows['weight'], rows['kept']
  if jax.process_count() > 1:
    index, weight, share = multihost_utils.process_allgather((index, weight, share), tiled=True)
    outputs = multihost_utils.process_allgather(outputs, tiled=True)
  real = weight > 0
  kept[index[real]] = share[real]
  for name in only:
    if name in outputs:
      values = np.asarray(outputs[name])
      place = found.setdefault(name, np.empty((values.shape[0], n, *values.shape[2:]), values.dtype))
      place[:, index[real]] = values[:, real]
