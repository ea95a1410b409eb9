"""Layers: modality slots with weights of their own, computed in one batched product, and dropout at a traced rate."""

import math

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
    keep = jnp.asarray(1.0 - self.rate, x.dtype)
    rng = self.make_rng('dropout')
    kept = rows.draw(lambda shape: jax.random.bernoulli(rng, keep, shape), x.shape, self.axis)
    return jnp.where(kept, x / keep, jnp.zeros((), x.dtype))


class SlotDense(nn.Module):
  """A dense layer per modality: [..., M, D_in] -> [..., M, features]."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    slots, width = x.shape[-2:]
    kernel = self.param('kernel', nn.initializers.lecun_normal(batch_axis=(0,)), (slots, width, self.features))
    bias = self.param('bias', nn.initializers.zeros, (slots, self.features))
    return jnp.einsum('...md,mdf->...mf', x, kernel) + jnp.broadcast_to(bias, (*x.shape[:-1], self.features))


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
    y = jnp.einsum('pnd,pdf->pnf', rows, kernel.reshape(-1, d, self.features))
    return (y + bias.reshape(-1, 1, self.features)).reshape(*x.shape[:-1], self.features)


class SlotHeads(nn.Module):
  """A perceptron with one hidden layer per modality: [..., M, D] -> [..., M, features]."""

  features: int
  hidden: int
  dropout: float | jax.Array

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.gelu(SlotDense(self.hidden, name='in')(x))
    return SlotDense(self.features, name='out')(Dropout(self.dropout)(x, deterministic=not train))
