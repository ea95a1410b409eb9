"""How typical is the content of a slot? Known before training, from the second moments of the features.

Features of real content co-vary. Noise of the same scale does not, so it is large along the directions in which real
content hardly varies: its energy after whitening, mean_d (P^(1/2) x)_d^2, is far above 1. A net learns these directions
in thousands of steps; their closed form is there at step 0, when a small data set may already be learnt by heart.

Values of one vector or image also have a shape that noise lacks: most words, counts and pixels lie near their median
and a few far from it. Such a peak is seen in a single slot, so that few samples are enough to know it.

On the samples that a covariance was estimated from the energy is too small. So there are two estimates, each from half
of the training samples, and the larger energy counts: for a training sample that of the half it is not in.

Training data may be incomplete before anyone reads them. A slot of nothing but raw zeros is no content, which can be
seen and need not be told; moments that count it in would make content look too large to be real.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from dream_jax.missingness.native import empty
from dream_jax.models.encoders import time_mask, weighted_mean, windows
from dream_jax.spec import DatasetSpec, ModalitySpec

_WIDEST = 512  # features; more are projected to so many before their covariance is estimated.
_ROWS = 8192  # frames a half; more change nothing.
_SAMPLES = 2048
_FEWEST = 16  # slots that hold something; from fewer nothing is learnt.
_SHRINKAGES = (0.01, 0.03, 0.1, 0.3, 0.6, 0.9)
_FLOOR = 1e-4  # of energies, whose logarithm is taken.
# Smallest standard deviations of the statistics: classes of one point have none.
_NARROWEST = {'energies': 0.15, 'peak': 0.05}
_SUREST = 6.0  # log odds
_KINDS = 3  # of damage: zeros, noise, the mean


class Typicality(nn.Module):
  """Log odds [B] that one slot is real rather than zeros, noise or the mean; 0 before `fit_typicality` gave parameters.

  Attributes:
    modality: whose slots.
  """

  modality: ModalitySpec

  @nn.compact
  def __call__(self, x: jax.Array, length: jax.Array | None, weight: jax.Array | None = None) -> jax.Array:
    """`x` [B, ...] standardised features, `length` [B] of sequences; parameters are read only.

    `weight` [B, T'] says how much every third frame counts, all alike if None.
    """
    size = _width(self.modality)
    zeros = nn.initializers.zeros
    probes = stop_gradient(self.param('probes', zeros, (2, size, _num_probes(self.modality))))
    blank = stop_gradient(self.param('blank', zeros, (size,)))
    median = stop_gradient(self.param('median', zeros, (size,))) if _has_peak(self.modality) else None
    found = statistics(self.modality, x, length, probes, blank, median, weight)
    narrowest = [_NARROWEST['energies']] * 2 + [_NARROWEST['peak']] * _has_peak(self.modality)
    # Mean and standard deviation of the statistics, of real content and of each kind of damage.
    classes = stop_gradient(self.param('classes', zeros, (1 + _KINDS, 2, len(narrowest))))
    mean, std = classes[None, :, 0], jnp.maximum(classes[None, :, 1], jnp.asarray(narrowest)[None, None])
    log_density = (-0.5 * jnp.square((found[:, None] - mean) / std) - jnp.log(std)).sum(-1)
    # Densities may be far below what float32 keeps next to each other: their differences are taken first.
    damaged = jax.nn.logsumexp(log_density[:, 1:] - log_density[:, :1], axis=-1) - jnp.log(float(_KINDS))
    return jnp.clip(-damaged, -_SUREST, _SUREST)


def statistics(
  modality: ModalitySpec,
  x: jax.Array,
  length: Any,
  probes: jax.Array,
  blank: jax.Array,
  median: Any = None,
  weight: Any = None,
) -> jax.Array:
  """Log energies [B, 2], means over frames: after whitening, the larger of two; and of the distance from raw zeros.

  With a `median` [W], for what is no sequence, also its peak, [B, 3].
  """
  x = x.astype(jnp.float32)
  if length is None:
    frames = x.reshape(x.shape[0], 1, -1)
    inside = jnp.ones((x.shape[0], 1), bool)
  else:
    inside = time_mask(length, x.shape[1])
    frames = windows(x * inside[..., None].astype(x.dtype))
    inside = inside[:, ::3]
  whitened = jnp.square(jnp.einsum('btd,hdr->bthr', frames, probes)).mean(-1).max(-1)
  distance = jnp.square(frames - blank[None, None, :]).mean(-1)
  energy = jnp.log(jnp.stack([whitened, distance], axis=-1) + _FLOOR)
  found = weighted_mean(energy, inside.astype(jnp.float32) if weight is None else weight)
  return found if median is None else jnp.concatenate([found, _peak(frames[:, 0] - median[None])], axis=-1)


def _peak(distance: jax.Array) -> jax.Array:
  """[B, 1], by how much the geometric mean of distances [B, W] is below the quadratic one, as a logarithm."""
  logs = jnp.log(jnp.abs(distance) + _FLOOR).mean(-1, keepdims=True)
  return logs - 0.5 * jnp.log(jnp.square(distance).mean(-1, keepdims=True) + _FLOOR)


_statistics = jax.jit(statistics, static_argnums=0)


def fit_typicality(
  spec: DatasetSpec, features: Mapping[str, np.ndarray], zero: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, Any]:
  """Parameters of every modality's `Typicality`, {name: {'probes', 'blank', 'classes'}}, and a
  'median' but for sequences.

  Tokens have none, and neither has a modality that fewer than 16 samples hold anything of.

  Args:
    spec: modalities.
    features: standardised training features [n, ...] and lengths.
    zero: name -> [D], where raw zero lies.
    seed: seed of probes and noise.
  """
  rng = np.random.default_rng(seed)
  fits = {m.name: _fit(m, features, np.asarray(zero[m.name], np.float32), rng) for m in sensed(spec)}
  return {name: fit for name, fit in fits.items() if fit is not None}


def sensed(spec: DatasetSpec) -> Iterator[ModalitySpec]:
  """The modalities that have features: all but tokens."""
  return (m for m in spec.modalities if m.kind != 'tokens')


def _num_probes(modality: ModalitySpec) -> int:
  # Each is a sample of the energy; a sequence averages them over its frames as well.
  return 8 if modality.has_length else 32


def _has_peak(modality: ModalitySpec) -> bool:
  return not modality.has_length


def _width(modality: ModalitySpec) -> int:
  return 3 * modality.shape[-1] if modality.has_length else int(np.prod(modality.shape))


def _fit(modality: ModalitySpec, features, zero, rng) -> dict[str, np.ndarray] | None:
  everything = features[modality.name]
  length = np.asarray(features[modality.length_name]) if modality.has_length else None
  full = ~empty(modality, everything, length, zero)
  if full.sum() < _FEWEST:
    return None
  order = rng.permutation(len(everything))
  chosen = order[full[order]][:_SAMPLES]
  x, length = np.asarray(everything[chosen], np.float32), None if length is None else length[chosen]
  halves = [_frames(modality, x[h::2], None if length is None else length[h::2], rng) for h in (0, 1)]
  number = _num_probes(modality)
  probes = np.stack([_probes(halves[h], halves[1 - h], number, rng) for h in (0, 1)])
  blank = np.broadcast_to(zero, modality.shape[-1:] if modality.has_length else modality.shape).ravel()
  blank = np.tile(blank, 3) if modality.has_length else blank
  median = {'median': np.median(x.reshape(len(x), -1), axis=0).astype(np.float32)} if _has_peak(modality) else {}
  noise = rng.standard_normal(x.shape, np.float32)
  contents = (x, np.broadcast_to(zero, x.shape), noise, np.zeros_like(x))
  classes = [_statistics(modality, content, length, probes, blank, **median) for content in contents]
  return {
    'probes': probes,
    'blank': blank,
    **median,
    'classes': np.stack([np.stack([np.mean(c, 0), np.std(c, 0)]) for c in classes]).astype(np.float32),
  }


def _frames(modality: ModalitySpec, x: np.ndarray, length: np.ndarray | None, rng) -> np.ndarray:
  """Rows [N, W] whose second moments are estimated: whole samples, or three neighbouring frames."""
  if length is None:
    return x.reshape(len(x), -1)
  inside = np.arange(1, x.shape[1] - 1) < length[:, None] - 1
  sample, frame = np.nonzero(inside)
  chosen = rng.permutation(len(sample))[:_ROWS]
  sample, frame = sample[chosen], frame[chosen] + 1
  return np.concatenate([x[sample, frame + shift] for shift in (-1, 0, 1)], axis=-1)


def _probes(rows: np.ndarray, others: np.ndarray, number: int, rng) -> np.ndarray:
  """[W, number]: random directions after whitening by `rows`, shrunk as much as suits `others` best."""
  width = rows.shape[1]
  narrow = rng.standard_normal((width, _WIDEST)) / np.sqrt(width) if width > _WIDEST else np.eye(width)
  rows, others = rows @ narrow, others @ narrow
  values, vectors = np.linalg.eigh(rows.T @ rows / max(len(rows), 1))
  there = np.square(others @ vectors).mean(0)

  def misfit(shrinkage):
    shrunk = _shrunk(values, shrinkage)
    return (np.log(shrunk) + there / shrunk).sum()

  shrunk = _shrunk(values, min(_SHRINKAGES, key=misfit))
  random = rng.standard_normal((len(values), number)) / np.sqrt(len(values))
  return (narrow @ (vectors / np.sqrt(shrunk)) @ random).astype(np.float32)


def _shrunk(values: np.ndarray, shrinkage: float) -> np.ndarray:
  return (1.0 - shrinkage) * np.maximum(values, 0.0) + shrinkage * max(values.mean(), 1e-6)
