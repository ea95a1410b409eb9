"""Concatenation of latents and a perceptron: the plain model that most comparisons start from.

With modality dropout in training it is the control that most papers leave out. With `oracle_mask` it is told which
slots hold real content and reads zeros in the others: an upper reference that no method without annotations may claim.
"""

import flax.linen as nn

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout
from dream_jax.models.model import ORACLE_MASK, Model
from dream_jax.models.outputs import Outputs


class Concat(Model):
  """Prediction from concatenated latents.

  Attributes:
    spec: modalities and task.
    sizes: widths and dropout rates.
    oracle: whether `inputs['oracle_mask']` [B, M], the share of each slot that is real, multiplies the latents.
  """

  oracle: bool = False

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    s = self.sizes
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    if self.oracle:
      z = z * inputs[ORACLE_MASK][..., None]
    h = nn.gelu(nn.Dense(s.hidden, name='in')(z.reshape(z.shape[0], -1)))
    h = Dropout(s.head_dropout)(h, deterministic=not train)
    return Outputs(prediction=nn.Dense(self.spec.num_outputs, name='out')(h), latents=z)
