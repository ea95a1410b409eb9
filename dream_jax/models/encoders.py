"""One encoder a modality kind, each ending in a latent vector of the same width.

Convolutions are written as a dense layer over shifted copies: when seeds are vectorised, every seed has its own kernel,
and XLA turns a convolution with batched kernels into a grouped one, which is slow; a batched matrix product is fast.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from dream_jax.spec import DatasetSpec, ModalitySpec

Inputs = Mapping[str, jax.Array]


def time_mask(length: jax.Array, num_frames: int) -> jax.Array:
  """Bool [B, T]: which frames lie inside the sequence (`length` is int [B])."""
  return jnp.arange(num_frames)[None, :] < length[:, None]


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean of [B, T, D] over the frames of `mask` [B, T]; zero where no frame is valid."""
  weight = mask[..., None].astype(x.dtype)
  return (x * weight).sum(-2) / jnp.maximum(weight.sum(-2), 1.0)


def shifted(x: jax.Array, axis: int) -> jax.Array:
  """The array with its two neighbours along `axis` appended to the features, zero beyond the ends."""
  pad = [(0, 0)] * x.ndim
  pad[axis] = (1, 1)
  padded = jnp.pad(x, pad)
  size = x.shape[axis]
  return jnp.concatenate([jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)], axis=-1)


class SequenceEncoder(nn.Module):
  """Temporal convolutions of stride 2 with masked mean and max pooling: [B, T, D_in] -> [B, D]."""

  width: int
  num_layers: int = 2

  @nn.compact
  def __call__(self, x: jax.Array, length: jax.Array) -> jax.Array:
    mask = time_mask(length, x.shape[1])
    if x.shape[-1] > self.width:  # wide features are projected first: the three-frame kernel would triple their cost
      x = nn.Dense(self.width, name='project')(x)
    for i in range(self.num_layers):
      x = shifted(x * mask[..., None].astype(x.dtype), axis=1)[:, ::2]
      mask = mask[:, ::2]
      x = nn.gelu(nn.Dense(self.width, name=f'conv{i}')(x))
    highest = jnp.max(jnp.where(mask[..., None], x, -1e9), axis=1)
    highest = jnp.where(mask.any(-1)[:, None], highest, 0.0)
    return nn.Dense(self.width, name='out')(jnp.concatenate([masked_mean(x, mask), highest], axis=-1))


class TransformerEncoder(nn.Module):
  """A small pre-norm transformer with learned positions and masked mean pooling: [B, T, D_in] -> [B, D]."""

  width: int
  num_layers: int = 2
  num_heads: int = 4
  dropout: float = 0.1

  @nn.compact
  def __call__(self, x: jax.Array, length: jax.Array, *, train: bool) -> jax.Array:
    mask = time_mask(length, x.shape[1])
    position = self.param('position', nn.initializers.normal(0.02), (x.shape[1], self.width))
    x = nn.Dense(self.width, name='project')(x) + position[None]
    attend = (mask[:, None, None, :]) | jnp.eye(x.shape[1], dtype=bool)[None, None]  # a row never attends to nothing
    for i in range(self.num_layers):
      y = nn.LayerNorm(name=f'norm_attention{i}')(x)
      y = nn.MultiHeadDotProductAttention(
        self.num_heads,
        dropout_rate=self.dropout,
        broadcast_dropout=False,
        deterministic=not train,
        name=f'attention{i}',
      )(y, y, mask=attend)
      x = x + nn.Dropout(self.dropout, deterministic=not train)(y)
      y = nn.LayerNorm(name=f'norm_mlp{i}')(x)
      y = nn.Dense(self.width, name=f'mlp_out{i}')(nn.gelu(nn.Dense(2 * self.width, name=f'mlp_in{i}')(y)))
      x = x + nn.Dropout(self.dropout, deterministic=not train)(y)
    return masked_mean(nn.LayerNorm(name='norm')(x), mask)


class ImageEncoder(nn.Module):
  """3x3 convolutions, halving the larger sides until at most 4x4 remain: [B, H, W, C_in] -> [B, D]."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features, i = max(8, self.width // 2), 0
    while i == 0 or max(x.shape[1], x.shape[2]) > 4:
      step = [2 if size > 4 else 1 for size in x.shape[1:3]]
      x = shifted(shifted(x, axis=1), axis=2)[:, :: step[0], :: step[1]]
      x = nn.gelu(nn.Dense(features, name=f'conv{i}')(x))
      features, i = self.width, i + 1
    return nn.Dense(self.width, name='out')(x.reshape(x.shape[0], -1))


class VectorEncoder(nn.Module):
  """A two-layer perceptron: [B, D_in] -> [B, D]."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.gelu(nn.Dense(2 * self.width, name='in')(x))
    return nn.Dense(self.width, name='out')(x)


class ModalityEncoder(nn.Module):
  """Encodes one modality to a layer-normalised latent [B, D], whatever its kind.

  Attributes:
    modality: what it encodes.
    width: D.
    sequence_encoder: 'tcn' or 'transformer', for sequences and tokens.
    dropout: rate on the latent, and inside the transformer.
  """

  modality: ModalitySpec
  width: int
  sequence_encoder: str = 'tcn'
  dropout: float = 0.1

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool) -> jax.Array:
    m = self.modality
    x = inputs[m.name]
    if m.has_length:
      if m.kind == 'tokens':
        x = nn.Embed(m.vocab_size, self.width, name='table')(x)
      if self.sequence_encoder == 'transformer':
        encoder = TransformerEncoder(self.width, dropout=self.dropout, name='sequence')
        z = encoder(x, inputs[m.length_name], train=train)
      else:
        z = SequenceEncoder(self.width, name='sequence')(x, inputs[m.length_name])
    elif m.kind == 'image':
      z = ImageEncoder(self.width, name='image')(x)
    else:
      z = VectorEncoder(self.width, name='vector')(x)
    z = nn.LayerNorm(name='norm')(z)
    return nn.Dropout(self.dropout, deterministic=not train)(z)


class Encoders(nn.Module):
  """All modalities of a data set, encoded side by side: inputs -> latents [B, M, D]."""

  spec: DatasetSpec
  width: int
  sequence_encoder: str = 'tcn'
  dropout: float = 0.1

  @nn.compact
  def __call__(self, inputs: Inputs, *, train: bool) -> jax.Array:
    return jnp.stack(
      [
        ModalityEncoder(m, self.width, self.sequence_encoder, self.dropout, name=m.name)(inputs, train=train)
        for m in self.spec.modalities
      ],
      axis=1,
    )
