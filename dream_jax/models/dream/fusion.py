"""Fuse: one prediction from modalities that are trusted to different degrees.

The head is defined on any weighting w in [0, inf)^M, so that it predicts from a soft mask, and from every coalition
(w in {0, 1}^M) when contributions are measured.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models import evidence
from dream_jax.models.layers import Dropout, SlotDense
from dream_jax.spec import DatasetSpec


class SoftMaskFusion(nn.Module):
  """Predictions [B, G, C] from G weightings of the same latents: weighted evidence plus what it leaves out.

    predict(sum_m v_m eta_m) + MLP(sum_m w_m V_m z_m + U w)

  The sum of evidence is right if modalities are independent given the target; the perceptron, which starts at zero,
  learns how they are not. The weights v and w are the same but for reconstructed latents: what others say of a modality
  helps the perceptron, but it is no new evidence and must not be counted twice.
  """

  spec: DatasetSpec
  hidden: int = 64
  dropout: float | jax.Array = 0.3

  @nn.compact
  def __call__(
    self, z: jax.Array, weights: jax.Array, eta: jax.Array, evidence_mask: jax.Array, prior: jax.Array, *, train: bool
  ) -> jax.Array:
    """`z` [B, M, D] latents and their `weights` [B, G, M], `eta` [B, M, K] evidence and its `evidence_mask` [B, G, M],
    `prior` [K].
    """
    x = jnp.einsum('bgm,bmh->bgh', weights, SlotDense(self.hidden, name='slots')(z))
    x = nn.gelu(x + nn.Dense(self.hidden, name='weights')(weights))
    x = Dropout(self.dropout)(x, deterministic=not train)
    correction = nn.Dense(self.spec.num_outputs, kernel_init=nn.initializers.zeros, name='out')(x)
    return evidence.predict(self.spec, prior, jnp.einsum('bgm,bmk->bgk', evidence_mask, eta)) + correction
