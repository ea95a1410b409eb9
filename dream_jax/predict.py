"""Prediction: the parameters of all seeds on a whole split under one condition, every sample exactly once.

Masks are a function of (condition, seed, sample id): every method meets the same damage, so differences between methods
are paired. What comes back are NumPy arrays; metrics are computed from whole splits, never averaged over batches.

Dimension letters: S seeds, n samples of a split, B batch, M modalities, C outputs.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dream_jax.data.datasets import Split
from dream_jax.data.missing import Missing
from dream_jax.data.pipeline import eval_batches
from dream_jax.data.prepare import Prepared
from dream_jax.models.baselines.concat import ORACLE_MASK
from dream_jax.parallel.mesh import put, sharding

# What leaves the devices; latents and reconstructions would be most of the traffic and no metric reads them.
_REPORTED = ('prediction', 'contributions', 'presence', 'gates', 'soft_mask', 'unimodal_predictions')


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


class Predictor:
  """One compiled forward pass of all seeds on a batch of fixed size.

  Attributes:
    batch_size: rows of that batch.
  """

  def __init__(
    self,
    model: Any,
    mesh: jax.sharding.Mesh,
    abstract_params: Any,
    prepared: Prepared,
    *,
    batch_size: int,
    compiler_options: dict[str, Any],
    oracle: bool = False,
  ):
    """Compiles.

    Args:
      model: Flax module that returns `Outputs`.
      mesh: of the devices.
      abstract_params: shapes of the parameters with leading axis S.
      prepared: the data, for shapes and the scale of labels.
      batch_size: rows of a batch over all devices; rounded up to what they can share.
      compiler_options: of XLA.
      oracle: whether the model is told what is missing.
    """
    ways = mesh.shape['data']
    largest = max(len(split) for split in prepared.splits.values())
    self.batch_size = -(-min(batch_size, largest) // ways) * ways
    self._oracle, self._prepared, self._scale = oracle, prepared, label_scale(prepared)
    self._where = sharding(mesh, 'data')

    def forward(params, inputs):
      outputs = jax.vmap(lambda p: model.apply({'params': p}, inputs, train=False))(params)
      return {name: getattr(outputs, name) for name in _REPORTED if getattr(outputs, name) is not None}

    first = next(self._batches(prepared.splits['validation'], Missing(), 0))
    compiled = jax.jit(forward, out_shardings=sharding(mesh, 'seed', 'data'))
    self._forward = compiled.lower(abstract_params, self._inputs(first)).compile(compiler_options=compiler_options)

  def split(
    self, params: Any, split: Split, *, missing: Missing, seed: int, only: Iterable[str] = _REPORTED
  ) -> dict[str, np.ndarray]:
    """Outputs for a whole split, name -> [S, n, ...], and 'kept' [n, M], the share of each modality that was left.

    Args:
      params: leading axis S.
      split: one of the prepared splits.
      missing: what its samples lack.
      seed: decides what each sample lacks.
      only: names of the outputs that are wanted.
    """
    n = len(split)
    found: dict[str, np.ndarray] = {}
    kept = np.empty((n, self._prepared.spec.num_modalities), np.float32)
    started: list[tuple[dict[str, jax.Array], dict[str, Any]]] = []
    for batch in self._batches(split, missing, seed):
      # A batch is made while the devices are at work on the one before.
      started.append((self._forward(params, self._inputs(batch)), batch))
      if len(started) > 1:
        self._collect(*started.pop(0), found, kept, n, only)
    for outputs, batch in started:
      self._collect(outputs, batch, found, kept, n, only)
    if 'prediction' in found:
      found['prediction'] = self._scale.restore(found['prediction'])
    if 'unimodal_predictions' in found:
      found['unimodal_predictions'] = self._scale.restore(found['unimodal_predictions'])
    return {**found, 'kept': kept}

  def _batches(self, split: Split, missing: Missing, seed: int):
    return eval_batches(
      split,
      self._prepared,
      missing=missing,
      seed=seed,
      batch_size=self.batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def _inputs(self, batch: dict[str, Any]) -> dict[str, jax.Array]:
    told = {ORACLE_MASK: batch['kept']} if self._oracle else {}
    return put({**batch['inputs'], **told}, self._where)

  def _collect(self, outputs, batch, found, kept, n, only) -> None:
    """Writes the rows of one batch to their places; padding has weight zero and goes nowhere."""
    rows, weight, share = batch['index'], batch['weight'], batch['kept']
    if jax.process_count() > 1:
      rows, weight, share = multihost_utils.process_allgather((rows, weight, share), tiled=True)
      outputs = multihost_utils.process_allgather(outputs, tiled=True)
    real = weight > 0
    kept[rows[real]] = share[real]
    for name in only:
      if name in outputs:
        values = np.asarray(outputs[name])
        place = found.setdefault(name, np.empty((values.shape[0], n, *values.shape[2:]), values.dtype))
        place[:, rows[real]] = values[:, real]
