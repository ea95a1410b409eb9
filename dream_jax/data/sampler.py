"""The order of training samples as a pure function of (seed, sample counter): nothing to save, any step can be next.

Sample counter k stands for epoch k // n and position k % n; a keyed permutation of [0, n) turns the position into a
row. Starting the counter at `step * batch_size` therefore continues a stream exactly, and every process knows the
whole global batch.

The permutation is an alternating Feistel cipher on the a x b >= n grid (Black and Rogaway, Ciphers with arbitrary
finite domains, CT-RSA 2002) with cycle walking. TensorFlow's `index_shuffle` does the same job but draws orders far
from uniformly: over 40,000 seeds, pairs of rows of 37 missed equal frequency by a chi-square of 205,000 for 1,331
degrees of freedom.
"""

from __future__ import annotations

import math

from dream_jax.missingness import counter
from dream_jax.missingness.counter import Array, NumpyBackend

# Fewer rounds leave tiny sets uneven: with 8, pairs of rows of 5 are 70 standard deviations from equal frequency.
_ROUNDS = 16
_SHUFFLE = 0x5348554C


def permute(position: Array, n: int, *, seed: Array, epoch: Array, backend: NumpyBackend) -> Array:
  """Rows int32 [N]: for one seed and epoch, positions 0 to n - 1 give each row exactly once.

  Args:
    position: [N] integers in [0, n).
    n: number of rows, at most 2^31.
    seed: uint32 [N].
    epoch: uint32 [N].
    backend: whose arrays these are.
  """
  position, seed, epoch = backend.uint32(position), backend.uint32(seed), backend.uint32(epoch)
  zeros = position ^ position
  key = counter.threefry2x32((seed, epoch), (zeros + backend.uint32(_SHUFFLE), zeros), backend)
  left_size = math.isqrt(n - 1) + 1
  right_size = -(-n // left_size)
  left_bound, right_bound = backend.uint32(left_size), backend.uint32(right_size)

  def cipher(x: Array) -> Array:
    left, right = x // right_bound, x % right_bound
    for i in range(_ROUNDS):
      if i % 2:
        right = (right + _round(left, i, key, right_bound, backend)) % right_bound
      else:
        left = (left + _round(right, i, key, left_bound, backend)) % left_bound
    return left * right_bound + right

  last = backend.uint32(n - 1)
  rows = backend.while_loop(
    lambda x: backend.any(x > last), lambda x: backend.where(x > last, cipher(x), x), cipher(position)
  )
  return backend.int32(rows)


def _round(half: Array, index: int, key: tuple[Array, Array], bound: Array, backend: NumpyBackend) -> Array:
  """The round function: a keyed integer hash of one half (the finaliser of MurmurHash3), as uint32 below `bound`."""
  x = (half ^ key[0]) + backend.uint32(0x9E3779B9 * (index + 1))
  x = (x ^ backend.shift_right(x, 16)) * backend.uint32(0x85EBCA6B)
  x = (x ^ backend.shift_right(x, 13) ^ key[1]) * backend.uint32(0xC2B2AE35)
  x = x ^ backend.shift_right(x, 16)
  return counter.multiply_high(x, bound + (x ^ x), backend)


def batch_rows(
  steps: Array,
  positions: Array,
  seeds: Array,
  *,
  n: int,
  batch_size: int,
  backend: NumpyBackend,
  first: tuple[Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
  """What each seed reads at each step.

  Args:
    steps: [K] integers (64 bit where runs are long).
    positions: [B] integers of the same type, which rows of the global batch are wanted.
    seeds: [S] uint32.
    n: number of samples.
    batch_size: size of the global batch.
    backend: whose arrays these are.
    first: epoch and position of the sample that step 0 starts with, for 32-bit integers that cannot count all samples
      of a long run; (0, 0) when None.

  Returns:
    rows int32, seed uint32 and epoch uint32, each [K, S, B].
  """
  count = steps[:, None, None] * batch_size + positions[None, None, :]
  shape = (backend.shape(steps)[0], backend.shape(seeds)[0], backend.shape(positions)[0])
  if first is not None:
    count = count + first[1]
  epoch = backend.uint32(count // n)
  epoch = backend.broadcast_to(epoch if first is None else epoch + backend.uint32(first[0]), shape)
  position = backend.broadcast_to(backend.uint32(count % n), shape)
  seed = backend.broadcast_to(backend.uint32(seeds)[None, :, None], shape)
  flat = (-1,)
  rows = permute(
    backend.reshape(position, flat),
    n,
    seed=backend.reshape(seed, flat),
    epoch=backend.reshape(epoch, flat),
    backend=backend,
  )
  return backend.reshape(rows, shape), seed, epoch
