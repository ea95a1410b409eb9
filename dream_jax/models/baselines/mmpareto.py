"""MMPareto: where the multimodal and a unimodal gradient disagree on an encoder, the step goes where both gain.

Wei, Hu: MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance. ICML 2024.

For the encoder of each modality, with g the gradient of the multimodal loss and u that of its own unimodal loss:
  cos(g, u) >= 0: g + u
  else: 2 (a g + (1 - a) u), a = the weight of the shortest vector between g and u, (u . (u - g)) / |u - g|^2 in [0, 1],
    stretched to the length of g + u, so that the noise that helps to generalise is not lost; by at most `MOST_STRETCH`,
    since the shortest vector between opposite gradients is rounding error

Heads and whatever else is shared follow the sum of all losses.

Simplified here: one multimodal head on concatenated latents and one linear unimodal head a modality; lengths are those
of a whole encoder, where the released code has them tensor by tensor; its factor of 1.5 on all steps of encoders, which
Adam would undo, is left out.

Needs: nothing but the label.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout, SlotDense
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import task_loss, unimodal_loss
from dream_jax.models.outputs import Outputs
from dream_jax.parallel import rows


class MmPareto(Model):
  """Multimodal and unimodal losses, their gradients combined without conflict."""

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    s, c = self.sizes, self.spec.num_outputs
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    h = nn.gelu(nn.Dense(s.hidden, name='in')(z.reshape(z.shape[0], -1)))
    h = Dropout(s.head_dropout)(h, deterministic=not train)
    prediction = nn.Dense(c, name='out')(h)
    return Outputs(prediction=prediction, unimodal_predictions=SlotDense(c, name='heads')(z), latents=z)

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The multimodal loss, and the sum of the unimodal ones."""
    out, label = self(batch['inputs'], train=True), batch['label']
    return {
      'task': task_loss(self.spec, out.prediction, label),
      'unimodal': unimodal_loss(self.spec, out, label),
    }

  @nn.nowrap
  def gradient(self, params: Any, batch: Batch, rng: jax.Array) -> tuple[tuple[jax.Array, dict[str, jax.Array]], Any]:
    """Two backward passes over one forward pass; encoders are combined modality by modality.

    The unimodal losses share no encoder, so the gradient of their sum with respect to one encoder is that of its own.
    """

    def losses(params):
      _, terms = self.loss(params, batch, rng)
      return jnp.stack([terms['task'], terms['unimodal']])

    both, back = jax.vjp(losses, params)
    (multi,), (uni,) = back(jnp.array([1.0, 0.0], both.dtype)), back(jnp.array([0.0, 1.0], both.dtype))
    # What is combined are gradients of the whole batch.
    both, multi, uni = rows.mean((both, multi, uni))
    grads = jax.tree.map(jnp.add, multi, uni)
    keys = [m.inside for m in self.spec.modalities]
    encoders = {key: combine(multi['encoders'][key], uni['encoders'][key]) for key in keys}
    return (both.sum(), {'task': both[0], 'unimodal': both[1]}), {**grads, 'encoders': encoders}


MOST_STRETCH = 100.0


def combine(g: Any, u: Any) -> Any:
  """The step for one encoder from its multimodal and unimodal gradient, trees alike."""
  gg, uu, gu = (jnp.asarray(optax.tree.vdot(a, b)) for a, b in ((g, g), (u, u), (g, u)))
  a = jnp.where(gu >= 0.0, 0.5, (uu - gu) / jnp.maximum(gg + uu - 2.0 * gu, 1e-20))
  mixed = jax.tree.map(lambda x, y: 2.0 * (a * x + (1.0 - a) * y), g, u)
  length = jnp.sqrt(jnp.maximum(gg + uu + 2.0 * gu, 0.0))
  stretch = jnp.where(gu >= 0.0, 1.0, jnp.minimum(length / jnp.maximum(optax.tree.norm(mixed), 1e-10), MOST_STRETCH))
  return jax.tree.map(lambda x: stretch * x, mixed)
