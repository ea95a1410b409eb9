"""TFR-Net: attention within and between modalities that must also be able to rebuild the features that went missing.

Yuan, Li, Xu, Yu: Transformer-based Feature Reconstruction Network for Robust Multimodal Sentiment Analysis. ACM
Multimedia 2021.

  X_m [T, D]                                            tokens of modality m, with positions
  H_m = [X_mm, X_mk for k != m] [T, M D]                X_mm: a transformer over X_m (attention within the modality)
                                                        X_mk: queries of m, keys and values of X_k (between them)
  X^_m = generator_m(H_m)                               rebuilt features
  U = context_m(H_m),  g = sigmoid(CNN(U)) [T, 1]       CNN-gate encoder
  r_m = max over T of tanh(W [H_m, g tanh(U)])
  prediction = classifier([r_1 .. r_M])
  loss = task + sum_m SmoothL1(X^_m, true features of m)    at missing positions of m

The generators shape what attention extracts; the prediction does not read what they rebuild.

Simplified here:
* Features to rebuild are the tokens that the shared encoders make of the complete inputs, without gradients: raw ones
  are of another kind in every modality. The published weights of the loss are tuned for the raw features of each
  modality and data set; here features are normalised and one weight serves all.
* Generators are perceptrons on H_m; the published ones are linear, after attention over H_m's transpose.
* `context` is a dense layer where the paper has a bidirectional GRU: a recurrence is slow to compile and to vectorise
  over seeds, and H_m knows its context already. The gate's convolution is a dense layer over neighbouring tokens.
* The classifier has no batch normalisation.

Needs: complete training data to rebuild, out of which the trainer removes modalities. No mask when it predicts.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models.encoders import Inputs, TokenEncoders, Tokens, shifted
from dream_jax.models.layers import Dropout, StackDense, masked_softmax
from dream_jax.models.model import Batch, Model
from dream_jax.models.objective import task_loss
from dream_jax.models.outputs import Outputs
from dream_jax.models.sizes import Dtype
from dream_jax.parallel import rows


class PairAttention(nn.Module):
  """One transformer layer for every pair of modalities: tokens of m ask those of k; m = k is self-attention.

  Attributes:
    heads: number of attention heads; divides D.
    dropout: rate on what is added.
  """

  heads: int
  dropout: float | jax.Array

  @nn.compact
  def __call__(self, x: jax.Array, tokens: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    """`x` [M, K, B, T, D] starts as the tokens of m, for each k; `tokens` [M, B, T, D], `mask` bool [M, B, T]."""
    m, _, b, t, d = x.shape
    drop = Dropout(self.dropout, axis=2)

    def dense(features, name):
      return StackDense(features, axes=2, name=name)

    def norm(x):  # The layers that follow scale and shift.
      return nn.LayerNorm(use_scale=False, use_bias=False)(x.astype(jnp.float32)).astype(x.dtype)

    def split(x):
      return x.reshape(m, m, b, t, self.heads, d // self.heads).swapaxes(3, 4)

    own = jnp.eye(m, dtype=bool)[:, :, None, None, None]
    others = jnp.broadcast_to(tokens[None], x.shape).astype(x.dtype)
    source = norm(jnp.where(own, x, others))
    there = mask[None, :, :, None, None, :]
    query = dense(d, 'query')(norm(x))
    key, value = jnp.split(dense(2 * d, 'key_value')(source), 2, axis=-1)
    score = jnp.einsum('mkbhtd,mkbhsd->mkbhts', split(query), split(key)) / math.sqrt(d // self.heads)
    weight = masked_softmax(score, there)  # A source without any token says nothing.
    heard = jnp.einsum('mkbhts,mkbhsd->mkbhtd', weight, split(value)).swapaxes(3, 4).reshape(x.shape)
    x = x + drop(dense(d, 'out')(heard), deterministic=not train)
    y = dense(d, 'mlp_out')(nn.gelu(dense(2 * d, 'mlp_in')(norm(x))))
    return x + drop(y, deterministic=not train)


class Extractor(nn.Module):
  """Attention within and between modalities: tokens [B, M, T, D] -> [M, B, T, M D].

  Attributes:
    layers: number of layers of each transformer.
    heads: most heads of attention; as many of them as divide D.
    dropout: rate inside the transformers.
    dtype: type of the transformers and of what they return.
  """

  layers: int
  heads: int
  dropout: float | jax.Array
  dtype: Dtype

  @nn.compact
  def __call__(self, tokens: Tokens, *, train: bool) -> jax.Array:
    b, m, t, d = tokens.values.shape
    position = self.param('position', nn.initializers.normal(0.02), (m, t, d))
    values, mask = tokens.values.swapaxes(0, 1) + position[:, None], tokens.mask.swapaxes(0, 1)
    x = jnp.repeat(values[:, None], m, axis=1).astype(self.dtype)
    for i in range(self.layers):
      layer = PairAttention(math.gcd(self.heads, d), self.dropout, name=f'attention{i}')
      x = layer(x, values, mask, train=train)
    return x.transpose(0, 2, 3, 1, 4).reshape(m, b, t, m * d)


class StackHeads(nn.Module):
  """A perceptron with one hidden layer per slot: [M, ..., D] -> [M, ..., features]."""

  features: int
  hidden: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return StackDense(self.features, name='out')(nn.gelu(StackDense(self.hidden, name='in')(x)))


class GateEncoder(nn.Module):
  """One vector a modality from gated tokens: [M, B, T, F] and their mask [M, B, T] -> [M, B, D] in float32."""

  width: int

  @nn.compact
  def __call__(self, h: jax.Array, mask: jax.Array) -> jax.Array:
    there = mask[..., None]
    u = StackDense(self.width, name='context')(h)
    gate = StackDense(1, name='gate')(shifted(jnp.where(there, u, 0.0), axis=2))
    gated = jax.nn.sigmoid(gate.astype(jnp.float32)) * jnp.tanh(u.astype(jnp.float32))
    r = StackDense(self.width, name='out')(jnp.concatenate([h, gated.astype(h.dtype)], axis=-1))
    r = jnp.tanh(r.astype(jnp.float32))
    return jnp.where(there.any(2), jnp.max(jnp.where(there, r, -1.0), axis=2), 0.0)  # tanh is nowhere below -1


class TfrNet(Model):
  """Transformer-based Feature Reconstruction Network.

  Attributes:
    layers: number of layers of each transformer.
    heads: most heads of attention; as many of them as divide the width.
    reconstruction: weight of the distance between rebuilt and true features of removed modalities.
  """

  layers: int = 2
  heads: int = 4
  reconstruction: float = 1.0

  reads_clean = True

  def setup(self):
    s = self.sizes
    self.encoders = TokenEncoders(self.spec, s)
    self.extractor = Extractor(self.layers, self.heads, s.dropout, s.dtype)
    self.generators = StackHeads(s.width, s.hidden)
    self.gate_encoder = GateEncoder(s.width)
    self.head_in = nn.Dense(s.hidden)
    self.head_dropout = Dropout(s.head_dropout)
    self.head_out = nn.Dense(self.spec.num_outputs)

  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    return self.trace(inputs, train=train)[0]

  def trace(self, inputs: Inputs, *, train: bool) -> tuple[Outputs, jax.Array]:
    """The outputs, and the rebuilt tokens [B, M, T, D]."""
    tokens = self.encoders(inputs, train=train)
    h = self.extractor(tokens, train=train)
    rebuilt = self.generators(h).swapaxes(0, 1).astype(jnp.float32)
    r = self.gate_encoder(h, tokens.mask.swapaxes(0, 1)).swapaxes(0, 1)
    r = nn.gelu(self.head_in(r.reshape(r.shape[0], -1)))
    outputs = Outputs(
      prediction=self.head_out(self.head_dropout(r, deterministic=not train)),
      latents=tokens.mean(),
      reconstructions=dataclasses.replace(tokens, values=rebuilt).mean(),
    )
    return outputs, rebuilt

  def objective(self, batch: Batch) -> dict[str, jax.Array]:
    """The task loss, and how far rebuilt features of what was removed are from the true ones."""
    out, rebuilt = self.trace(batch['inputs'], train=True)
    truth = self.encoders(batch['clean'], train=False)
    missing = truth.mask & (batch['kept'] < 1.0)[..., None]
    error = _smooth_l1(rebuilt - stop_gradient(truth.values)).mean(-1)
    each = jnp.where(missing, error, 0.0).sum((0, 2)) / rows.divisor(missing.sum((0, 2)).astype(error.dtype))
    return {
      'task': task_loss(self.spec, out.prediction, batch['label']),
      'reconstruction': self.reconstruction * each.sum(),
    }


def _smooth_l1(x: jax.Array) -> jax.Array:
  """Half the square up to 1, beyond it the distance less a half."""
  x = jnp.abs(x)
  return jnp.where(x < 1.0, 0.5 * jnp.square(x), x - 0.5)
