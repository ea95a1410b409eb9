"""One mesh of two axes: vectorised seeds lie along `seed`, the rows of a batch along `data`.

Programs are written for what one device holds and mapped over the mesh by `jax.shard_map`, so that communication is
what the program says and nothing else: parameters of different seeds never meet, gradients are averaged over `data`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dream_jax.errors import UserError

AXES = ('seed', 'data')


def make_mesh(seed: int = 1, data: int = -1, devices: Sequence[Any] | None = None) -> Mesh:
  """The mesh over devices.

  Args:
    seed: devices along the seed axis; -1 takes what `data` leaves.
    data: devices along the data axis; -1 takes what `seed` leaves.
    devices: all of all processes if None.

  Raises:
    UserError: both are -1, or the sizes do not use every device.
  """
  devices = jax.devices() if devices is None else devices
  count = len(devices)
  if seed == -1 and data == -1:
    raise UserError('config.mesh.seed and config.mesh.data are both -1; set one of them')
  chosen, field = (data, 'data') if seed == -1 else (seed, 'seed')
  if -1 in (seed, data) and count % chosen:
    raise UserError(f'config.mesh.{field} is {chosen}; {count} devices cannot be divided by it')
  seed, data = (count // data if seed == -1 else seed), (count // seed if data == -1 else data)
  if seed * data != count or not count:
    raise UserError(f'config.mesh asks for {seed} x {data} devices; there are {count}: their product must be {count}')
  return mesh_over(devices, seed)


def mesh_over(devices: Any, seed: int) -> Mesh:
  """The mesh over these devices, `seed` of them along the seed axis.

  Devices of a process are neighbours (`jax.make_mesh` would order them by the wires), so that its rows and seeds are
  one slice of the whole, see `own`. The gradients are small; their way around the wires does not matter.
  """
  ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(ordered).reshape(seed, -1), AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def check_divides(mesh: Mesh, *, num_seeds: int, batch_size: int) -> None:
  """Raises UserError unless seeds and batch can be cut evenly over the mesh."""
  for what, field, size, axis in (
    ('seeds', 'config.num_seeds', num_seeds, 'seed'),
    ('rows', 'config.train.batch_size', batch_size, 'data'),
  ):
    if size % mesh.shape[axis]:
      raise UserError(
        f'{field} is {size}; {mesh.shape[axis]} devices share the {what}, so it must be a multiple of that'
      )


def own(mesh: Mesh, axis: str, size: int) -> slice:
  """Which of `size` things that are cut along an axis the devices of this process hold."""
  local = [d.process_index == jax.process_index() for d in mesh.devices.flat]
  places = np.nonzero(np.reshape(local, mesh.devices.shape).any(axis=1 - AXES.index(axis)))[0]
  each = size // mesh.shape[axis]
  return slice(int(places[0]) * each, (int(places[-1]) + 1) * each)


def sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
  """Sharding whose leading array axes lie along these mesh axes; the rest is replicated."""
  return NamedSharding(mesh, P(*axes))


def put(tree: Any, where: NamedSharding) -> Any:
  """Arrays on the devices; every process gives the whole arrays and keeps its part."""

  def place(x):
    if where.is_fully_addressable:
      return jax.device_put(x, where)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

  return jax.tree.map(place, tree)


def put_own(tree: Any, mesh: Mesh, *axes: str | None) -> Any:
  """Arrays on the devices, leading axes along these mesh axes; every process gives its own part, see `own`."""
  where = sharding(mesh, *axes)

  def place(x):
    shape = list(x.shape)
    for i, axis in enumerate(axes):
      if axis is not None:
        part = own(mesh, axis, mesh.shape[axis])  # In devices.
        shape[i] = x.shape[i] * mesh.shape[axis] // (part.stop - part.start)
    return jax.make_array_from_process_local_data(where, np.asarray(x), tuple(shape))

  return jax.tree.map(place, tree)


def fetch(tree: Any) -> Any:
  """The whole arrays as NumPy, on every process; all processes have to ask."""
  leaves, structure = jax.tree.flatten(tree)
  far = [i for i, x in enumerate(leaves) if isinstance(x, jax.Array) and not _is_here(x)]
  if far:
    gathered = _gather(leaves[far[0]].sharding.mesh)([leaves[i] for i in far])
    leaves = [gathered[far.index(i)] if i in far else x for i, x in enumerate(leaves)]
  return jax.tree.unflatten(structure, [np.asarray(x) for x in leaves])


def _is_here(x: jax.Array) -> bool:
  return x.is_fully_addressable or x.is_fully_replicated


@functools.cache
def _gather(mesh: Mesh) -> Any:
  """Compiled once for every shape: a function of its own for each call would be compiled each time."""
  return jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, P()))
