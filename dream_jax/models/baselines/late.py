"""Late averaging: one model a modality and the mean of what they say; a strong control under missing modalities."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import SlotDense, SlotHeads
from dream_jax.models.outputs import Outputs
from dream_jax.models.sizes import Sizes
from dream_jax.spec import DatasetSpec


def owners(spec: DatasetSpec, params: Any) -> Any:
  """Which modality each parameter of `SeparateHeads` belongs to: its index, or -1 for the heads, an axis M of all."""
  indices = {name: i for i, name in enumerate(spec.names)}

  def owner(path, _):
    return indices[path[1].key] if path[0].key == 'encoders' else -1

  return jax.tree_util.tree_map_with_path(owner, params)


class SeparateHeads(nn.Module):
  """Every modality predicts by itself; the prediction is the mean of theirs (late averaging).

  Trained on the mean it is the late-averaging control. Trained on the sum of the separate losses it is all unimodal
  models side by side: no parameter is shared, so each is what it would be alone.

  Attributes:
    spec: modalities and task.
    sizes: widths and dropout rates.
    hidden_layer: whether heads are perceptrons with a hidden layer; linear ones, as DREAM's unimodal heads, otherwise.
  """

  spec: DatasetSpec
  sizes: Sizes = Sizes()
  hidden_layer: bool = False

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    s, c = self.sizes, self.spec.num_outputs
    z = Encoders(self.spec, s.width, s.sequence_encoder, s.dropout, name='encoders')(inputs, train=train)
    if self.hidden_layer:
      each = SlotHeads(c, s.hidden, s.head_dropout, name='heads')(z, train=train)
    else:
      each = SlotDense(c, name='heads')(z)
    if self.spec.task == 'multiclass':
      each = jax.nn.log_softmax(each, axis=-1)
    return Outputs(prediction=jnp.mean(each, axis=1), unimodal_predictions=each, latents=z)
