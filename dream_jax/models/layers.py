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
