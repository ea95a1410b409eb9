"""P-RMF: a proxy modality, made of all modalities by how certain each is, holds the fusion together.

Zhu et al.: Proxy-Driven Robust Multimodal Sentiment Analysis with Incomplete Data. ACL 2025.

  mu_m, log sigma_m^2 = linear(z_m), a variational encoder a modality;  s_m = mu_m + sigma_m eps in training
  a_m = softmax over m of -mean(log sigma_m^2);  p = sum_m a_m s_m
  p <- p + attention(p; s_1 .. s_M), `layers` times;  prediction = MLP([p, mean of s])
  loss = task + 0.01 KL(q_m | N(0, 1)) + |decode_m(s_m) - z_m of complete inputs|^2

log sigma^2 is bounded to (-6, 6) by 6 tanh(x / 6).

Simplified here: latents, one a modality, where the published model has sequences of them; two layers of injection for
four; one share a modality, where a released reimplementation has one for every entry of mu, and no divergence between
the modalities' posteriors, which it has.

Needs: complete training data to rebuild, out of which the trainer removes modalities. No mask when it predicts.
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models.baselines.lnln import GuidedAttention, Perceptron
from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout, SlotDense, SlotHeads
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import reconstruction_loss, task_loss
from dream_jax.models.outputs import Outputs
from dream_jax.parallel import rows


def kl_from_normal(mu: jax.Array, log_variance: jax.Array) -> jax.Array:
  """Kullback-Leibler divergence of N(mu, exp(log_variance)) from N(0, 1), mean over all entries."""
  return 0.5 * (jnp.exp(log_variance) + jnp.square(mu) - 1.0 - log_variance).mean()


def variational(raw: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and log variance [..., D] of [..., 2 D]; the variance is bounded so that no exponential overflows."""
  mu, log_variance = jnp.split(raw, 2, axis=-1)
  return mu, 6.0 * jnp.tanh(log_variance / 6.0)


def sampled(key: jax.Array, mu: jax.Array, sigma: jax.Array) -> jax.Array:
  """A draw from N(mu, sigma^2), [B, ...]."""
  return mu + sigma * rows.draw(lambda shape: jax.random.normal(key, shape, mu.dtype), mu.shape)


class Prmf(Model):
  """Proxy-driven Robust Multimodal Fusion.

  Attributes:
    layers: number of injection layers.
    kl: weight of the divergence from the prior.
    reconstruction: weight of the distance from latents of complete inputs.
  """

  layers: int = 2
  kl: float = 0.01
  reconstruction: float = 1.0

  reads_clean = True

  def setup(self):
    s = self.sizes
    self.encoders = Encoders(self.spec, s)
    self.posterior = SlotDense(2 * s.width)
    self.injections = [GuidedAttention() for _ in range(self.layers)]
    self.decoder = SlotHeads(s.width, s.hidden, 0.0)
    self.head = Perceptron(self.spec.num_outputs, s.hidden)
    self.head_dropout = Dropout(s.head_dropout)

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    return self.trace(inputs, train=train)[0]

  def trace(self, inputs: Inputs, *, train: bool) -> tuple[Outputs, jax.Array, jax.Array]:
    """Outputs, and mean and log variance of the latents, [B, M, D] each."""
    z = self.encoders(inputs, train=train)
    mu, log_variance = variational(self.posterior(z))
    drawn = mu
    if train:
      drawn = sampled(self.make_rng('draw'), mu, jnp.exp(0.5 * log_variance))
    share = jax.nn.softmax(-log_variance.mean(-1), axis=-1)
    proxy = jnp.einsum('bm,bmd->bd', share, drawn)
    for layer in self.injections:
      proxy = layer(proxy, proxy, drawn)
    x = self.head_dropout(jnp.concatenate([proxy, drawn.mean(1)], axis=-1), deterministic=not train)
    outputs = Outputs(
      prediction=self.head(x),
      contributions=z.shape[1] * share,
      latents=z,
      reconstructions=self.decoder(drawn, train=train),
    )
    return outputs, mu, log_variance

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """Task, divergence and reconstruction."""
    out, mu, log_variance = self.trace(batch['inputs'], train=True)
    truth = stop_gradient(self.encoders(batch['clean'], train=False))
    return {
      'task': task_loss(self.spec, out.prediction, batch['label']),
      'kl': self.kl * kl_from_normal(mu, log_variance),
      'reconstruction': self.reconstruction * reconstruction_loss(out, truth),
    }
