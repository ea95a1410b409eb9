"""HME-style: a variational bottleneck says how uncertain each modality is, and certainty weighs the fusion.

After the Hyper-Modality Enhancement of YetZzzzzz/HME (NeurIPS 2025), of which only the weighting is here.

  mu_m, sigma_m from linear(z_m);  h_m = mu_m + sigma_m eps in training
  zeta_m = clip(1 / (mean sigma_m + eps), low, high);  w = softmax(zeta) over m
  prediction = MLP(sum_m w_m h_m);  l_m = head_m(h_m)
  loss = task + unimodal losses of l_m + beta KL(q_m | N(0, 1))

Left out: retrieval of similar samples inside the batch, and the prompts made from it. The published weight is clipped
where original and enhanced features meet; here it is where modalities do. log sigma^2 is bounded as in `p_rmf.py`.

Needs: nothing but the label: no complete data, no mask.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.models.baselines.lnln import Perceptron
from dream_jax.models.baselines.p_rmf import kl_from_normal, sampled, variational
from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout, SlotDense
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import task_loss, unimodal_loss
from dream_jax.models.outputs import Outputs


class Hme(Model):
  """Fusion weighted by certainty.

  Attributes:
    low: least zeta.
    high: largest zeta.
    unimodal: weight of the modalities' own losses.
    beta: weight of the divergence from the prior.
  """

  low: float = 0.2
  high: float = 5.0
  unimodal: float = 0.3
  beta: float = 0.01

  @nn.compact
  def trace(self, inputs: Inputs, *, train: bool) -> tuple[Outputs, jax.Array, jax.Array]:
    """Outputs, and mean and log variance of the latents, [B, M, D] each."""
    s, c = self.sizes, self.spec.num_outputs
    z = Encoders(self.spec, s, name='encoders')(inputs, train=train)
    mu, log_variance = variational(SlotDense(2 * s.width, name='posterior')(z))
    sigma = jnp.exp(0.5 * log_variance)
    h = sampled(self.make_rng('draw'), mu, sigma) if train else mu
    zeta = jnp.clip(1.0 / (sigma.mean(-1) + 1e-6), self.low, self.high)
    share = jax.nn.softmax(zeta, axis=-1)
    fused = Dropout(s.head_dropout)(jnp.einsum('bm,bmd->bd', share, h), deterministic=not train)
    outputs = Outputs(
      prediction=Perceptron(c, s.hidden, name='head')(fused),
      contributions=z.shape[1] * share,
      unimodal_predictions=SlotDense(c, name='heads')(h),
      latents=z,
    )
    return outputs, mu, log_variance

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    return self.trace(inputs, train=train)[0]

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """Task, unimodal losses and divergence."""
    out, mu, log_variance = self.trace(batch['inputs'], train=True)
    return {
      'task': task_loss(self.spec, out.prediction, batch['label']),
      'unimodal': self.unimodal * unimodal_loss(self.spec, out, batch['label']),
      'kl': self.beta * kl_from_normal(mu, log_variance),
    }
