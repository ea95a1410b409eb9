"""Recognise: which slots hold real content of this sample, and which are missing, corrupted or foreign?

Nobody tells the model. Two signals answer, and one posterior joins them.

Each slot by itself: a net of its own reads the raw features (layer-normalised latents hide magnitude) and gives the
log odds a_m that the slot is real. Zeros and noise are found this way; another sample's content looks real to it.

The slots together: if the modalities in S are real they speak about one target, and the evidence of section
`evidence.py` says how well they agree. By Bayes' rule, with conditional independence given the target,

  P(S | x)  ~  P(S)  prod_{m in S} exp(a_m)  sum_y p(y) prod_{m in S} p(y | x_m) / p(y)

for every coalition S; with p(y | x_m) / p(y) = exp(eta_m . T(y) - A(eta_m)), A the log-partition function, the sum over
y is exp(A(sum_S eta_m) - sum_S A(eta_m)): zero in the exponent for a single modality, positive when several agree. The
probability that slot m is real sums the coalitions that hold it.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix
from dream_jax.models.dream.frames import Judged, window_weight
from dream_jax.models.dream.typicality import Typicality
from dream_jax.models.encoders import Inputs, masked_mean, time_mask, weighted_mean, windows
from dream_jax.models.layers import Dense
from dream_jax.models.sizes import Dtype
from dream_jax.spec import DatasetSpec


def empty_slots(spec: DatasetSpec, inputs: Inputs, params: Any) -> jax.Array:
  """Which slots hold nothing but raw zeros, or no known word: bool [B, M].

  Raw zeros are known from `fitted` parameters; before, or without typicality, only tokens and lengths say so.

  Args:
    spec: modalities.
    inputs: standardised.
    params: those of a `Recogniser`.
  """
  columns = []
  for m in spec.modalities:
    x = inputs[m.name]
    fit = params['detector'].get(f'{m.inside}_typicality')
    if m.kind == 'tokens':
      nothing = (x == 0) | (x == m.unk_id)
    elif fit is None or math.prod(m.shape) == 1:  # A single number may well be zero.
      nothing = jnp.zeros(x.shape[: 1 + m.has_length], bool)
    else:
      # Sequences have the place of raw zero once a frame of the window.
      blank = (
        jnp.broadcast_to(fit['blank'][: m.shape[-1]], x.shape) if m.has_length else fit['blank'].reshape(1, *m.shape)
      )
      nothing = (x == blank).all(tuple(range(1 + m.has_length, x.ndim)))
      # Before it is fitted the place of raw zero is unknown.
      nothing &= fit['probes'].any()
    if m.has_length:
      nothing = (nothing | ~time_mask(inputs[m.length_name], x.shape[1])).all(1)
    columns.append(nothing)
  return jnp.stack(columns, axis=1)


class RawDetector(nn.Module):
  """Log odds [B, M] that each slot is real, from the raw features of that slot alone.

  A random projection of features that co-vary has directions of tiny variance, so both a linear readout (zeros, means)
  and a squared one (noise) are offered; sequences show three neighbouring frames, since noise has no memory.

  Attributes:
    spec: modalities.
    dtype: type of the projections.
    typicality: whether what is known before training joins them.
    width: width of the projections.
  """

  spec: DatasetSpec
  dtype: Dtype
  typicality: bool = True
  width: int = 32

  @nn.compact
  def __call__(self, inputs: Inputs, judged: Judged | None = None) -> jax.Array:
    odds = []
    for m in self.spec.modalities:
      x = inputs[m.name]
      if m.kind == 'tokens':
        x = nn.Embed(m.vocab_size, self.width, name=f'{m.inside}_table')(x)
      x = x.astype(self.dtype)
      if m.has_length:
        inside = time_mask(inputs[m.length_name], x.shape[1])
        weight = (
          inside[:, ::3].astype(jnp.float32) if judged is None else window_weight(judged.log_trust(m.name), inside)
        )
        # Frames beyond the length must not reach the last one through its neighbours. Windows of three frames, three
        # apart, see every frame once.
        q = Dense(self.width, name=m.inside)(windows(x * inside[..., None].astype(x.dtype)))
      else:
        q = Dense(self.width, name=m.inside)(x.reshape(x.shape[0], -1))
      q = q.astype(jnp.float32)
      q = jnp.concatenate([nn.gelu(q), jnp.minimum(jnp.square(q), 9.0) - 1.0], axis=-1)
      if m.has_length:
        q = weighted_mean(q, weight)
        if judged is not None:
          q = jnp.concatenate([q, masked_mean(jnp.exp(judged.log_trust(m.name))[..., None], inside)], axis=-1)
      learned = nn.Dense(1, name=f'{m.inside}_odds')(q)[:, 0]
      if self.typicality and m.kind != 'tokens':
        length = inputs[m.length_name] if m.has_length else None
        trust = self.param(f'{m.inside}_trust', nn.initializers.ones, ())
        typical = Typicality(m, name=f'{m.inside}_typicality')
        learned = learned + trust * typical(inputs[m.name], length, weight if m.has_length else None)
      odds.append(learned)
    natural = jnp.stack(odds, axis=1)
    # Some damage looks natural, another sample's content above all: with rho the share of it, the likelihood ratio of
    # real against damaged is 1 / (rho + (1 - rho) / natural), which no content can lift above 1 / rho.
    rho = self.param('natural_damage', nn.initializers.zeros, (self.spec.num_modalities,))
    rho = jnp.broadcast_to(rho, natural.shape)
    return -jnp.logaddexp(jax.nn.log_sigmoid(rho), jax.nn.log_sigmoid(-rho) - natural)


class Recogniser(nn.Module):
  """Posterior over coalitions: (log P(S | x) [B, G], presence [B, M]).

  Attributes:
    spec: modalities and task.
    dtype: type of the detector's projections.
    agreement: whether slots may testify about each other; without it the posterior factorises over slots.
    typicality: whether the detector knows the second moments of real content before training.
  """

  spec: DatasetSpec
  dtype: Dtype
  agreement: bool = True
  typicality: bool = True

  @nn.compact
  def __call__(
    self, inputs: Inputs, eta: jax.Array, prior: jax.Array, judged: Judged | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """`eta` [B, M, K] is the unimodal evidence, `prior` [K] the natural parameters of p(y); both are read only, and so
    is what was judged of frames.
    """
    coalitions = jnp.asarray(coalition_matrix(self.spec.num_modalities), eta.dtype)
    log_posterior = RawDetector(self.spec, self.dtype, self.typicality, name='detector')(inputs, judged) @ coalitions.T
    bias = self.param('coalition_prior', nn.initializers.zeros, (coalitions.shape[0],))
    log_posterior = log_posterior + bias[None, :]
    if self.agreement:
      # Unimodal predictions are overconfident on the samples they were trained on; a learned temperature tempers them.
      log_temperature = self.param('log_temperature', nn.initializers.zeros, (self.spec.num_modalities,))
      tempered = stop_gradient(eta) * jnp.exp(log_temperature)[None, :, None]
      joint = jnp.einsum('gm,bmk->bgk', coalitions, tempered)
      log_posterior = log_posterior + evidence.log_partition(self.spec, stop_gradient(prior), joint)
      alone = evidence.log_partition(self.spec, stop_gradient(prior), tempered)
      log_posterior = log_posterior - alone @ coalitions.T
    log_posterior = jax.nn.log_softmax(log_posterior, axis=-1)
    return log_posterior, jnp.exp(log_posterior) @ coalitions
