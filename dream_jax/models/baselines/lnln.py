"""LNLN: language leads; where it is incomplete, a proxy made of the other modalities stands in for it.

Zhang, Wang, Yu: Towards Robust Multimodal Sentiment Analysis with Incomplete Data. NeurIPS 2024.

  w = sigmoid(MLP(z_d)), the completeness of the dominant modality d, in (0, 1)
  p = MLP([z_k, k != d]), its proxy;  h_d = w z_d + (1 - w) p
  y = h_d + attention(h_d; z_k, k != d), twice;  prediction = MLP([h_d, y])
  loss = task + 0.9 (w - true completeness)^2 + 0.8 adversary + 0.1 reconstruction

The adversary tells latents of d from proxies; its gradient is reversed on the way to the proxy. The reconstruction
makes the latents of complete inputs out of those of damaged ones.

Simplified here: latents, one a modality, where the published model works on eight tokens each; the attention that
language guides has one head. The adversary tells proxies from latents of d where d is there, in the released code the
mixture h_d from latents of the complete d, and its reversal lies on the way of all gradients; the latents to rebuild
carry gradient there and none here. The true completeness is the share of the dominant modality that the trainer left.

Needs: complete training data, of which the trainer knows what it removed. No mask when it predicts.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models.encoders import Encoders, Inputs
from dream_jax.models.layers import Dropout, SlotHeads
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import reconstruction_loss, task_loss
from dream_jax.models.outputs import Outputs


class Perceptron(nn.Module):
  """One hidden layer: [..., D] -> [..., features]."""

  features: int
  hidden: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return nn.Dense(self.features, name='out')(nn.gelu(nn.Dense(self.hidden, name='in')(x)))


class GuidedAttention(nn.Module):
  """What a query [B, D] finds in keys [B, K, D], added to `y` [B, D]."""

  @nn.compact
  def __call__(self, y: jax.Array, query: jax.Array, keys: jax.Array) -> jax.Array:
    d = query.shape[-1]
    query, key = nn.Dense(d, name='query')(query), nn.Dense(d, name='key')(keys)
    weight = jax.nn.softmax(jnp.einsum('bd,bkd->bk', query, key) / math.sqrt(d), axis=-1)
    return y + jnp.einsum('bk,bkd->bd', weight, nn.Dense(d, name='value')(keys))


def dominant_index(model: 'Lnln') -> int:
  """The modality that leads: the one named, else tokens or what is called 'text', else the first."""
  spec = model.spec
  if model.dominant is not None:
    return spec.index(model.dominant)
  language = [i for i, m in enumerate(spec.modalities) if m.kind == 'tokens' or m.name == 'text']
  return language[0] if language else 0


class Lnln(Model):
  """Language-dominated Noise-resistant Learning Network.

  Attributes:
    dominant: name of the modality that leads; found by itself when None.
    completeness: weight of the error of the estimated completeness.
    adversary: weight of the adversary's loss.
    reconstruction: weight of the distance from latents of complete inputs.
  """

  dominant: str | None = None
  completeness: float = 0.9
  adversary: float = 0.8
  reconstruction: float = 0.1

  reads_clean = True

  def setup(self):
    s = self.sizes
    self.encoders = Encoders(self.spec, s)
    self.complete = Perceptron(1, s.hidden)
    self.proxy = Perceptron(s.width, s.hidden)
    self.critic = Perceptron(1, s.hidden)
    self.guided = [GuidedAttention(), GuidedAttention()]
    self.rebuild = SlotHeads(s.width, s.hidden, 0.0)
    self.head = Perceptron(self.spec.num_outputs, s.hidden)
    self.head_dropout = Dropout(s.head_dropout)

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    return self.trace(inputs, train=train)[0]

  def trace(self, inputs: Inputs, *, train: bool) -> tuple[Outputs, jax.Array, jax.Array, jax.Array]:
    """Outputs, logits of completeness [B], proxy [B, D], and what the critic says of (proxy, latent) [B, 2]."""
    z, d = self.encoders(inputs, train=train), dominant_index(self)
    lead, others = z[:, d], jnp.delete(z, d, axis=1)
    w = self.complete(lead)
    proxy = self.proxy(others.reshape(others.shape[0], -1))
    share = jax.nn.sigmoid(w)
    h = share * lead + (1.0 - share) * proxy
    y = h
    for layer in self.guided:
      y = layer(y, h, others)
    x = self.head_dropout(jnp.concatenate([h, y], axis=-1), deterministic=not train)
    outputs = Outputs(prediction=self.head(x), latents=z, reconstructions=self.rebuild(z, train=train))
    # Minus the identity on the way back: the critic learns to tell, the proxy not to be told.
    reversed_proxy = 2.0 * stop_gradient(proxy) - proxy
    told = self.critic(jnp.stack([reversed_proxy, stop_gradient(lead)], axis=1))[..., 0]
    return outputs, w[:, 0], proxy, told

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """Task, completeness, adversary and reconstruction."""
    out, w, _, told = self.trace(batch['inputs'], train=True)
    kept = batch['kept'][:, dominant_index(self)]
    truth = stop_gradient(self.encoders(batch['clean'], train=False))
    # Only what is really there shows the critic what the dominant modality looks like.
    seen = -jax.nn.log_sigmoid(told[:, 1]) * kept - jax.nn.log_sigmoid(-told[:, 0])
    return {
      'task': task_loss(self.spec, out.prediction, batch['label']),
      'completeness': self.completeness * jnp.square(jax.nn.sigmoid(w) - kept).mean(),
      'adversary': self.adversary * 0.5 * seen.mean(),
      'reconstruction': self.reconstruction * reconstruction_loss(out, truth),
    }
