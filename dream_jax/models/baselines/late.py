"""Late averaging: one model a modality and the mean of what they say; a strong control under missing modalities."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import SlotDense, SlotHeads
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import task_loss, unimodal_loss
from dream_jax.models.outputs import Outputs


class SeparateHeads(Model):
  """Every modality predicts by itself; the prediction is the mean of theirs (late averaging).

  Attributes:
    hidden_layer: whether heads are perceptrons with a hidden layer; linear ones, as DREAM's unimodal heads, otherwise.
    unimodal: weight of the sum of the heads' own losses beside the loss of the mean.
  """

  hidden_layer: bool = False
  unimodal: float = 0.3

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    s, c = self.sizes, self.spec.num_outputs
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    if self.hidden_layer:
      each = SlotHeads(c, s.hidden, s.head_dropout, name='heads')(z, train=train)
    else:
      each = SlotDense(c, name='heads')(z)
    if self.spec.task == 'multiclass':
      each = jax.nn.log_softmax(each, axis=-1)
    return Outputs(prediction=jnp.mean(each, axis=1), unimodal_predictions=each, latents=z)

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The loss of the mean, and of every head by itself."""
    out, label = self(batch['inputs'], train=True), batch['label']
    heads = unimodal_loss(self.spec, out, label)
    return {'task': task_loss(self.spec, out.prediction, label), 'unimodal': self.unimodal * heads}


class SingleModalities(SeparateHeads):
  """All models of one modality, side by side: only the heads' own losses are minimised, and nothing is shared."""

  separate = True

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The sum of the separate losses."""
    out = self(batch['inputs'], train=True)
    return {'unimodal': unimodal_loss(self.spec, out, batch['label'])}

  @nn.nowrap
  def owners(self, params: Any) -> Any:
    """The index of the modality of each encoder, -1 for the heads: an axis M of all."""
    indices = {m.inside: i for i, m in enumerate(self.spec.modalities)}

    def owner(path, _):
      return indices[path[1].key] if path[0].key == 'encoders' else -1

    return jax.tree_util.tree_map_with_path(owner, params)
