"""Superbatches made on the devices, from a data set that lies there: the default where it fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.data import counter
from dream_jax.data.missing import Missing
from dream_jax.data.pipeline import Batch, check_training, flat_batch, per_run, training_arrays
from dream_jax.data.prepare import Prepared
from dream_jax.errors import UserError


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
    everywhere: jax.sharding.Sharding,
    out: jax.sharding.Sharding,
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
      everywhere: sharding of what every device holds whole.
      out: sharding of superbatches.
      compiler_options: of XLA.
    """
    seeds = (0,) * num_seeds
    check_training(prepared, inject, seeds, steps_per_call)
    self._inject, self._per_call, self._everywhere = inject, steps_per_call, everywhere
    arrays, backend = training_arrays(prepared, inject, seeds, None), counter.backend('jax')
    arrays['label'] = label
    n = len(prepared.splits['train'])

    def superbatch(data, epoch, position):
      # 64-bit sample counters do not exist on devices: the host gives epoch and position of the first sample of a step.
      steps = jnp.arange(steps_per_call, dtype=jnp.int32)
      batch = flat_batch(
        prepared.spec, inject, data, steps, jnp.arange(batch_size, dtype=jnp.int32), batch_size, with_clean,
        backend, first=(epoch, position),
      )  # fmt: skip
      lead = (steps_per_call, num_seeds, batch_size)
      return jax.tree.map(lambda x: x.reshape(lead + x.shape[1:]), batch)

    if n * 2 + batch_size * steps_per_call >= 2**31:
      raise UserError(f'{n} training samples are too many for data on the device; set config.train.data_path=host')
    self._n, self._batch_size = n, batch_size
    self._data = jax.tree.map(lambda x: jax.device_put(x, everywhere), arrays)
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    self._make = jax.jit(superbatch, out_shardings=out).lower(self._data, number, number)
    self._make = self._make.compile(compiler_options=compiler_options)

  def batches(
    self, seeds: Sequence[int], rates: Sequence[float] | None, *, start_step: int, num_steps: int
  ) -> Iterator[Batch]:
    """Superbatches [K, S, B] on the devices; `num_steps` is a multiple of K.

    Args:
      seeds: the S runs.
      rates: S rates in the place of `inject.rate`.
      start_step: first step.
      num_steps: number of steps from there on.
    """
    runs = jax.tree.map(lambda x: jax.device_put(x, self._everywhere), per_run(self._inject, seeds, rates))
    data = {**self._data, **runs}
    for step in range(start_step, start_step + num_steps, self._per_call):
      epoch, position = divmod(step * self._batch_size, self._n)
      where = self._everywhere
      yield self._make(data, jax.device_put(np.int32(epoch), where), jax.device_put(np.int32(position), where))
