"""What methods read: the training batches and the inputs of evaluation of one prepared data set, shared by all.

Training data lie on the devices when they fit, and batches are made there; tf.data makes the same bits on the host
otherwise.
"""

from collections.abc import Iterator
from typing import Any

import jax

from dream_jax.config.recipe import Recipe
from dream_jax.data.device_batches import DeviceBatches
from dream_jax.data.pipeline import device_prefetch, train_batches
from dream_jax.data.prepare import Prepared
from dream_jax.evaluation.predict import EvalInputs
from dream_jax.machine import memory
from dream_jax.missingness.missing import Missing
from dream_jax.parallel import hosts
from dream_jax.parallel.mesh import own, put_own
from dream_jax.training.programs import compiler_options, mesh_of
from dream_jax.training.runs import Runs

# Shares of the memory that is left: parameters, activations and superbatches need the rest.
_DATA_SHARE, _INPUTS_SHARE = 0.25, 0.125


class Feed:
  """A data set with everything that is made from it once and read by every method.

  Attributes:
    prepared: the data.
    inputs: inputs of evaluation.
    on_device: whether training data lie on the devices.
    compile_seconds: time spent on compiling the programs that make batches.
  """

  def __init__(self, recipe: Recipe, prepared: Prepared):
    """Decides where the data lie.

    Args:
      recipe: names the mesh, the sizes of batches and, if not 'auto', the place.
      prepared: the data.
    """
    self.prepared = prepared
    self.mesh = mesh_of(recipe)
    left = device_bytes_left()
    keep = int(_INPUTS_SHARE * left) if left is not None else 0
    self.inputs = EvalInputs(prepared, self.mesh, batch_size=recipe.train.eval_batch_size, keep_bytes=keep)
    self.size = sum(x.nbytes for x in prepared.splits['train'].features.values())
    path, fits = recipe.train.data_path, left is not None and self.size <= _DATA_SHARE * left
    self.on_device = hosts.agree(lambda: path == 'device' or (path == 'auto' and fits))
    self._makers: dict[Any, DeviceBatches] = {}

  def describe(self) -> str:
    """Where the training data lie, in a line for the user."""
    size = memory.show(self.size)
    if self.on_device:
      return f'training data ({size}) lie on the device: batches are made there'
    return f'training data ({size}) stay on the host: tf.data makes batches'

  def batches(
    self,
    inject: Missing,
    *,
    rates: tuple[float, ...] | None,
    runs: Runs,
    batch_size: int,
    start_step: int,
    num_steps: int,
    steps_per_call: int,
    with_clean: bool,
  ) -> Iterator[dict[str, Any]]:
    """Superbatches on the devices, labels standardised; see `data.pipeline.train_batches`."""
    where = (self.mesh, None, 'seed', 'data')
    shape = {'inject': inject, 'batch_size': batch_size, 'steps_per_call': steps_per_call, 'with_clean': with_clean}
    scale = self.inputs.scale
    if not self.on_device:
      mine = own(self.mesh, 'seed', len(runs))
      made = train_batches(
        self.prepared,
        seeds=runs.seeds[mine],
        rates=rates if rates is None else rates[mine],
        start_step=start_step,
        num_steps=num_steps,
        rows=own(self.mesh, 'data', batch_size),
        **shape,
      )
      yield from device_prefetch(made, lambda b: put_own({**b, 'label': scale.standardise(b['label'])}, *where))
      return
    key = (*shape.values(), len(runs))
    if key not in self._makers:
      self._makers[key] = DeviceBatches(
        self.prepared,
        num_seeds=len(runs),
        label=scale.standardise(self.prepared.splits['train'].label),
        mesh=self.mesh,
        compiler_options=compiler_options(),
        **shape,
      )
    yield from self._makers[key].batches(runs.seeds, rates, start_step=start_step, num_steps=num_steps)


def device_bytes_left() -> int | None:
  """Bytes that the first device may still take: what its allocator says, or the memory of the host for a CPU."""
  device = jax.local_devices()[0]
  if device.platform == 'cpu':
    left = memory.available_bytes()
    return None if left is None else left // len(jax.local_devices())
  stats = device.memory_stats() or {}
  return stats['bytes_limit'] - stats['bytes_in_use'] if 'bytes_limit' in stats else None
