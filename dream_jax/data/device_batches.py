"""Superbatches made on the devices, from a data set that lies there: the default where it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from dream_jax.data.pipeline import Batch, check_training, flat_batch, per_run, training_arrays
from dream_jax.data.prepare import Prepared
from dream_jax.errors import UserError
from dream_jax.missingness import counter
from dream_jax.missingness.missing import Missing
from dream_jax.parallel.mesh import put, sharding


class DeviceBatches:
  """The superbatches of `train_batches`, bit for bit, made on the devices from a data set that lies there.

  One compiled program serves every method: what it makes depends on the data and the injection alone.
  """

  def __init__(
    self,
    prepared: Prepared,
    *,
    inject: Missing,
    batch_size: int,
    num_seeds: int,
    steps_per_call: int,
    with_clean: bool,
    label: np.ndarray,
    mesh: Mesh,
    compiler_options: dict[str, Any] | None = None,
  ):
    """Moves the training split to the devices and compiles.

    Args:
      prepared: the data.
      inject: kind, law and fills of what is injected; the rates come with each call of `batches`.
      batch_size: rows B of the global batch.
      num_seeds: S.
      steps_per_call: K.
      with_clean: whether to give the inputs before the injection, too.
      label: labels of the training split as models read them.
      mesh: the devices; each makes its own seeds and rows and holds the whole split.
      compiler_options: options for XLA.
    """
    seeds = (0,) * num_seeds
    check_training(prepared, inject, seeds, steps_per_call)
    self._inject, self._per_call, self._mesh = inject, steps_per_call, mesh
    everywhere = sharding(mesh)
    arrays, backend = training_arrays(prepared, inject, seeds, None), counter.backend('jax')
    arrays['label'] = label
    n = len(prepared.splits['train'])

    def superbatch(data, runs, positions, first):
      steps = jnp.arange(steps_per_call, dtype=jnp.int32)
      batch = flat_batch(
        prepared.spec, inject, {**data, **runs}, steps, positions, batch_size, with_clean, backend, first=first
      )
      lead = (steps_per_call, len(runs['seeds']), len(positions))
      return jax.tree.map(lambda x: x.reshape(lead + x.shape[1:]), batch)

    if n * 2 + batch_size * steps_per_call >= 2**31:
      raise UserError(f'{n} training samples are too many for data on the device; set config.train.data_path=host')
    self._n, self._batch_size = n, batch_size
    runs = self._placed({name: arrays.pop(name) for name in per_run(inject, seeds, None)})
    self._data = put(arrays, everywhere)
    self._positions = put(np.arange(batch_size, dtype=np.int32), sharding(mesh, 'data'))
    made = jax.shard_map(
      superbatch,
      mesh=mesh,
      in_specs=(P(), P('seed'), P('data'), P()),
      out_specs=P(None, 'seed', 'data'),
      check_vma=False,
    )
    lowered = jax.jit(made).lower(self._data, runs, self._positions, self._first(0))
    self._make = lowered.compile(compiler_options=compiler_options)

  def batches(
    self, seeds: Sequence[int], rates: Sequence[float] | None, *, start_step: int, num_steps: int
  ) -> Iterator[Batch]:
    """Superbatches [K, S, B] on the devices; `num_steps` is a multiple of K.

    Args:
      seeds: the S runs.
      rates: S rates instead of `inject.rate`.
      start_step: first step.
      num_steps: number of steps from there on.
    """
    runs = self._placed(per_run(self._inject, seeds, rates))
    for step in range(start_step, start_step + num_steps, self._per_call):
      yield self._make(self._data, runs, self._positions, self._first(step))

  def _placed(self, runs: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    return put(runs, sharding(self._mesh, 'seed'))

  def _first(self, step: int) -> tuple[jax.Array, jax.Array]:
    """Epoch and position of the first sample of a step: 64-bit sample counters do not exist on devices."""
    epoch, position = divmod(step * self._batch_size, self._n)
    return put((np.int32(epoch), np.int32(position)), sharding(self._mesh))
