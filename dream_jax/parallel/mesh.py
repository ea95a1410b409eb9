"""One mesh of two axes: vectorised seeds lie along `seed`, the rows of a batch along `data`.

Parameters of different seeds never meet; gradients are summed over `data`, which the compiler derives from the
shardings given here.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dream_jax.errors import UserError


def make_mesh(seed: int = 1, data: int = -1) -> Mesh:
  """The mesh over all devices.

  Args:
    seed: devices along the seed axis; -1 takes what `data` leaves.
    data: devices along the data axis; -1 takes what `seed` leaves.

  Raises:
    UserError: both are -1, or the sizes do not use every device.
  """
  count = jax.device_count()
  if seed == -1 and data == -1:
    raise UserError('config.parallel.seed and config.parallel.data are both -1; set one of them')
  seed, data = (count // data if seed == -1 else seed), (count // seed if data == -1 else data)
  if seed * data != count or not count:
    raise UserError(
      f'config.parallel asks for {seed} x {data} devices; there are {count}: their product must be {count}'
    )
  return jax.make_mesh((seed, data), ('seed', 'data'), axis_types=(AxisType.Auto, AxisType.Auto))


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


def sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
  """Sharding whose leading array axes lie along these mesh axes; the rest is replicated."""
  return NamedSharding(mesh, P(*axes))


def put(tree: Any, where: NamedSharding) -> Any:
  """Arrays on the devices; each process gives its own rows of what is sharded over hosts."""
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, np.asarray(x)), tree)
