"""TFN: the outer product of all modalities holds every interaction between them.

Zadeh, Chen, Poria, Cambria, Morency: Tensor Fusion Network for Multimodal Sentiment Analysis. EMNLP 2017.

  h_m = V_m z_m [W],  t = [1; h_1] x .. x [1; h_M] [(W + 1)^M],  prediction = MLP(t), two hidden layers

The ones keep the interactions of fewer than all modalities in the product.

Simplified here: modalities are read by the shared encoders; the published subnetworks have recurrent and normalised
layers of their own. The published output of a regression is a sigmoid stretched to the range of the labels, ours is
linear, as every method's here.

Needs: nothing but the label.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout, SlotDense
from dream_jax.models.model import Model
from dream_jax.models.outputs import Outputs

_MOST_ENTRIES = 4096


class TensorFusion(nn.Module):
  """Outer product of h [B, M, W], each with a 1 in front, and a perceptron on its entries: [B, features].

  The first modality's index changes slowest.
  """

  features: int
  hidden: int
  dropout: float | jax.Array

  @nn.compact
  def __call__(self, h: jax.Array, *, train: bool) -> jax.Array:
    b, m, _ = h.shape
    h = jnp.concatenate([jnp.ones((b, m, 1), h.dtype), h], axis=-1)
    product = h[:, 0]
    for i in range(1, m):
      # The same bits as a broadcast product, whose gradient on a CPU takes four times as long.
      product = jnp.einsum('bi,bj->bij', product, h[:, i]).reshape(b, -1)
    x = Dropout(self.dropout)(product, deterministic=not train)
    x = nn.relu(nn.Dense(self.hidden, name='in')(x))
    x = nn.relu(nn.Dense(self.hidden, name='middle')(x))
    return nn.Dense(self.features, name='out')(x)


class Tfn(Model):
  """Tensor Fusion Network.

  Attributes:
    fusion_width: W; less where the product would have more than 4096 entries.
  """

  fusion_width: int = 8

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    s, m = self.sizes, self.spec.num_modalities
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    width = max(1, min(self.fusion_width, int(_MOST_ENTRIES ** (1 / m) + 1e-9) - 1))
    h = SlotDense(width, name='project')(z)
    fusion = TensorFusion(self.spec.num_outputs, s.hidden, s.head_dropout, name='fusion')
    return Outputs(prediction=fusion(h, train=train), latents=z)
