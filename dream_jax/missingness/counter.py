"""Random words as a pure function of counters: Threefry-2x32 in integer operations, the same bits in every framework.

NumPy, TensorFlow and JAX have generators of their own, and no two agree. What goes missing must not depend on who asks
(the tf.data pipeline, an evaluation on the host, a computation on the device), so everything random in the data comes
from here. Words are uint32 and arithmetic wraps; no floating point decides anything.

A word is addressed by (seed, epoch, sample key, stream, slot, position): the first four become a key of two words per
sample (`sample_state`), the others are the counter under that key (`words`).
"""

from __future__ import annotations

import functools
import types
from typing import Any

import numpy as np

from dream_jax.machine import host_tensorflow

Array = Any  # np.ndarray, tf.Tensor or jax.Array, whichever the backend makes.

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_MASK = 0xFFFFFFFF


class NumpyBackend:
  """The operations that the data code needs, on NumPy arrays. Rows are selected, so work follows what is missing."""

  name = 'numpy'
  xp: types.ModuleType = np

  def uint32(self, x: Any) -> Array:
    """x as uint32: Python integers modulo 2^32, arrays by wrapping."""
    return self.xp.asarray(x & _MASK if isinstance(x, int) else x).astype(np.uint32)

  def int32(self, x: Array) -> Array:
    return self.xp.asarray(x).astype(np.int32)

  def float32(self, x: Array) -> Array:
    return self.xp.asarray(x).astype(np.float32)

  def asarray(self, x: Any) -> Array:
    return self.xp.asarray(x)

  def arange(self, n: int) -> Array:
    return self.xp.arange(n, dtype=np.int32)

  def shift_left(self, x: Array, n: int) -> Array:
    return x << np.uint32(n)

  def shift_right(self, x: Array, n: int) -> Array:
    return x >> np.uint32(n)

  def where(self, condition: Array, x: Array, y: Array) -> Array:
    return self.xp.where(condition, x, y)

  def take(self, x: Array, index: Array) -> Array:
    """Rows x[index] of axis 0."""
    return self.xp.asarray(x)[index]

  def stack(self, xs: list[Array], axis: int) -> Array:
    return self.xp.stack(xs, axis)

  def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
    return self.xp.reshape(x, shape)

  def broadcast_to(self, x: Array, shape: tuple) -> Array:
    return self.xp.broadcast_to(x, shape)

  def shape(self, x: Array) -> tuple:
    return x.shape

  def sum(self, x: Array, axis: int) -> Array:
    """Sum of int32 values."""
    return self.xp.sum(x, axis, dtype=np.int32)

  def all(self, x: Array, axis: int) -> Array:
    return self.xp.all(x, axis)

  def any(self, x: Array) -> Array:
    return self.xp.any(x)

  def settled(self, *xs: Array) -> tuple[Array, ...]:
    """The same arrays; a compiler does not look through them."""
    return xs

  def while_loop(self, condition, body, x: Array) -> Array:
    """body applied to x for as long as condition(x)."""
    while condition(x):
      x = body(x)
    return x

  def replace_rows(self, x: Array, mask: Array, make) -> Array:
    """x with the rows where mask [n] holds replaced by make(index) [k, ...]."""
    (index,) = np.nonzero(mask)
    x = np.array(x)
    if len(index):
      x[index] = make(index)
    return x


class JaxBackend(NumpyBackend):
  """The same on JAX arrays; traceable, so rows are computed for all and chosen by a mask."""

  name = 'jax'

  def __init__(self):
    import jax.numpy as jnp  # Data code on the host works without it.

    self.xp = jnp

  def uint32(self, x):
    return self.xp.asarray(np.uint32(x & _MASK) if isinstance(x, int) else x).astype(np.uint32)

  def settled(self, *xs):
    import jax

    # Every round reads both words twice. XLA from JAX 0.12 on writes what it fuses out in full, twice as much a round.
    return jax.lax.optimization_barrier(xs)

  def while_loop(self, condition, body, x):
    import jax

    return jax.lax.while_loop(condition, body, x)

  def replace_rows(self, x, mask, make):
    rows = make(self.arange(x.shape[0]))
    mask = mask.reshape((-1,) + (1,) * (x.ndim - 1))
    return self.xp.where(mask, rows, x)


class TensorflowBackend(NumpyBackend):
  """The same on TensorFlow tensors, eagerly or inside tf.data; batch sizes may be unknown when it is traced."""

  name = 'tensorflow'

  def __init__(self):
    self.tf = host_tensorflow.load()

  def uint32(self, x):
    return self.tf.cast(np.uint32(x & _MASK) if isinstance(x, int) else x, self.tf.uint32)

  def int32(self, x):
    return self.tf.cast(x, self.tf.int32)

  def float32(self, x):
    return self.tf.cast(x, self.tf.float32)

  def asarray(self, x):
    return self.tf.convert_to_tensor(x)

  def arange(self, n):
    return self.tf.range(n, dtype=self.tf.int32)

  def shift_left(self, x, n):
    return self.tf.bitwise.left_shift(x, self.tf.constant(n, self.tf.uint32))

  def shift_right(self, x, n):
    return self.tf.bitwise.right_shift(x, self.tf.constant(n, self.tf.uint32))

  def where(self, condition, x, y):
    return self.tf.where(condition, x, y)

  def take(self, x, index):
    return self.tf.gather(x, index)

  def stack(self, xs, axis):
    return self.tf.stack(xs, axis)

  def reshape(self, x, shape):
    return self.tf.reshape(x, shape)

  def broadcast_to(self, x, shape):
    return self.tf.broadcast_to(x, shape)

  def shape(self, x):
    dynamic = self.tf.shape(x)
    return tuple(dynamic[i] if n is None else n for i, n in enumerate(x.shape))

  def sum(self, x, axis):
    return self.tf.reduce_sum(x, axis)

  def all(self, x, axis):
    return self.tf.reduce_all(x, axis)

  def any(self, x):
    return self.tf.reduce_any(x)

  def while_loop(self, condition, body, x):
    return self.tf.while_loop(condition, lambda y: (body(y),), (x,))[0]

  def replace_rows(self, x, mask, make):
    index = self.tf.cast(self.tf.where(mask)[:, 0], self.tf.int32)
    return self.tf.tensor_scatter_nd_update(x, index[:, None], make(index))


NUMPY = NumpyBackend()


@functools.cache
def backend(name: str) -> NumpyBackend:
  """The backend 'numpy', 'tensorflow' or 'jax'; the framework is imported here and not before.

  Raises:
    KeyError: another name.
  """
  return {'numpy': lambda: NUMPY, 'tensorflow': TensorflowBackend, 'jax': JaxBackend}[name]()


def threefry2x32(key: tuple[Array, Array], counter: tuple[Array, Array], backend: NumpyBackend) -> tuple[Array, Array]:
  """Two random words per counter.

  Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011), 20 rounds.

  Args:
    key: two uint32 arrays of rank 1 or more.
    counter: two uint32 arrays that broadcast with the key.
    backend: whose arrays these are.

  Returns:
    Two uint32 arrays of the broadcast shape.
  """
  k0, k1 = key
  schedule = (k0, k1, k0 ^ k1 ^ backend.uint32(_PARITY))
  x0, x1 = counter[0] + k0, counter[1] + k1
  for i in range(5):
    for r in _ROTATIONS[i % 2]:
      x0 = x0 + x1
      x1 = backend.shift_left(x1, r) | backend.shift_right(x1, 32 - r)
      x1 = x1 ^ x0
    x0 = x0 + schedule[(i + 1) % 3]
    x1 = x1 + (schedule[(i + 2) % 3] + backend.uint32(i + 1))
    x0, x1 = backend.settled(x0, x1)
  return x0, x1


def sample_state(seed: int | Array, epoch: int | Array, keys: Array, backend: NumpyBackend) -> tuple[Array, Array]:
  """The generator's key of each sample, from which `words` draws.

  Args:
    seed: an integer, taken modulo 2^32, or uint32 [B], one per sample.
    epoch: an integer or uint32 [B].
    keys: [B, 2] uint32, the samples' own keys.
    backend: whose arrays these are.

  Returns:
    Two uint32 arrays [B].
  """
  keys = backend.uint32(keys)
  # Adding zeros broadcasts to [B]: NumPy warns of overflow on scalars but wraps arrays silently.
  zeros = keys[:, 0] ^ keys[:, 0]
  key = (zeros + backend.uint32(seed), zeros + backend.uint32(epoch))
  return threefry2x32(key, (keys[:, 0], keys[:, 1]), backend)


def words(
  state: tuple[Array, Array], stream: int, slot: int | Array, position: Array, backend: NumpyBackend
) -> tuple[Array, Array]:
  """Two independent random words for each sample and each of P addresses.

  Args:
    state: from `sample_state`, uint32 [B] each.
    stream: what the words are for, below 256: streams are independent of each other.
    slot: a modality, or integers [P] or [1], below 2^24.
    position: integers [P] or [1] within the slot.
    backend: whose arrays these are.

  Returns:
    Two uint32 arrays [B, P].
  """
  high = backend.uint32(slot) + backend.uint32(stream << 24)
  high = backend.reshape(high, (1, -1))
  low = backend.reshape(backend.uint32(position), (1, -1))
  return threefry2x32((state[0][:, None], state[1][:, None]), (high, low), backend)


def multiply_high(x: Array, y: Array, backend: NumpyBackend) -> Array:
  """The upper 32 bits of the 64-bit product of uint32 arrays, without 64-bit integers (JAX has none by default)."""
  low = backend.uint32(0xFFFF)
  a, b = backend.shift_right(x, 16), x & low
  c, d = backend.shift_right(y, 16), y & low
  ad, bc = a * d, b * c
  middle = backend.shift_right(b * d, 16) + (ad & low) + (bc & low)
  return a * c + backend.shift_right(ad, 16) + backend.shift_right(bc, 16) + backend.shift_right(middle, 16)


def below(word: Array, bound: int | Array, backend: NumpyBackend) -> Array:
  """A uniform int32 in [0, bound) from each random word; probabilities are exact to bound / 2^32.

  Args:
    word: uint32 of any shape.
    bound: a positive integer or an array that broadcasts with the words.
    backend: whose arrays these are.
  """
  return backend.int32(multiply_high(word, backend.uint32(bound) + (word ^ word), backend))


def threshold(probability: float) -> int:
  """The uint32 t for which `word < t` holds with this probability, which lies in [0, 1)."""
  return min(round(probability * 2**32), _MASK)
