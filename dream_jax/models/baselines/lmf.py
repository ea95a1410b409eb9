"""LMF: the tensor product of TFN with low-rank weights, so that neither is ever written out.

Liu, Shen, Lakshminarasimhan, Liang, Zadeh, Morency: Efficient Low-rank Multimodal Fusion with Modality-Specific
Factors. ACL 2018.

  prediction = b + sum_r v_r prod_m W_mr [1; z_m],  W_mr [C, D + 1]

Simplified here: modalities are read by the shared encoders, and the output of a regression is linear (see `tfn.py`).

Needs: nothing but the label.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout
from dream_jax.models.model import Model
from dream_jax.models.outputs import Outputs


class LowRankFusion(nn.Module):
  """z [B, M, D] -> [B, features], linear in each modality."""

  features: int
  rank: int

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    b, m, d = z.shape
    init = nn.initializers.glorot_normal(in_axis=-2, out_axis=-1, batch_axis=(0, 1))
    factors = self.param('factors', init, (m, self.rank, d + 1, self.features))
    weights = self.param('weights', nn.initializers.normal(self.rank**-0.5), (self.rank,))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    z = jnp.concatenate([jnp.ones((b, m, 1), z.dtype), z], axis=-1)
    product = jnp.prod(jnp.einsum('bmd,mrdc->bmrc', z, factors), axis=1)
    return jnp.einsum('r,brc->bc', weights, product) + bias[None]


class Lmf(Model):
  """Low-rank Multimodal Fusion.

  Attributes:
    rank: R, number of rank-one terms.
  """

  rank: int = 4

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    s = self.sizes
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    h = Dropout(s.head_dropout)(z, deterministic=not train)
    return Outputs(prediction=LowRankFusion(self.spec.num_outputs, self.rank, name='fusion')(h), latents=z)
