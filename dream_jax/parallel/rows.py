"""A step that sees only its device's rows of a batch, and three things in it that concern the whole batch.

Programs are mapped over devices by `jax.shard_map` or `jax.pmap` with the rows along an axis named `AXIS`. What a model
computes row by row needs nothing else. Means over the batch, random draws and counts do: with the functions below a
mapped step equals the step on one device. Outside a mapped program they do nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

AXIS = 'data'


def num_devices() -> int:
  """Over how many devices the rows are spread in the program that is being traced; 1 outside a mapped one."""
  try:
    return jax.lax.axis_size(AXIS)
  except NameError:
    return 1


def mean(tree: Any) -> Any:
  """Mean over the devices of every leaf of a tree, in one all-reduce.

  The mean of the devices' means is the mean of the batch, as all have as many rows. For a sum over some of the rows
  see `divisor`.
  """
  if num_devices() == 1:
    return tree
  # One vector, so that it is one collective whatever the compiler combines.
  flat, restore = ravel_pytree(tree)
  return restore(jax.lax.pmean(flat, AXIS))


def divisor(count: jax.Array) -> jax.Array:
  """What a device's sums have to be divided by so that their mean over devices is the whole batch's sum over its count.

  A batch that counts nothing divides by one.

  Args:
    count: float, of this device's rows.
  """
  return jnp.maximum(mean(count), 1.0 / num_devices())


def draw(sample: Callable[[Sequence[int]], jax.Array], shape: Sequence[int], axis: int = 0) -> jax.Array:
  """This device's rows of what `sample` draws for the whole batch: the same numbers on any number of devices.

  Bits are a function of key and place, so that compilers for accelerators can leave out those of other devices and
  mostly do; XLA for CPUs draws them all and drops most (see docs/notebook/scaling.md).

  Args:
    sample: shape -> array.
    shape: the shape of this device's rows.
    axis: along which the rows lie.
  """
  n = num_devices()
  if n == 1:
    return sample(tuple(shape))
  whole = sample(tuple(size * n if i == axis else size for i, size in enumerate(shape)))
  return jax.lax.dynamic_slice_in_dim(whole, jax.lax.axis_index(AXIS) * shape[axis], shape[axis], axis)
