"""MulT: every modality attends to every other one, token by token, without alignment.

Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov: Multimodal Transformer for Unaligned Multimodal Language Sequences.
ACL 2019.

  x_{k->m} = transformer with queries from the tokens of m, keys and values from those of k, for every k != m
  x_m = transformer on [x_{k->m}] over k, its last token
  x = [x_1 .. x_M],  prediction = out(x + W relu(V x))

Tokens are scaled by the root of their width and carry sinusoidal positions; layers normalise first. As in the released
code a token attends to no later one, counted from the end where two sequences differ in length.

Simplified here: two layers and two heads; tokens come from the shared encoders, which shorten sequences fourfold, where
the published model has one temporal convolution; dropout stands after layers, not on attention weights. Padding, which
the released code attends to, is masked, and the last token is the last that is there.

Needs: nothing but the label.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.models.encoders import Inputs, TokenEncoders, Tokens
from dream_jax.models.layers import Dropout, StackDense, masked_softmax
from dream_jax.models.model import Model
from dream_jax.models.outputs import Outputs
from dream_jax.models.sizes import Dtype


class StackNorm(nn.Module):
  """Layer normalisation with a scale and a bias for each slot: [P, B, T, D]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    p, _, _, d = x.shape
    scale = self.param('scale', nn.initializers.ones, (p, d))
    bias = self.param('bias', nn.initializers.zeros, (p, d))
    y = nn.LayerNorm(use_scale=False, use_bias=False, epsilon=1e-5)(x.astype(jnp.float32))
    return (y * scale[:, None, None] + bias[:, None, None]).astype(x.dtype)


class Transformers(nn.Module):
  """P transformers side by side: queries x [P, B, T, D] on sources [P, B, T, D], or on themselves without `source`.

  Attributes:
    layers: number of layers of each.
    heads: number of attention heads; divides D.
    dropout: rate on what a layer adds.
  """

  layers: int
  heads: int
  dropout: float | jax.Array

  @nn.compact
  def __call__(
    self, x: jax.Array, x_mask: jax.Array, source: jax.Array | None, source_mask: jax.Array, *, train: bool
  ) -> jax.Array:
    """`x_mask` and `source_mask` are bool [P, B, T]."""
    p, b, t, d = x.shape
    drop = Dropout(self.dropout, axis=1)

    def split(y):
      return y.reshape(p, b, t, self.heads, d // self.heads).swapaxes(2, 3)

    def embed(y):
      y = math.sqrt(d) * y + jnp.asarray(sinusoids(t, d), y.dtype)[None, None]
      return drop(y, deterministic=not train)

    lead = jnp.abs(source_mask.sum(-1) - x_mask.sum(-1))[:, :, None, None]
    time = jnp.arange(t)
    earlier = time[None, None, None, :] <= time[None, None, :, None] + lead
    allowed = (earlier & source_mask[:, :, None, :])[:, :, None]  # [P, B, 1, T, T]
    x = embed(x)
    source = None if source is None else embed(source)
    for i in range(self.layers):
      norm = StackNorm(name=f'norm_attention{i}')
      y = norm(x)
      kv = y if source is None else norm(source)
      query, key, value = (StackDense(d, name=f'{n}{i}')(v) for n, v in (('query', y), ('key', kv), ('value', kv)))
      score = jnp.einsum('pbhtd,pbhsd->pbhts', split(query), split(key)) / math.sqrt(d // self.heads)
      weight = masked_softmax(score, allowed)  # A token that may attend to nothing hears nothing.
      y = jnp.einsum('pbhts,pbhsd->pbhtd', weight, split(value)).swapaxes(2, 3).reshape(p, b, t, d)
      x = x + drop(StackDense(d, name=f'out{i}')(y), deterministic=not train)
      y = StackDense(4 * d, name=f'mlp_in{i}')(StackNorm(name=f'norm_mlp{i}')(x))
      x = x + drop(StackDense(d, name=f'mlp_out{i}')(nn.relu(y)), deterministic=not train)
    return StackNorm(name='norm')(x)


def sinusoids(length: int, width: int) -> np.ndarray:
  """Positions 1 to `length`, float32 [length, width]: sines in the first half, cosines in the second."""
  half = width // 2
  rate = np.exp(-np.log(10000.0) / max(half - 1, 1) * np.arange(half))
  angle = np.arange(1, length + 1)[:, None] * rate[None]
  table = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
  return np.pad(table, ((0, 0), (0, width - 2 * half))).astype(np.float32)


class CrossmodalFusion(nn.Module):
  """All tokens -> [B, features]. Pairs (m, k) of modalities lie in the order of m, then k.

  Attributes:
    features: width of the output.
    layers: number of layers of each crossmodal transformer.
    memory_layers: number of layers of each transformer on what a modality made of the others.
    heads: most heads of attention; as many of them as divide the width.
    dropout: rate inside the transformers.
    head_dropout: rate inside the residual block at the end.
    dtype: type of the transformers.
  """

  features: int
  layers: int
  memory_layers: int
  heads: int
  dropout: float | jax.Array
  head_dropout: float | jax.Array
  dtype: Dtype

  @nn.compact
  def __call__(self, tokens: Tokens, *, train: bool) -> jax.Array:
    b, m, t, d = tokens.values.shape
    pairs = np.array([(i, k) for i in range(m) for k in range(m) if k != i])
    values, mask = tokens.values.swapaxes(0, 1), tokens.mask.swapaxes(0, 1)  # Slots first: [M, B, T, D].
    settings = (math.gcd(self.heads, d), self.dropout)
    own, other = pairs[:, 0], pairs[:, 1]
    cross = Transformers(self.layers, *settings, name='cross')
    x, source = values[own].astype(self.dtype), values[other].astype(self.dtype)
    x = cross(x, mask[own], source, mask[other], train=train)
    x = x.reshape(m, m - 1, b, t, d).transpose(0, 2, 3, 1, 4).reshape(m, b, t, (m - 1) * d)
    x = Transformers(self.memory_layers, *settings, name='memory')(x, mask, None, mask, train=train)
    last = jnp.maximum(mask.sum(-1) - 1, 0)  # [M, B]
    x = jnp.take_along_axis(x.astype(jnp.float32), last[:, :, None, None], axis=2)[:, :, 0]
    x = jnp.where(mask.any(-1)[..., None], x, 0.0).swapaxes(0, 1).reshape(b, -1)
    h = nn.relu(nn.Dense(x.shape[-1], name='in')(x))
    h = x + nn.Dense(x.shape[-1], name='middle')(Dropout(self.head_dropout)(h, deterministic=not train))
    return nn.Dense(self.features, name='out')(h)


class Mult(Model):
  """Multimodal Transformer.

  Attributes:
    layers: number of layers of each transformer.
    heads: most heads of attention; as many of them as divide the width.
  """

  layers: int = 2
  heads: int = 2

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    s = self.sizes
    tokens = TokenEncoders(self.spec, s, name='encoders')(inputs, train=train)
    settings = (self.layers, self.layers, self.heads, s.dropout, s.head_dropout, s.dtype)
    fusion = CrossmodalFusion(self.spec.num_outputs, *settings, name='fusion')
    return Outputs(prediction=fusion(tokens, train=train), latents=tokens.mean())
