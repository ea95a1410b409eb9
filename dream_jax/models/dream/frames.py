"""Judge frames: which of a sequence hold real content, and what stood where the others are?

A sequence can lose a part of what it holds: single frames, or a span. What is left is evidence as good as before, if
nobody averages the gap into it. So every frame (token) has log odds of its own, and an encoder reads what is left:

  trust      q_t = sigmoid(l_t), from the frame, its neighbours, the whole sequence, and how far it is from raw zero
  repair     x'_t = q_t x_t + (1 - q_t) x^_t, with x^_t interpolated between the nearest frames that are trusted
  tokens     an id that is not trusted (q_t < 1/2) becomes the unknown one

The encoder reads (x'_t, q_t), so it knows what is a guess. Noise shows where a frame does not follow from its
neighbours, and those may be noise, too: so frames are judged twice, the second time with x_t - x^_t of the first.

Odds are learned on what the trainer itself removed from sequences that kept something: they say which frames are real
if not all are gone. That the whole slot is gone, `recognition.py` says.
"""

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from dream_jax.models.encoders import Inputs, masked_mean, shifted, time_mask, windows
from dream_jax.models.layers import Dense
from dream_jax.models.sizes import Dtype
from dream_jax.parallel import rows
from dream_jax.spec import DatasetSpec, ModalitySpec

_FLOOR = 1e-4  # of squared distances, whose logarithm is taken.


@flax.struct.dataclass
class Judged:
  """Inputs with their frames judged; both dicts hold sequences and tokens only.

  Attributes:
    inputs: what encoders read: all inputs, sequences repaired, [B, T, D + 1] with the trust as the last feature.
    odds: name -> (first, second) log odds [B, T] of each frame.
  """

  inputs: dict[str, jax.Array]
  odds: dict[str, tuple[jax.Array, jax.Array]]

  def log_trust(self, name: str) -> jax.Array:
    """Log probability [B, T] that each frame is real; no gradient."""
    return jax.nn.log_sigmoid(stop_gradient(self.odds[name][-1]))


class FrameRecogniser(nn.Module):
  """Judges and repairs the frames of all sequences and tokens.

  Attributes:
    spec: modalities.
    dtype: type of the projections.
  """

  spec: DatasetSpec
  dtype: Dtype

  @nn.compact
  def __call__(self, inputs: Inputs) -> Judged:
    read, odds = dict(inputs), {}
    for m in self.spec.modalities:
      if not m.has_length:
        continue
      x, inside = inputs[m.name], time_mask(inputs[m.length_name], m.shape[0])
      odds[m.name] = FrameDetector(m, self.dtype, name=m.inside)(x, inside)
      trust = jnp.where(inside, jax.nn.sigmoid(stop_gradient(odds[m.name][-1])), 0.0)
      if m.kind == 'tokens':
        read[m.name] = jnp.where(inside & (trust < 0.5), m.unk_id, x)
      else:
        trust = trust.astype(x.dtype)[..., None]
        repaired = trust * x + (1.0 - trust) * interpolated(x, trust[..., 0], inside)
        read[m.name] = jnp.concatenate([jnp.where(inside[..., None], repaired, 0.0), trust], axis=-1)
    return Judged(read, odds)


class FrameDetector(nn.Module):
  """Log odds that each frame of one modality is real: ([B, T], [B, T]), the first and the second judgement.

  Attributes:
    modality: whose frames.
    dtype: type of the projections.
    width: width of the projections.
  """

  modality: ModalitySpec
  dtype: Dtype
  width: int = 16

  @nn.compact
  def __call__(self, x: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`x` [B, T, ...] features or ids, `inside` bool [B, T]."""
    m = self.modality
    if m.kind == 'tokens':
      seen = nn.Embed(m.vocab_size, self.width, name='table')(x).astype(self.dtype)
    else:
      blank = stop_gradient(self.param('blank', nn.initializers.zeros, m.shape[-1:]))
      seen = x.astype(self.dtype)
    seen = seen * inside[..., None].astype(seen.dtype)
    found = self._projected(shifted(seen, axis=1), 'window')
    if m.kind != 'tokens':
      found = jnp.concatenate([found, _log_square(x - blank[None, None, :])], axis=-1)
    # How the sequence is as a whole: what is odd here may be usual there.
    whole = nn.Dense(self.width, name='whole')(masked_mean(found, inside))
    hidden = Dense(self.width, name='frame')(found.astype(self.dtype)) + whole[:, None].astype(self.dtype)
    hidden = nn.gelu(hidden)
    first = Dense(1, name='first')(hidden)[..., 0].astype(jnp.float32)
    if m.kind == 'tokens':
      return first, first
    residual = x - interpolated(x, jax.nn.sigmoid(first), inside)
    residual = jnp.where(inside[..., None], residual, 0.0)
    again = [self._projected(residual.astype(self.dtype), 'residual'), _log_square(residual), hidden, first[..., None]]
    again = jnp.concatenate([part.astype(self.dtype) for part in again], axis=-1)
    again = nn.gelu(Dense(self.width, name='again')(again))
    return first, first + Dense(1, name='second')(again)[..., 0].astype(jnp.float32)

  def _projected(self, x: jax.Array, name: str) -> jax.Array:
    """As `recognition.RawDetector`: a linear readout and a squared one, float32."""
    q = Dense(self.width, name=name)(x).astype(jnp.float32)
    return jnp.concatenate([nn.gelu(q), jnp.minimum(jnp.square(q), 9.0) - 1.0], axis=-1)


def _log_square(x: jax.Array) -> jax.Array:
  """Log of the mean square of the last axis, which stays."""
  return jnp.log(jnp.square(x.astype(jnp.float32)).mean(-1, keepdims=True) + _FLOOR)


def interpolated(x: jax.Array, trust: jax.Array, inside: jax.Array) -> jax.Array:
  """What the neighbours say of each frame of `x` [B, T, D], itself not asked.

  Between the nearest trusted frames before and after it, by distance; where trust [B, T] is soft, so are they:

    f_t = q_t x_t + (1 - q_t) f_{t-1}         the last trusted frame
    a_t = (1 - q_t) (a_{t-1} + 1)             how long ago that was

  and the same backwards. Before the first frame stands the mean, 0, very long ago. No gradient.
  """
  dtype = x.dtype
  x, trust = stop_gradient(x).astype(jnp.float32), stop_gradient(trust).astype(jnp.float32)[..., None]
  far = 8.0 * x.shape[1]
  # Frames beyond the length are trusted in nothing: the last real one is carried on.
  trust = jnp.where(inside[..., None], trust, 0.0)
  keep = 1.0 - trust
  gain = jnp.concatenate([trust * x, keep], axis=-1)
  # Both directions side by side, the second one backwards.
  keep, gain = (jnp.stack([y, y[:, ::-1]]) for y in (keep, gain))

  def combine(left, right):
    return left[0] * right[0], right[0] * left[1] + right[1]

  product, total = jax.lax.associative_scan(combine, (keep, gain), axis=2)
  # What there was one frame before.
  value = jnp.pad(total[:, :, :-1, :-1], [(0, 0), (0, 0), (1, 0), (0, 0)])
  age = (total[..., -1:] + far * product)[:, :, :-1]
  age = jnp.pad(age, [(0, 0), (0, 0), (1, 0), (0, 0)], constant_values=far) + 1.0
  before, after = value[0], value[1][:, ::-1]
  age_before, age_after = age[0], age[1][:, ::-1]
  return ((age_after * before + age_before * after) / (age_before + age_after)).astype(dtype)


def window_weight(log_trust: jax.Array, inside: jax.Array) -> jax.Array:
  """Weights [B, T'] of windows of three frames, three apart: the product of their trusts, up to a factor.

  They sum up to the number of windows, so that where all frames are trusted alike, even if little, all count alike.
  """
  of_window = windows(jnp.where(inside, log_trust, 0.0)[..., None]).sum(-1)
  inside = inside[:, ::3]
  share = jax.nn.softmax(jnp.where(inside, of_window, -1e9), axis=-1)
  return jnp.where(inside, share, 0.0) * inside.sum(-1, keepdims=True).astype(share.dtype)


def left(spec: DatasetSpec, inputs: Inputs, judged: Judged) -> jax.Array:
  """Share [B, M] of the frames of each modality that are trusted; 1 for what has none. No gradient."""
  shares = []
  for m in spec.modalities:
    if m.has_length:
      trust = jnp.exp(judged.log_trust(m.name))[..., None]
      shares.append(masked_mean(trust, time_mask(inputs[m.length_name], m.shape[0]))[:, 0])
    else:
      shares.append(jnp.ones(inputs[m.name].shape[:1]))
  return jnp.stack(shares, axis=1)


def frame_loss(
  spec: DatasetSpec, judged: Judged, inputs: Inputs, kept: jax.Array, kept_frames: Mapping[str, jax.Array]
) -> jax.Array:
  """Mean cross-entropy of both judgements of each frame, over sequences that kept something.

  Args:
    spec: modalities.
    judged: what was judged.
    inputs: lengths are read.
    kept: bool [B, M], slots that kept something.
    kept_frames: name -> bool [B, T], what the injection kept; of modalities it does not name, everything.

  Returns:
    The sum over modalities.
  """
  total = jnp.zeros(())
  for m, modality in enumerate(spec.modalities):
    if modality.has_length:
      counts = time_mask(inputs[modality.length_name], modality.shape[0]) & kept[:, m, None]
      real = kept_frames.get(modality.name, counts).astype(jnp.float32)
      first, second = (jax.nn.softplus(odds) - real * odds for odds in judged.odds[modality.name])
      error = jnp.where(counts, 0.5 * (first + second), 0.0).sum()
      total = total + error / rows.divisor(counts.sum().astype(jnp.float32))
  return total


def fit_frames(spec: DatasetSpec, zero: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
  """Where raw zero lies, as parameters of every `FrameDetector` of a sequence."""
  sequences = (m for m in spec.modalities if m.kind == 'sequence')
  return {m.inside: {'blank': np.asarray(zero[m.name], np.float32)} for m in sequences}
