"""OGM-GE: the encoder of a modality that is ahead of the others learns more slowly.

Peng, Wei, Deng, Wang, Hu: Balanced Multimodal Learning via On-the-fly Gradient Modulation. CVPR 2022.

  prediction = sum_m (W_m z_m + b_m), a linear head, so that each modality's part of the logits is its own
  s_m = sum over the batch of softmax(W_m z_m + b_m)[label];  rho_m = s_m / mean of s_k, k != m
  k_m = 1 - tanh(alpha rho_m) where rho_m > 1, else 1: the factor of the gradient of encoder m
  GE: Gaussian noise with the standard deviation that the gradient of a parameter tensor had before is added to it

Simplified here: modulation in every step of training, and for more than two modalities the ratio to the mean of the
others. The released code shakes convolutions only; here every tensor of an encoder is shaken. For other tasks than
classification s_m sums the likelihood of the label, for regression exp of minus the Huber distance.

Needs: nothing but the label.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models import evidence
from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import SlotDense
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import label_of_each, task_loss
from dream_jax.models.outputs import Outputs
from dream_jax.parallel import rows


class OgmGe(Model):
  """On-the-fly gradient modulation with generalisation enhancement.

  Attributes:
    alpha: how strongly a modality that is ahead is slowed.
    enhance: whether noise is added.
  """

  alpha: float = 0.5
  enhance: bool = True

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch; `unimodal_predictions` are the modalities' parts of the logits."""
    s, c = self.sizes, self.spec.num_outputs
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    parts = SlotDense(c, name='parts')(z)
    return Outputs(prediction=parts.sum(1), unimodal_predictions=parts, latents=z)

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The task loss, and the factors of the encoders' gradients as terms of no gradient and no size."""
    out = self(batch['inputs'], train=True)
    parts = out.unimodal_predictions
    assert parts is not None
    factors = self.factors(stop_gradient(parts), batch['label'])
    shown = {f'factor/{name}': factors[m] for m, name in enumerate(self.spec.names)}
    return {'task': task_loss(self.spec, out.prediction, batch['label']), **shown}

  @nn.nowrap
  def factors(self, parts: jax.Array, label: jax.Array) -> jax.Array:
    """k_m [M] from the parts of the logits [B, M, C]."""
    s = rows.mean(jnp.exp(evidence.score(self.spec, parts, label_of_each(parts, label))).sum(0))
    others = (s.sum() - s) / (s.shape[0] - 1)
    rho = s / jnp.maximum(others, 1e-8)
    return jnp.where(rho > 1.0, 1.0 - jnp.tanh(self.alpha * rho), 1.0)

  @nn.nowrap
  def loss(self, params: Any, batch: Batch, rng: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(task loss, terms)."""
    _, terms = super().loss(params, batch, rng)
    return terms['task'], terms

  @nn.nowrap
  def gradient(self, params: Any, batch: Batch, rng: jax.Array) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Any]:
    """The gradient with each encoder's part scaled, and shaken."""
    (total, terms), grads = super().gradient(params, batch, rng)
    encoders = {}
    for m, modality in enumerate(self.spec.modalities):
      leaves, tree = jax.tree.flatten(grads['encoders'][modality.inside])
      made = [g * terms[f'factor/{modality.name}'] for g in leaves]
      if self.enhance:
        keys = jax.random.split(jax.random.fold_in(rng, m), len(leaves))
        noise = [g.std() * jax.random.normal(k, g.shape, g.dtype) for g, k in zip(leaves, keys, strict=True)]
        made = [g + n for g, n in zip(made, noise, strict=True)]
      encoders[modality.inside] = jax.tree.unflatten(tree, made)
    return (total, terms), {**grads, 'encoders': encoders}
