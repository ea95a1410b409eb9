"""Layers: modality slots with weights of their own, computed in one batched product, and dropout at a traced rate.

A layer computes in the dtype of its input; parameters are float32, and so is every sum over rows or tokens, of
gradients too.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.parallel import rows


class Dropout(nn.Module):
  """Dropout whose rate may be a traced value: runs that train side by side have rates of their own.

  Flax's own compares the rate with zero in Python.

  Attributes:
    rate: probability of zero.
    axis: along which the rows of a batch lie.
  """

  rate: float | jax.Array
  axis: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
    if deterministic or (isinstance(self.rate, float) and self.rate == 0.0):
      return x
    keep = jnp.asarray(1.0 - self.rate, jnp.float32)  # Drawn in bfloat16 it would be one of 128 rates.
    rng = self.make_rng('dropout')
    kept = rows.draw(lambda shape: jax.random.bernoulli(rng, keep, shape), x.shape, self.axis)
    return jnp.where(kept, x / keep.astype(x.dtype), jnp.zeros((), x.dtype))


def add(x: jax.Array, shared: jax.Array) -> jax.Array:
  """x plus a parameter that its rows share, in the dtype of x.

  In float32 and rounded once, since the gradient of what is shared is a sum over all rows.
  """
  return (x.astype(jnp.float32) + jnp.broadcast_to(shared, x.shape)).astype(x.dtype)


def masked_softmax(score: jax.Array, mask: jax.Array) -> jax.Array:
  """Softmax over the last axis of what `mask` allows, in float32 inside; zeros where it allows nothing."""
  weight = jax.nn.softmax(jnp.where(mask, score.astype(jnp.float32), -1e9), axis=-1)
  return jnp.where(mask, weight, 0.0).astype(score.dtype)


class Dense(nn.Module):
  """A dense layer: the last `axes` axes become `features`.

  Flax's own adds its bias, and sums the bias's gradient, in the dtype of the product.
  """

  features: int | tuple[int, ...]
  axes: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    outer = self.features if isinstance(self.features, tuple) else (self.features,)
    inner = x.shape[-self.axes :]

    def init(key, shape):
      return nn.initializers.lecun_normal()(key, (math.prod(inner), math.prod(outer))).reshape(shape)

    kernel = self.param('kernel', init, (*inner, *outer))
    bias = self.param('bias', nn.initializers.zeros, outer)
    return add(jnp.tensordot(x, kernel.astype(x.dtype), self.axes), bias)


class SelfAttention(nn.Module):
  """Attention of [B, T, D] to itself where `mask`, bool [B, 1, T, T], allows it: [B, T, D].

  Parameters are those of Flax's `MultiHeadDotProductAttention`.
  """

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
    d = x.shape[-1]
    if d % self.heads:
      raise ValueError(f'the width of attention, {d}, is no multiple of its {self.heads} heads')
    split = (self.heads, d // self.heads)
    query, key, value = (Dense(split, name=name)(x) for name in ('query', 'key', 'value'))
    score = jnp.einsum('bthd,bshd->bhts', query / math.sqrt(split[1]), key)
    y = jnp.einsum('bhts,bshd->bthd', masked_softmax(score, mask), value)
    return Dense(d, axes=2, name='out')(y)


class SlotDense(nn.Module):
  """A dense layer per modality: [..., M, D_in] -> [..., M, features]."""

  features: int
  kernel_init: Any = nn.initializers.lecun_normal(batch_axis=(0,))

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    slots, width = x.shape[-2:]
    kernel = self.param('kernel', self.kernel_init, (slots, width, self.features))
    bias = self.param('bias', nn.initializers.zeros, (slots, self.features))
    return add(jnp.einsum('...md,mdf->...mf', x, kernel.astype(x.dtype)), bias)


class StackDense(nn.Module):
  """A dense layer for each index of the leading axes: [P, ..., D] -> [P, ..., features].

  As `SlotDense`, with the slots in front: for tokens, where a product over the rows of one slot at a time, which need
  not be gathered first, is several times faster.

  Attributes:
    features: width of the output.
    axes: how many leading axes have weights of their own.
  """

  features: int
  axes: int = 1

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    lead, d = x.shape[: self.axes], x.shape[-1]
    init = nn.initializers.lecun_normal(batch_axis=tuple(range(self.axes)))
    kernel = self.param('kernel', init, (*lead, d, self.features))
    bias = self.param('bias', nn.initializers.zeros, (*lead, self.features))
    rows = x.reshape(math.prod(lead), -1, d)
    y = jnp.einsum('pnd,pdf->pnf', rows, kernel.reshape(-1, d, self.features).astype(x.dtype))
    return add(y, bias.reshape(-1, 1, self.features)).reshape(*x.shape[:-1], self.features)


class SlotHeads(nn.Module):
  """A perceptron with one hidden layer per modality: [..., M, D] -> [..., M, features]."""

  features: int
  hidden: int
  dropout: float | jax.Array

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.gelu(SlotDense(self.hidden, name='in')(x))
    return SlotDense(self.features, name='out')(Dropout(self.dropout)(x, deterministic=not train))
