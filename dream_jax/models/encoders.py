"""One encoder a modality kind, each ending in a latent vector of the same width.

Convolutions are written as a dense layer over shifted copies: when seeds are vectorised, every seed has its own kernel,
and XLA turns a convolution with batched kernels into a grouped one, which is slow; a batched matrix product is fast.

Encoders compute in the dtype of their input, which `ModalityEncoder` casts; latents and tokens are float32.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dream_jax.models.layers import Dense, Dropout, SelfAttention, add
from dream_jax.models.sizes import Sizes
from dream_jax.spec import DatasetSpec, ModalitySpec

Inputs = Mapping[str, jax.Array]


def time_mask(length: jax.Array, num_frames: int) -> jax.Array:
  """Bool [B, T]: which frames lie inside the sequence (`length` is int [B])."""
  return jnp.arange(num_frames)[None, :] < length[:, None]


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of [..., T, D] over the frames of `mask` [..., T], float32; zero where no frame is valid."""
  return weighted_mean(x, mask.astype(jnp.float32))


def weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
  """Mean of [..., T, D] over frames of a `weight` [..., T] each, float32; a total weight below 1 counts as 1."""
  weight = weight[..., None]
  return (x.astype(jnp.float32) * weight).sum(-2) / jnp.maximum(weight.sum(-2), 1.0)


def shifted(x: jax.Array, axis: int, stride: int = 1) -> jax.Array:
  """Every `stride`-th place along `axis`, with its two neighbours appended to the features, zero beyond the ends.

  Slices first, zeros after: an activation that padding is applied to is compiled into the padding, element by element.
  """
  size = x.shape[axis]
  last = (size - 1) // stride  # index of the last place that is kept

  def taken(start, limit, before, after):
    part = jax.lax.slice_in_dim(x, min(start, limit), limit, stride, axis)
    return jnp.pad(part, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])

  left = taken(stride - 1, last * stride, 1, 0)
  own = taken(0, size, 0, 0)
  right = taken(1, size, 0, 1 - int(last * stride + 1 < size))
  return jnp.concatenate([left, own, right], axis=-1)


def windows(x: jax.Array) -> jax.Array:
  """Three neighbouring frames of [B, T, D] side by side, every third one in the middle: [B, ceil(T / 3), 3 D].

  As `shifted(x, 1)[:, ::3]`, by one padding instead of three, of which two thirds were thrown away.
  """
  b, t, d = x.shape
  size = 3 * -(-t // 3)
  x = jnp.pad(x[:, : size - 1], ((0, 0), (1, max(0, size - 1 - t)), (0, 0)))
  return x.reshape(b, size // 3, 3 * d)


class SequenceEncoder(nn.Module):
  """Temporal convolutions of stride 2 with masked mean and max pooling: [B, T, D_in] -> [B, D].

  Without `pool` the frames before pooling and their mask: [B, T', D] and bool [B, T'].
  """

  width: int
  num_layers: int = 2
  pool: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, length: jax.Array):
    mask = time_mask(length, x.shape[1])
    if x.shape[-1] > self.width:  # wide features are projected first: the three-frame kernel would triple their cost
      x = Dense(self.width, name='project')(x)
    for i in range(self.num_layers):
      x = shifted(x * mask[..., None].astype(x.dtype), axis=1, stride=2)
      mask = mask[:, ::2]
      x = nn.gelu(Dense(self.width, name=f'conv{i}')(x))
    if not self.pool:
      return x, mask
    x = x.astype(jnp.float32)
    highest = jnp.max(jnp.where(mask[..., None], x, -1e9), axis=1)
    highest = jnp.where(mask.any(-1)[:, None], highest, 0.0)
    return Dense(self.width, name='out')(jnp.concatenate([masked_mean(x, mask), highest], axis=-1))


class TransformerEncoder(nn.Module):
  """A small pre-norm transformer with learned positions and masked mean pooling: [B, T, D_in] -> [B, D].

  Without `pool` the frames before pooling and their mask: [B, T, D] and bool [B, T].
  """

  width: int
  num_layers: int = 2
  num_heads: int = 4
  pool: bool = True
  dropout: float | jax.Array = 0.1

  @nn.compact
  def __call__(self, x: jax.Array, length: jax.Array, *, train: bool):
    mask = time_mask(length, x.shape[1])
    position = self.param('position', nn.initializers.normal(0.02), (x.shape[1], self.width))
    x = add(Dense(self.width, name='project')(x), position)
    attend = (mask[:, None, None, :]) | jnp.eye(x.shape[1], dtype=bool)[None, None]  # a row never attends to nothing

    def norm(x, name):
      return nn.LayerNorm(name=name)(x.astype(jnp.float32))

    for i in range(self.num_layers):
      y = norm(x, f'norm_attention{i}').astype(x.dtype)
      y = SelfAttention(self.num_heads, name=f'attention{i}')(y, attend)
      x = x + Dropout(self.dropout)(y, deterministic=not train)
      y = norm(x, f'norm_mlp{i}').astype(x.dtype)
      y = Dense(self.width, name=f'mlp_out{i}')(nn.gelu(Dense(2 * self.width, name=f'mlp_in{i}')(y)))
      x = x + Dropout(self.dropout)(y, deterministic=not train)
    x = norm(x, 'norm')
    return masked_mean(x, mask) if self.pool else (x, mask)


class ImageEncoder(nn.Module):
  """3x3 convolutions, halving the larger sides until at most 4x4 remain: [B, H, W, C_in] -> [B, D].

  Without `pool` the places that remain as a sequence, [B, H' W', D].
  """

  width: int
  pool: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features, i = max(8, self.width // 2), 0
    while i == 0 or max(x.shape[1], x.shape[2]) > 4:
      for axis in (1, 2):
        x = shifted(x, axis, stride=2 if x.shape[axis] > 4 else 1)
      x = nn.gelu(Dense(features, name=f'conv{i}')(x))
      features, i = self.width, i + 1
    if not self.pool:
      return x.reshape(x.shape[0], -1, features)
    return Dense(self.width, name='out')(x.reshape(x.shape[0], -1))


class VectorEncoder(nn.Module):
  """A two-layer perceptron: [B, D_in] -> [B, D]."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.gelu(Dense(2 * self.width, name='in')(x))
    return Dense(self.width, name='out')(x)


class ModalityEncoder(nn.Module):
  """Encodes one modality, whatever its kind: layer-normalised latents [B, D].

  Without `pool` tokens and which of them are there: [B, T, D] and bool [B, T]; a vector is one token.

  Attributes:
    modality: what it encodes.
    sizes: the width D, the kind of encoder, its dropout, and the dtype it computes in.
    pool: one latent, or tokens.
  """

  modality: ModalitySpec
  sizes: Sizes
  pool: bool = True

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool) -> Any:
    m, s = self.modality, self.sizes
    x = inputs[m.name]
    if m.kind == 'tokens':
      x = nn.Embed(m.vocab_size, s.width, name='table')(x)
    x = x.astype(s.dtype)  # Not inside the table: the gradient of a row is a sum over all places of its token.
    if m.has_length:
      if s.sequence_encoder == 'transformer':
        encoder = TransformerEncoder(s.width, dropout=s.dropout, pool=self.pool, name='sequence')
        z = encoder(x, inputs[m.length_name], train=train)
      else:
        z = SequenceEncoder(s.width, pool=self.pool, name='sequence')(x, inputs[m.length_name])
    elif m.kind == 'image':
      z = ImageEncoder(s.width, self.pool, name='image')(x)
    else:
      z = VectorEncoder(s.width, name='vector')(x)
      z = z if self.pool else z[:, None]
    z, mask = z if isinstance(z, tuple) else (z, jnp.ones(z.shape[:2], bool))
    z = nn.LayerNorm(name='norm')(z.astype(jnp.float32))
    z = Dropout(s.dropout)(z, deterministic=not train)
    return z if self.pool else (z, mask)


class Encoders(nn.Module):
  """All modalities of a data set, encoded side by side: inputs -> latents [B, M, D]."""

  spec: DatasetSpec
  sizes: Sizes

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool) -> jax.Array:
    return jnp.stack(
      [ModalityEncoder(m, self.sizes, name=m.inside)(inputs, train=train) for m in self.spec.modalities], axis=1
    )


@flax.struct.dataclass
class Tokens:
  """Tokens of all modalities, padded to the longest.

  Attributes:
    values: [B, M, T, D]; zero where there is none.
    mask: bool [B, M, T], which of them are there.
  """

  values: jax.Array
  mask: jax.Array

  def mean(self) -> jax.Array:
    """Mean over the tokens that are there, [B, M, D]; zero where there is none."""
    weight = self.mask[..., None].astype(self.values.dtype)
    return (self.values * weight).sum(2) / jnp.maximum(weight.sum(2), 1.0)


class TokenEncoders(nn.Module):
  """As `Encoders`, without pooling: inputs -> `Tokens`. Of T frames of a sequence the default encoder leaves T / 4."""

  spec: DatasetSpec
  sizes: Sizes

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool) -> Tokens:
    parts, most = [], self.sizes.max_tokens
    for m in self.spec.modalities:
      z, mask = ModalityEncoder(m, self.sizes, pool=False, name=m.inside)(inputs, train=train)
      parts.append(averaged(z, mask, most) if most else (z, mask))
    longest = max(z.shape[1] for z, _ in parts)
    values, masks = [], []
    for z, mask in parts:
      missing = longest - z.shape[1]
      values.append(jnp.pad(jnp.where(mask[..., None], z, jnp.zeros((), z.dtype)), ((0, 0), (0, missing), (0, 0))))
      masks.append(jnp.pad(mask, ((0, 0), (0, missing))))
    return Tokens(jnp.stack(values, axis=1), jnp.stack(masks, axis=1))


def averaged(z: jax.Array, mask: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
  """At most `most` tokens [B, T', D] and which of them are there, from [B, T, D]: means of equally many neighbours."""
  b, t, d = z.shape
  group = -(-t // most)
  pad = -t % group
  z, mask = jnp.pad(z, ((0, 0), (0, pad), (0, 0))), jnp.pad(mask, ((0, 0), (0, pad)))
  mask = mask.reshape(b, -1, group)
  return masked_mean(z.reshape(b, -1, group, d), mask), mask.any(-1)
