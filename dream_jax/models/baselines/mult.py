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
from dream_jax.models.layers import Dropout, SlotDense
from dream_jax.models.model import Model
from dream_jax.models.outputs import Outputs


class SlotNorm(nn.Module):
  """Layer normalisation with a scale and a bias for each slot: [..., P, D]."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = self.param('scale', nn.initializers.ones, x.shape[-2:])
    bias = self.param('bias', nn.initializers.zeros, x.shape[-2:])
    x = nn.LayerNorm(use_scale=False, use_bias=False, epsilon=1e-5)(x)
    return x * jnp.broadcast_to(scale, x.shape) + jnp.broadcast_to(bias, x.shape)


class SlotTransformers(nn.Module):
  """P transformers side by side: queries x [B, T, P, D] on sources [B, T, P, D], or on themselves without `source`.

  Attributes:
    layers: of each.
    heads: of attention; divides D.
    dropout: rate on what a layer adds.
  """

  layers: int
  heads: int
  dropout: float | jax.Array

  @nn.compact
  def __call__(
    self, x: jax.Array, x_mask: jax.Array, source: jax.Array | None, source_mask: jax.Array, *, train: bool
  ) -> jax.Array:
    """`x_mask` and `source_mask` are bool [B, P, T]."""
    b, t, p, d = x.shape
    drop = Dropout(self.dropout)

    def split(y):
      return y.reshape(b, t, p, self.heads, d // self.heads)

    def embed(y):
      y = math.sqrt(d) * y + jnp.asarray(sinusoids(t, d), y.dtype)[None, :, None]
      return drop(y, deterministic=not train)

    lead = jnp.abs(source_mask.sum(-1) - x_mask.sum(-1))[:, :, None, None]
    time = jnp.arange(t)
    earlier = time[None, None, None, :] <= time[None, None, :, None] + lead
    allowed = (earlier & source_mask[:, :, None, :])[:, :, None]  # [B, P, 1, T, T]
    x = embed(x)
    source = None if source is None else embed(source)
    for i in range(self.layers):
      norm = SlotNorm(name=f'norm_attention{i}')
      y = norm(x)
      kv = y if source is None else norm(source)
      query, key, value = (SlotDense(d, name=f'{n}{i}')(v) for n, v in (('query', y), ('key', kv), ('value', kv)))
      score = jnp.einsum('btphd,bsphd->bphts', split(query), split(key)) / math.sqrt(d // self.heads)
      # A token that may attend to nothing hears nothing.
      weight = jnp.where(allowed, jax.nn.softmax(jnp.where(allowed, score, -1e9), axis=-1), 0.0)
      y = jnp.einsum('bphts,bsphd->btphd', weight, split(value)).reshape(b, t, p, d)
      x = x + drop(SlotDense(d, name=f'out{i}')(y), deterministic=not train)
      y = SlotDense(4 * d, name=f'mlp_in{i}')(SlotNorm(name=f'norm_mlp{i}')(x))
      x = x + drop(SlotDense(d, name=f'mlp_out{i}')(nn.relu(y)), deterministic=not train)
    return SlotNorm(name='norm')(x)


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
    features: of the output.
    layers: of each crossmodal transformer.
    memory_layers: of each transformer on what a modality made of the others.
    heads: most heads of attention; as many of them as divide the width.
    dropout: rate inside the transformers.
    head_dropout: rate inside the residual block at the end.
  """

  features: int
  layers: int
  memory_layers: int
  heads: int
  dropout: float | jax.Array
  head_dropout: float | jax.Array

  @nn.compact
  def __call__(self, tokens: Tokens, *, train: bool) -> jax.Array:
    b, m, t, d = tokens.values.shape
    pairs = np.array([(i, k) for i in range(m) for k in range(m) if k != i])
    x = tokens.values.swapaxes(1, 2)
    settings = (math.gcd(self.heads, d), self.dropout)
    own, other = tokens.mask[:, pairs[:, 0]], tokens.mask[:, pairs[:, 1]]
    cross = SlotTransformers(self.layers, *settings, name='cross')
    x = cross(x[:, :, pairs[:, 0]], own, x[:, :, pairs[:, 1]], other, train=train)
    x = x.reshape(b, t, m, (m - 1) * d)
    x = SlotTransformers(self.memory_layers, *settings, name='memory')(x, tokens.mask, None, tokens.mask, train=train)
    last = jnp.maximum(tokens.mask.sum(-1) - 1, 0)  # [B, M]
    x = jnp.take_along_axis(x, last[:, None, :, None], axis=1)[:, 0]
    x = jnp.where(tokens.mask.any(-1)[..., None], x, 0.0).reshape(b, -1)
    h = nn.relu(nn.Dense(x.shape[-1], name='in')(x))
    h = x + nn.Dense(x.shape[-1], name='middle')(Dropout(self.head_dropout)(h, deterministic=not train))
    return nn.Dense(self.features, name='out')(h)


class Mult(Model):
  """Multimodal Transformer.

  Attributes:
    layers: of each transformer.
    heads: most heads of attention; as many of them as divide the width.
  """

  layers: int = 2
  heads: int = 2

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool = False) -> Outputs:
    """Outputs of a batch."""
    s = self.sizes
    encoders = TokenEncoders(self.spec, s.width, s.sequence_encoder, s.dropout, name='encoders')
    tokens = encoders(inputs, train=train)
    settings = (self.layers, self.layers, self.heads, s.dropout, s.head_dropout)
    fusion = CrossmodalFusion(self.spec.num_outputs, *settings, name='fusion')
    return Outputs(prediction=fusion(tokens, train=train), latents=tokens.mean())
