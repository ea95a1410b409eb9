"""MoMKE: every modality's expert reads every available modality, and a soft router mixes what they make of it.

Xu, Jiang, Liang: Leveraging Knowledge of Modality Experts for Incomplete Multimodal Learning. ACM Multimedia 2024.

  stage 1   y_m = head_m(E_m(z_m))                      an expert a modality, which learns its own modality
  stage 2   w_m = softmax(router_m(z_m)) [M]            how far modality m trusts each expert
            r_m = sum_k w_mk E_k(z_m), 0 where m is missing
            J = [r_1 .. r_M],  prediction = head(J + relu(W J))
  block of an expert   x <- x + a + MLP(a),  a = attention(x)

E_m(z_m) is the unimodal representation of modality m; those of the other experts are its joint representations.

Simplified here:
* One stage: the losses of stage 1 stand beside the loss of stage 2, and the experts go on learning in stage 2 as in the
  released code. Stage 1 has complete data in the paper; here it reads the slots that the trainer left intact.
* One model for all patterns of missing modalities; the released code trains one for every condition it is tested on.
* The published sequence is the conversation that a sample is part of. Samples are independent here, so that it has one
  element, and its attention is the value projection alone.

Needs: which modalities are available, in training and in use (`oracle`). Without, all of them are taken as there.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models import evidence
from dream_jax.models.baselines.concat import ORACLE_MASK
from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout, SlotDense, SlotHeads
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import label_of_each, task_loss
from dream_jax.models.outputs import Outputs
from dream_jax.parallel import rows

# Nothing is normalised between blocks, and our weights start with three times the variance of the published ones. This
# halves the branches, so that four blocks amplify a latent about twofold, as they do there, and not sixfold.
_BRANCH = 0.5


class Experts(nn.Module):
  """All experts on all modalities: [B, M, D] -> [B, M, K, D], what expert k makes of modality m; K is M."""

  depth: int

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    _, m, d = z.shape
    x = jnp.repeat(z[:, :, None], m, axis=2)
    for i in range(self.depth):
      a = SlotDense(d, name=f'value{i}')(x)
      y = a + SlotDense(d, name=f'mlp{i}_out')(nn.gelu(SlotDense(d, name=f'mlp{i}_in')(a)))
      x = x + _BRANCH * y
    return x


class Momke(Model):
  """Mixture of Modality Knowledge Experts.

  Attributes:
    oracle: whether `inputs['oracle_mask']` [B, M], the share of each slot that is real, multiplies what is fused.
    depth: blocks of an expert.
    unimodal: weight of the sum of the experts' losses on their own modalities.
  """

  oracle: bool = True
  depth: int = 4
  unimodal: float = 1.0

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    s, (m, c) = self.sizes, (self.spec.num_modalities, self.spec.num_outputs)
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    each = Experts(self.depth, name='experts')(z)
    unimodal = SlotDense(c, name='heads')(jnp.einsum('bmmd->bmd', each))
    trust = jax.nn.softmax(SlotHeads(m, s.hidden, 0.0, name='router')(z, train=train), axis=-1)
    mixed = jnp.einsum('bmk,bmkd->bmd', trust, each)
    if self.oracle:
      mixed = mixed * inputs[ORACLE_MASK][..., None]
    joint = mixed.reshape(mixed.shape[0], -1)
    h = nn.relu(nn.Dense(joint.shape[-1], name='joint')(joint))
    h = joint + Dropout(s.head_dropout)(h, deterministic=not train)
    return Outputs(prediction=nn.Dense(c, name='out')(h), unimodal_predictions=unimodal, latents=z)

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The loss of the mixture, and of every expert on its own modality where the trainer left that intact."""
    out, label = self(batch['inputs'], train=True), batch['label']
    alone = out.unimodal_predictions
    assert alone is not None
    each = -evidence.score(self.spec, alone, label_of_each(alone, label))
    intact = (batch['kept'] >= 1.0).astype(each.dtype)
    unimodal = ((intact * each).sum(0) / rows.divisor(intact.sum(0))).sum()
    return {'task': task_loss(self.spec, out.prediction, label), 'unimodal': self.unimodal * unimodal}
