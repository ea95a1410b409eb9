"""Layers over modality slots: every modality has weights of its own, all are computed in one batched product."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class SlotDense(nn.Module):
  """A dense layer per modality: [..., M, D_in] -> [..., M, features]."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    slots, width = x.shape[-2:]
    kernel = self.param('kernel', nn.initializers.lecun_normal(batch_axis=(0,)), (slots, width, self.features))
    bias = self.param('bias', nn.initializers.zeros, (slots, self.features))
    return jnp.einsum('...md,mdf->...mf', x, kernel) + jnp.broadcast_to(bias, (*x.shape[:-1], self.features))


class SlotHeads(nn.Module):
  """A perceptron with one hidden layer per modality: [..., M, D] -> [..., M, features]."""

  features: int
  hidden: int
  dropout: float

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = nn.gelu(SlotDense(self.hidden, name='in')(x))
    return SlotDense(self.features, name='out')(nn.Dropout(self.dropout, deterministic=not train)(x))
