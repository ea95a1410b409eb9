"""Sample-level valuation: a modality that contributes little to a sample is trained on that sample once more, alone.

Wei, Feng, Wang, Hu: Enhancing Multimodal Cooperation via Sample-level Modality Valuation. CVPR 2024.

  v(S) = |S| if the prediction from the modalities in S is right, else 0;  phi_m = Shapley value of that game
  a sample is seen again with m alone with probability tanh(1 - phi_m) where phi_m < 1, what an equal share is worth

Simplified here: values are taken in every batch from the model as it is, without gradient, where the original takes
them once an epoch over the training set, after some epochs of warm-up, and appends one to three copies of a sample to
the next one. Modalities are left out as zero latents, as there. Right means: the most likely class (each label for
multilabel, averaged), or for regression a distance below half a standard deviation.

Needs: nothing but the label.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix, shapley_values
from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import label_of_each
from dream_jax.models.outputs import Outputs
from dream_jax.parallel import rows
from dream_jax.spec import DatasetSpec


def right(spec: DatasetSpec, prediction: jax.Array, label: jax.Array) -> jax.Array:
  """Whether predictions [..., C] are right, 0 to 1, [...]; `label` is [...], or [..., C] for multilabel."""
  if spec.task == 'multiclass':
    return (prediction.argmax(-1) == label).astype(prediction.dtype)
  if spec.task == 'regression':
    return (jnp.abs(prediction[..., 0] - label) < 0.5).astype(prediction.dtype)
  label = label if spec.task == 'multilabel' else label[..., None]
  return ((prediction > 0) == (label.astype(prediction.dtype) > 0.5)).astype(prediction.dtype).mean(-1)


class ValuationResampling(Model):
  """Concatenation whose weak modalities are trained again, sample by sample."""

  def setup(self):
    s = self.sizes
    self.encoders = Encoders(self.spec, s)
    self.head_in = nn.Dense(s.hidden)
    self.head_out = nn.Dense(self.spec.num_outputs)
    self.head_dropout = Dropout(s.head_dropout)

  def head(self, z: jax.Array, *, train: bool) -> jax.Array:
    """Predictions [..., C] from latents [..., M, D]."""
    h = nn.gelu(self.head_in(z.reshape(*z.shape[:-2], -1)))
    return self.head_out(self.head_dropout(h, deterministic=not train))

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    z = self.encoders(inputs, train=train)
    return Outputs(prediction=self.head(z, train=train), latents=z)

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The task loss, and that of the samples that are seen again with one modality."""
    z, label, m = self.encoders(batch['inputs'], train=True), batch['label'], self.spec.num_modalities
    value = self.values(stop_gradient(z), label)
    rng = self.make_rng('draw')
    luck = rows.draw(lambda shape: jax.random.uniform(rng, shape), value.shape)
    again = luck < jnp.tanh(jnp.maximum(1.0 - value, 0.0))
    alone = self.head(z[:, None] * jnp.eye(m, dtype=z.dtype)[None, :, :, None], train=True)  # [B, M, C]
    loss = -evidence.score(self.spec, alone, label_of_each(alone, label))
    # The loss of a batch that the samples seen again have joined is a mean over all of them.
    first = -evidence.score(self.spec, self.head(z, train=True), label).sum()
    count = jnp.asarray(label.shape[0], z.dtype) + rows.mean(again.sum().astype(z.dtype))
    return {'task': first / count, 'again': jnp.where(again, loss, 0.0).sum() / count}

  def values(self, z: jax.Array, label: jax.Array) -> jax.Array:
    """Shapley values [B, M] of the latents [B, M, D]."""
    coalitions = jnp.asarray(coalition_matrix(self.spec.num_modalities), z.dtype)
    predictions = self.head(z[:, None] * coalitions[None, :, :, None], train=False)  # [B, G, C]
    worth = right(self.spec, predictions, label_of_each(predictions, label)) * coalitions.sum(-1)[None]
    return stop_gradient(shapley_values(worth, jnp.zeros(worth.shape[0], z.dtype), self.spec.num_modalities))
