"""Prediction: the parameters of all seeds on a whole split under one condition, every sample exactly once.

Masks are a function of (condition, seed, sample id): every method meets the same damage, so differences between methods
are paired. What comes back are NumPy arrays; metrics are computed from whole splits, never averaged over batches.

Dimension letters: S seeds, n samples of a split, B batch, M modalities, C outputs.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from dream_jax.data.pipeline import eval_batches
from dream_jax.data.prepare import Prepared
from dream_jax.missingness.missing import Missing
from dream_jax.models.coalitions import MAX_EXACT, coalition_matrix
from dream_jax.models.model import ORACLE_MASK
from dream_jax.parallel.mesh import fetch, own, put, put_own, sharding
from dream_jax.spec import ModalitySpec

# What leaves the devices; latents and reconstructions would be most of the traffic and no metric reads them.
_REPORTED = ('prediction', 'contributions', 'presence', 'gates', 'soft_mask', 'unimodal_predictions')
_CPU_ROWS, _ACCELERATOR_ROWS = 128, 2048
_SEEN_BYTES = 2**29


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
    scale: the scale of its labels.
    batch_size: rows of a batch.
  """

  def __init__(self, prepared: Prepared, mesh: jax.sharding.Mesh, *, batch_size: int, keep_bytes: int = 0):
    """Sets nothing up yet: batches are made when they are asked for.

    Args:
      prepared: the data.
      mesh: the devices to use.
      batch_size: rows of a batch over all devices; rounded to what they can share and the data fill.
      keep_bytes: how much may be kept for the next method. First come stays: methods ask in the same order, and
        throwing out the oldest would throw out what is asked for next.
    """
    self.prepared, self.scale = prepared, label_scale(prepared)
    self.batch_size = eval_rows(prepared, mesh, batch_size)
    self._mesh, self._where = mesh, sharding(mesh, 'data')
    self._left = keep_bytes
    self._kept: dict[Any, list[tuple[dict[str, jax.Array], dict[str, np.ndarray]]]] = {}
    self._known: dict[bytes, int] = {}
    self._numbers: dict[Any, tuple[np.ndarray, np.ndarray]] = {}

  def batches(
    self, split: str, missing: Missing, seed: int, wanted: np.ndarray | None = None
  ) -> Iterator[tuple[dict[str, jax.Array], dict[str, np.ndarray]]]:
    """(inputs on the devices, {'kept', 'weight', 'index'} on the host) of each batch, see `pipeline.eval_batches`.

    Args:
      split: name of the split.
      missing: what its samples lack.
      seed: decides what each sample lacks.
      wanted: bool [n], the samples that are wanted; all if None. One process only.
    """
    key = (split, missing, seed, None if wanted is None else wanted.tobytes())
    if key in self._kept:
      yield from self._kept[key]
      return
    made, size = [], 0
    source = self._on_host(split, missing, seed)
    for batch in source if wanted is None else _repacked(source, wanted, self.batch_size):
      rows = {name: batch[name] for name in ('kept', 'weight', 'index')}
      size += sum(x.nbytes for x in batch['inputs'].values())
      inputs = put_own(batch['inputs'], self._mesh, 'data')
      if size <= self._left:
        made.append((inputs, rows))
      yield inputs, rows
    if size <= self._left:
      self._left -= size
      self._kept[key] = made

  def numbers(self, split: str, missing: Missing, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(numbers int64 [n], kept [n, M]) of the samples' inputs under a condition; equal inputs have equal numbers.

    Masks and contents of a sample come from the same random words under every condition, so that what is removed at a
    low rate is removed at every higher one: many conditions show a model the very same input.
    """
    key = (split, missing, seed)
    if key not in self._numbers:
      n = len(self.prepared.splits[split])
      numbers, kept = np.empty(n, np.int64), np.empty((n, self.prepared.spec.num_modalities), np.float32)
      for batch in self._on_host(split, missing, seed):
        real = batch['weight'] > 0
        index = batch['index'][real]
        kept[index] = batch['kept'][real]
        # What a method with an oracle is told is an input, too.
        parts = [np.ascontiguousarray(x[real]) for x in (*batch['inputs'].values(), batch['kept'])]
        rows = np.concatenate([x.reshape(len(x), -1).view(np.uint8) for x in parts], axis=1)
        for place, row in zip(index, rows, strict=True):
          digest = hashlib.blake2b(row, digest_size=16).digest()
          numbers[place] = self._known.setdefault(digest, len(self._known))
      self._numbers[key] = numbers, kept
    return self._numbers[key]

  def _on_host(self, split: str, missing: Missing, seed: int) -> Iterator[dict[str, Any]]:
    """Batches of this process."""
    return eval_batches(
      self.prepared.splits[split],
      self.prepared,
      missing=missing,
      seed=seed,
      batch_size=self.batch_size,
      rows=own(self._mesh, 'data', self.batch_size),
    )

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


def _repacked(source: Iterator[dict[str, Any]], wanted: np.ndarray, batch_size: int) -> Iterator[dict[str, Any]]:
  """The wanted samples of batches, packed into batches of the same size; the last one is filled up at weight 0."""
  names = ('inputs', 'kept', 'weight', 'index')
  waiting: list[dict[str, Any]] = []
  count = 0
  for batch in source:
    take = (batch['weight'] > 0) & wanted[batch['index']]
    waiting.append(jax.tree.map(lambda x, t=take: x[t], {name: batch[name] for name in names}))
    count += int(take.sum())
    while count >= batch_size:
      whole = jax.tree.map(lambda *x: np.concatenate(x), *waiting)
      yield jax.tree.map(lambda x: x[:batch_size], whole)
      waiting, count = [jax.tree.map(lambda x: x[batch_size:], whole)], count - batch_size
  if count:
    rest = jax.tree.map(lambda *x: np.concatenate(x), *waiting)
    fill = batch_size - count
    yield jax.tree.map(lambda x: np.concatenate([x, np.zeros((fill, *x.shape[1:]), x.dtype)]), rest)


class Seen:
  """What one set of parameters said of the inputs it has met, by their numbers; see `EvalInputs.numbers`."""

  def __init__(self):
    self.outputs: dict[str, np.ndarray] = {}
    self._there = np.zeros(0, bool)

  @property
  def full(self) -> bool:
    """Whether it holds as much as it may."""
    return sum(x.nbytes for x in self.outputs.values()) > _SEEN_BYTES

  def lacks(self, numbers: np.ndarray) -> np.ndarray:
    """Bool [n]: the first samples of inputs that were not met before; room is made for them."""
    size = int(numbers.max()) + 1
    if size > len(self._there):
      more = max(size, 2 * len(self._there)) - len(self._there)
      self._there = np.concatenate([self._there, np.zeros(more, bool)])
      for name, x in self.outputs.items():
        self.outputs[name] = np.concatenate([x, np.empty((x.shape[0], more, *x.shape[2:]), x.dtype)], axis=1)
    first = np.zeros(len(numbers), bool)
    first[np.unique(numbers, return_index=True)[1]] = True
    return first & ~self._there[numbers]

  def learn(self, numbers: np.ndarray, found: dict[str, np.ndarray]) -> None:
    """Outputs [S, n, ...] of inputs with these numbers."""
    for name, values in found.items():
      shape = (values.shape[0], len(self._there), *values.shape[2:])
      place = self.outputs.setdefault(name, np.empty(shape, values.dtype))
      place[:, numbers] = values
    self._there[numbers] = True


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
      mesh: the devices to use.
      abstract_params: shapes of the parameters with leading axis S.
      abstract_inputs: shapes of a batch of inputs.
      compiler_options: options for XLA.
      oracle: whether the model is told what is missing.
    """
    self._oracle = oracle

    def forward(params, inputs):
      outputs = jax.vmap(lambda p: model.apply({'params': p}, inputs, train=False))(params)
      return {name: getattr(outputs, name) for name in _REPORTED if getattr(outputs, name) is not None}

    mapped = jax.shard_map(
      forward, mesh=mesh, in_specs=(P('seed'), P('data')), out_specs=P('seed', 'data'), check_vma=False
    )
    self._forward = jax.jit(mapped).lower(abstract_params, abstract_inputs).compile(compiler_options=compiler_options)

  def split(
    self,
    params: Any,
    inputs: EvalInputs,
    split: str,
    *,
    missing: Missing,
    seed: int,
    only: Iterable[str] = _REPORTED,
    seen: Seen | None = None,
  ) -> dict[str, np.ndarray]:
    """Outputs for a whole split, name -> [S, n, ...], and 'kept' [n, M], the share of each modality that was left.

    Args:
      params: leading axis S.
      inputs: the inputs of evaluation.
      split: name of the split.
      missing: what its samples lack.
      seed: decides what each sample lacks.
      only: names of the outputs that are wanted; the same in every call with one `seen`.
      seen: what these parameters said before: inputs that occur in it are not predicted again.
    """
    if seen is None or seen.full or jax.process_count() > 1:
      found, kept = self._predict(params, inputs, only, split, missing, seed)
    else:
      numbers, kept = inputs.numbers(split, missing, seed)
      wanted = seen.lacks(numbers)
      if wanted.any():
        new, _ = self._predict(params, inputs, only, split, missing, seed, wanted)
        seen.learn(numbers[wanted], {name: x[:, wanted] for name, x in new.items()})
      found = {name: x[:, numbers] for name, x in seen.outputs.items()}
    return {**_restored(found, inputs.scale), 'kept': kept}

  def _predict(self, params, inputs, only, *where) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(outputs [S, n, ...] as models give them, kept [n, M]) of the samples that are wanted."""
    split = where[0]
    n = len(inputs.prepared.splits[split])
    found: dict[str, np.ndarray] = {}
    kept = np.empty((n, inputs.prepared.spec.num_modalities), np.float32)
    started: list[tuple[dict[str, jax.Array], dict[str, Any]]] = []
    for batch, rows in inputs.batches(*where):
      # A batch is made while the devices are at work on the one before.
      told = inputs.told(rows) if self._oracle else {}
      started.append((self._forward(params, {**batch, **told}), rows))
      if len(started) > 1:
        _collect(*started.pop(0), found, kept, n, only)
    for outputs, rows in started:
      _collect(outputs, rows, found, kept, n, only)
    return found, kept

  def coalitions(self, params: Any, inputs: EvalInputs, split: str, *, seed: int) -> dict[str, np.ndarray]:
    """Outputs for every coalition of modalities, name -> [S, n, G, ...], in the order of `coalition_matrix`.

    Raw zeros stand for what is not in the coalition. A batch holds all coalitions of its samples.

    Args:
      params: leading axis S.
      inputs: the inputs of evaluation.
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
        values = fetch(values)[:, : size * each]
        values = values.reshape(values.shape[0], size, each, *values.shape[2:])
        place = found.setdefault(name, np.empty((values.shape[0], n, *values.shape[2:]), values.dtype))
        place[:, index] = values
    return _restored(found, inputs.scale)


def _restored(found: dict[str, np.ndarray], scale: LabelScale) -> dict[str, np.ndarray]:
  """Outputs with predictions in the units of the labels."""
  targets = ('prediction', 'unimodal_predictions')
  return {name: scale.restore(x) if name in targets else x for name, x in found.items()}


def _collect(outputs, rows, found, kept, n, only) -> None:
  """Writes the rows of one batch to their places; padding has weight zero and goes nowhere."""
  index, weight, share = rows['index'], rows['weight'], rows['kept']
  real = weight > 0
  kept[index[real]] = share[real]
  for name in only:
    if name in outputs:
      values = fetch(outputs[name])
      place = found.setdefault(name, np.empty((values.shape[0], n, *values.shape[2:]), values.dtype))
      place[:, index[real]] = values[:, real]
