"""Reconstruct: what do the trusted modalities say the latent of another one should be?"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models.layers import SlotDense


class Reconstructor(nn.Module):
  """Pairwise translators mixed by contribution: (reconstructions [B, M, D], confidence [B, M] in (0, 1)).

    y_{k->m} = z_k W_km + b_km
    alpha_{k->m} = softmax over k != m of t_km + log(c_k + eps)
    h_m = sum_k alpha_{k->m} y_{k->m},  z^_m = h_m + MLP_m(h_m)

  No output normalisation: the target's scale has to be learned. Confidence predicts how close z^_m is to the truth,
  from the mixture and from how much the translators disagree about it.
  """

  hidden: int = 64

  @nn.compact
  def __call__(self, z: jax.Array, contributions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`z` [B, M, D], `contributions` [B, M] >= 0; slots of contribution 0 are not read."""
    _, m, d = z.shape
    kernel = self.param('kernel', nn.initializers.lecun_normal(batch_axis=(0, 1)), (m, m, d, d))
    bias = self.param('bias', nn.initializers.zeros, (m, m, d))
    affinity = self.param('affinity', nn.initializers.zeros, (m, m))
    translated = jnp.einsum('bkd,kmde->bkme', z, kernel) + bias[None]
    log_alpha = affinity[None] + jnp.log(contributions + 1e-6)[:, :, None]
    log_alpha = jnp.where(jnp.eye(m, dtype=bool)[None], -jnp.inf, log_alpha)
    alpha = jax.nn.softmax(log_alpha, axis=1)
    h = jnp.einsum('bkm,bkme->bme', alpha, translated)
    spread = jnp.einsum('bkm,bkme->bme', alpha, jnp.square(translated - h[:, None]))
    reconstruction = h + SlotDense(d, name='refine_out')(nn.gelu(SlotDense(self.hidden, name='refine_in')(h)))
    source = jnp.log((contributions.sum(-1, keepdims=True) - contributions) + 1e-3)
    known = jax.lax.stop_gradient(jnp.concatenate([h, spread, source[..., None]], axis=-1))
    confidence = SlotDense(1, name='confidence_out')(nn.gelu(SlotDense(self.hidden, name='confidence_in')(known)))
    return reconstruction, jax.nn.sigmoid(confidence[..., 0])


def reconstruction_quality(reconstruction: jax.Array, target: jax.Array) -> jax.Array:
  """How close a reconstruction is, [B, M] in (0, 1]: exp of minus the mean squared error over D."""
  return jnp.exp(-jnp.square(reconstruction - target).mean(-1))
