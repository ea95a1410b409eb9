"""The step on many devices: one pure function, mapped over the mesh in two ways that give the same numbers.

`jit` maps both axes of the mesh with `jax.shard_map`, over any number of hosts; it is what everything uses by default.
`pmap` maps the rows of a batch, on one host. A device computes the mean gradient of its rows, `parallel.rows` averages
over devices, and parameters stay equal everywhere because every device takes the same step.

Dimension letters: K steps a call, S seeds, B batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from dream_jax.errors import UserError
from dream_jax.parallel import rows
from dream_jax.parallel.mesh import sharding
from dream_jax.training.step import TrainState

# Where a state, a superbatch, seeds and settings lie.
STATE = TrainState(P(), *[P('seed')] * 5)  # pyright: ignore[reportArgumentType]
_MOVING = dataclasses.replace(STATE, best=None, peeked=None)
_BATCH, _SEEDS = P(None, 'seed', 'data'), P('seed')


class MappedSteps:
  """`step.train_call` of some method, lowered for a mesh.

  Attributes:
    lowered: what goes to the compiler.
  """

  def __init__(
    self,
    steps: Callable[..., Any],
    mesh: Mesh,
    state: Any,
    batch: Any,
    seeds: Any,
    values: Any,
    *,
    how: str,
    platform: str | None = None,
  ):
    """Traces.

    Args:
      steps: (state, batch, seeds, values) -> (state, terms).
      mesh: the devices to use.
      state: shapes and shardings of a state without selections.
      batch: those of a superbatch [K, S, B, ...].
      seeds: those of the seeds.
      values: those of the settings.
      how: 'jit' or 'pmap'.
      platform: whose implementations of operations to use; that of the mesh's devices if None, and with `pmap` always.

    Raises:
      UserError: the mesh is not one that `pmap` maps.
    """
    self._pmap, self._devices = how == 'pmap', mesh.size
    self._shardings = jax.tree.map(lambda x: x.sharding, state)
    if self._pmap:
      if jax.process_count() > 1:
        raise UserError(f'config.parallel=pmap is for one process; there are {jax.process_count()}: set it to jit')
      if mesh.shape['seed'] > 1:
        raise UserError(
          'config.parallel=pmap spreads the rows of a batch and no seeds; set config.mesh.seed=1 or config.parallel=jit'
        )
      step = jax.pmap(
        steps,
        rows.AXIS,
        in_axes=(None, 2, None, None),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=0,
      )
      self._split = jax.jit(self._by_device, out_shardings=sharding(mesh, None, None, 'data'))
      batch = self._split.eval_shape(batch)
    else:
      step = jax.jit(
        jax.shard_map(
          steps, mesh=mesh, in_specs=(_MOVING, _BATCH, _SEEDS, _SEEDS), out_specs=(_MOVING, _SEEDS), check_vma=False
        ),
        donate_argnums=0,
        out_shardings=(self._shardings, sharding(mesh, 'seed')),
      )
    if platform is None or self._pmap:
      self.lowered = step.lower(state, batch, seeds, values)
    else:
      self.lowered = step.trace(state, batch, seeds, values).lower(lowering_platforms=(platform,))

  def compile(self, options: dict[str, Any]) -> Callable[..., Any]:
    """(state, batch, seeds, values) -> (state, terms), compiled with these options of XLA; the state is consumed."""
    compiled = self.lowered.compile(options)
    if not self._pmap:
      return compiled

    def call(state, batch, seeds, values):
      state, terms = compiled(state, self._split(batch), seeds, values)
      # The same replicated arrays under the names of our mesh.
      return jax.device_put(state, self._shardings), terms

    return call

  def _by_device(self, batch: Any) -> Any:
    """[K, S, devices, B / devices, ...] of [K, S, B, ...]."""
    return jax.tree.map(lambda x: x.reshape(*x.shape[:2], self._devices, -1, *x.shape[3:]), batch)
