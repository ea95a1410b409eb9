"""Batches: for training many steps and seeds at once; plain NumPy for evaluation, every sample once.

Training data come from tf.data on the host, or, where the data set fits there, from the devices themselves: the same
bits, made by the same code (`device_batches.py`). The training pipeline is stateless. One element is a whole superbatch
[K steps, S seeds, B rows]: its rows, masks and fills are computed by few big operations from the step counter, and
start_step continues any run exactly. A process takes its rows of each global batch, so the global batch is the same on
any number of processes.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dream_jax.data.datasets import Split
from dream_jax.data.prepare import Prepared
from dream_jax.data.sampler import batch_rows
from dream_jax.errors import UserError
from dream_jax.machine import host_tensorflow
from dream_jax.missingness import counter, fills
from dream_jax.missingness.counter import NUMPY
from dream_jax.missingness.missing import EVALUATE_EPOCH, Missing, draw_keep, validate
from dream_jax.spec import DatasetSpec

Batch = dict[str, Any]

# Superbatches under way in parallel, and ready ahead: they are large, so no more than keep two cores busy.
_PARALLEL, _READY = 2, 1


def train_batches(
  prepared: Prepared,
  *,
  inject: Missing,
  batch_size: int,
  seeds: Sequence[int],
  start_step: int,
  num_steps: int,
  steps_per_call: int,
  with_clean: bool,
  rates: Sequence[float] | None = None,
  rows: slice = slice(None),
) -> Iterator[Batch]:
  """Superbatches of the training split, NumPy arrays with leading axes [K, S, B], made by tf.data on the host.

  Every seed has its own order of samples and its own missingness; both are pure functions of the seed and the step.

  Args:
    prepared: the data.
    inject: what each visit of a sample lacks, anew in every epoch.
    batch_size: rows of the global batch.
    seeds: the S runs that train side by side.
    start_step: first step.
    num_steps: number of steps from there on.
    steps_per_call: K; the last superbatch has what is left.
    with_clean: whether to give the inputs before the injection, too.
    rates: S rates instead of `inject.rate`.
    rows: which of them are wanted, B: a process reads its own.

  Returns:
    An iterator of {'inputs': {name: [K, S, B, ...]}, 'clean': the same before the injection (only `with_clean`),
    'label': [K, S, B] or [K, S, B, C], 'kept': float32 [K, S, B, M], the share that the injection left, and, where it
    removes parts of sequences, 'kept_frames': {name: bool [K, S, B, T]}}.

  Raises:
    UserError: a specification that does not fit the data, or sizes that do not divide.
  """
  check_training(prepared, inject, seeds, steps_per_call)
  mine = range(batch_size)[rows]
  tf = host_tensorflow.load()  # Not at the top: evaluation and the notebook API do without it.

  tensors = counter.backend('tensorflow')
  with tf.device('CPU:0'):
    data = tf.nest.map_structure(tf.constant, training_arrays(prepared, inject, seeds, rates))

  # Every op is written out; looking for Python control flow to translate would cost a second or two at the start.
  @tf.autograph.experimental.do_not_convert
  def superbatch(first):
    steps = tf.range(first, tf.minimum(first + steps_per_call, start_step + num_steps))
    positions = tf.range(mine.start, mine.stop, dtype=tf.int64)
    batch = flat_batch(prepared.spec, inject, data, steps, positions, batch_size, with_clean, tensors)
    lead = (-1, len(seeds), len(mine))
    return tf.nest.map_structure(lambda x: tf.reshape(x, lead + tuple(x.shape[1:])), batch)

  with tf.device('CPU:0'):
    dataset = tf.data.Dataset.range(start_step, start_step + num_steps, steps_per_call)
    dataset = dataset.map(superbatch, num_parallel_calls=_PARALLEL, deterministic=True).prefetch(_READY)
  return dataset.as_numpy_iterator()


def training_arrays(
  prepared: Prepared, inject: Missing, seeds: Sequence[int], rates: Sequence[float] | None
) -> dict[str, Any]:
  """What `flat_batch` reads, as NumPy arrays."""
  split = prepared.splits['train']
  return {
    'features': dict(split.features),
    'keys': split.keys,
    'label': split.label,
    'zero': dict(prepared.zero),
    **per_run(inject, seeds, rates),
  }


def per_run(inject: Missing, seeds: Sequence[int], rates: Sequence[float] | None) -> dict[str, np.ndarray]:
  """Seeds and injection thresholds of the runs, uint32 [S]."""
  rates = (inject.rate,) * len(seeds) if rates is None else rates
  return {
    'seeds': np.array([s & 0xFFFFFFFF for s in seeds], np.uint32),
    'limits': np.array([counter.threshold(rate) for rate in rates], np.uint32),
  }


def flat_batch(
  spec: DatasetSpec,
  inject: Missing,
  data: dict[str, Any],
  steps: Any,
  positions: Any,
  batch_size: int,
  with_clean: bool,
  backend: counter.NumpyBackend,
  first: tuple[Any, Any] | None = None,
) -> Batch:
  """The samples [K S B, ...] of some steps of all runs, in the arrays of any framework."""
  n = data['keys'].shape[0]
  rows, seed, epoch = batch_rows(
    steps, positions, data['seeds'], n=n, batch_size=batch_size, backend=backend, first=first
  )
  lead = backend.shape(rows)
  limit = backend.broadcast_to(data['limits'][None, :, None], lead)
  rows, seed, epoch, limit = (backend.reshape(x, (-1,)) for x in (rows, seed, epoch, limit))
  clean = {name: backend.take(x, rows) for name, x in data['features'].items()}
  drawn = {'seed': seed, 'keys': backend.take(data['keys'], rows), 'epoch': epoch, 'backend': backend}
  keep = draw_keep(
    inject, spec, lengths=_lengths(spec, clean), limit=limit if inject.kind == 'modality' else None, **drawn
  )
  inputs = fills.apply_missing(
    inject, spec, clean, zero=data['zero'], donors=data['features'], rows=rows, keep=keep, **drawn
  )
  batch = {'inputs': inputs, 'label': backend.take(data['label'], rows), 'kept': keep.share}
  if keep.frames:
    stays = {name: keep.slots[:, spec.index(name)][:, None] for name in keep.frames}
    batch['kept_frames'] = {name: frames & stays[name] for name, frames in keep.frames.items()}
  return {**batch, 'clean': clean} if with_clean else batch


def check_training(prepared: Prepared, inject: Missing, seeds: Sequence[int], steps_per_call: int) -> None:
  validate(inject, prepared.spec)
  _check_size(inject, prepared.splits['train'], 'train')
  if not seeds or steps_per_call < 1:
    raise UserError(f'{len(seeds)} seeds and {steps_per_call} steps per call; expected at least 1 of each')


def eval_batches(
  split: Split,
  prepared: Prepared,
  *,
  missing: Missing,
  seed: int,
  batch_size: int,
  rows: slice = slice(None),
) -> Iterator[Batch]:
  """Batches of a split in its own order, every sample exactly once; all processes get as many.

  Args:
    split: one of `prepared.splits`.
    prepared: the data it belongs to.
    missing: what the samples lack, the same for every method under the same seed.
    seed: decides what each sample lacks.
    batch_size: rows of the global batch; a process gets batch_size / process_count.
    rows: which of them are wanted, B: a process reads its own.

  Returns:
    An iterator of {'inputs': {name: [B, ...]}} of the rows that are wanted, and of all rows 'label', 'kept': float32
    [batch_size, M], 'weight': float32 [batch_size], 'index': int32 [batch_size], row of the split. The last batch is
    filled up with row 0 at weight 0.

  Raises:
    UserError: a specification that does not fit the data, or sizes that do not divide.
  """
  validate(missing, prepared.spec)
  _check_size(missing, split, 'evaluated')
  return _eval_batches(split, prepared, missing, seed, batch_size, rows)


def _eval_batches(split, prepared, missing, seed, batch_size, mine) -> Iterator[Batch]:
  n, spec = len(split), prepared.spec
  for start in range(0, n, batch_size):
    index = np.arange(start, start + batch_size, dtype=np.int32)
    weight = (index < n).astype(np.float32)
    index = np.where(index < n, index, np.int32(0))
    drawn = {'seed': seed, 'epoch': EVALUATE_EPOCH, 'backend': NUMPY}
    lengths = {name: x[index] for name, x in _lengths(spec, split.features).items()}
    keep = draw_keep(missing, spec, lengths=lengths, keys=split.keys[index], **drawn)
    rows = index[mine]
    clean = {name: x[rows] for name, x in split.features.items()}
    inputs = fills.apply_missing(
      missing,
      spec,
      clean,
      zero=prepared.zero,
      donors=split.features,
      rows=rows,
      keys=split.keys[rows],
      keep=keep.of(mine),
      **drawn,
    )
    yield {'inputs': inputs, 'label': split.label[index], 'kept': keep.share, 'weight': weight, 'index': index}


def device_prefetch(iterator: Iterator[Any], put: Callable[[Any], Any], depth: int = 2) -> Iterator[Any]:
  """What `put` makes of each element, started for `depth` elements before the first is asked for.

  Args:
    iterator: where batches come from.
    put: starts moving one to the devices and returns at once, such as `jax.device_put`.
    depth: how many are on the devices ahead of the one in use, at least 1.
  """
  ahead = collections.deque()
  for batch in iterator:
    ahead.append(put(batch))
    if len(ahead) > depth:
      yield ahead.popleft()
  while ahead:
    yield ahead.popleft()


def _lengths(spec: DatasetSpec, features) -> dict[str, Any]:
  return {m.name: features[m.length_name] for m in spec.modalities if m.has_length}


def _check_size(missing: Missing, split: Split, name: str) -> None:
  if missing.kind != 'none' and len(split) < 2:
    raise UserError(f'the {name} split has {len(split)} samples; missingness needs 2: one stands in for the other')
