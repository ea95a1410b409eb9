"""Assess: how much does each modality of this sample contribute to its prediction?

The fusion head predicts from every coalition S of modalities. What a modality is worth is its Shapley value in the
game of this sample, v(S) = probability that S gives to the true target. Nobody knows that target when it matters, but
the model believes something of it, b(y): the mixture of what all coalitions say, each by the probability that it is the
real one. Shapley values are linear in v, so the best guess of a value is the value of the game expected over b,

  v(S) = sum_y b(y) p(y | S),

and a modality that is sure of something else than the others loses by it. (The certainty of p(y | S), which was used
first, is blind to that.) Nothing is learned here: nets that guess contributions were tried and were less faithful, one
that corrects these bought nothing (docs/notebook/method.md). On the samples that they are trained on every coalition is
right, and there is nothing left to tell modalities apart.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix, shapley_values
from dream_jax.spec import DatasetSpec

CreditKind = Literal['shapley', 'leave_one_out', 'confidence']


def certainty_credit(
  spec: DatasetSpec, prior: jax.Array, eta: jax.Array, predictions: jax.Array, *, kind: CreditKind = 'shapley'
) -> jax.Array:
  """Credit [B, M] in the game of certainty; Shapley values of classification sum up to at most 1.

  Args:
    spec: modalities and task.
    prior: [K].
    eta: [B, M, K] unimodal evidence.
    predictions: [B, G, C] of every coalition, in the order of `coalition_matrix`.
    kind: see `credit`.
  """
  nothing = jnp.zeros_like(eta[:, 0])
  values = evidence.certainty(spec, predictions, _summed(spec, eta))
  empty = evidence.certainty(spec, evidence.predict(spec, prior, nothing), nothing)
  return credit(spec, values, empty, kind=kind)


def expected_credit(
  spec: DatasetSpec,
  prior: jax.Array,
  eta: jax.Array,
  predictions: jax.Array,
  log_coalition: jax.Array,
  *,
  kind: CreditKind = 'shapley',
) -> jax.Array:
  """Credit [B, M] in the game with labels, expected over the label.

  `log_coalition` [B, G] is the log probability that each coalition is the real one; with the predictions it makes the
  belief. The others are those of `certainty_credit`.
  """
  belief, variance, spread = evidence.mixture(spec, log_coalition, predictions), None, None
  if spec.task == 'regression':
    variance = evidence.mixture_variance(log_coalition, predictions, _summed(spec, eta))
    spread = variance[:, None]
  nothing = evidence.predict(spec, prior, jnp.zeros_like(eta[:, 0]))
  values = evidence.expected_likelihood(spec, jnp.broadcast_to(belief[:, None], predictions.shape), spread, predictions)
  return credit(spec, values, evidence.expected_likelihood(spec, belief, variance, nothing), kind=kind)


def _summed(spec: DatasetSpec, eta: jax.Array) -> jax.Array:
  """Evidence of every coalition [B, G, K]."""
  return jnp.einsum('gm,bmk->bgk', jnp.asarray(coalition_matrix(spec.num_modalities), eta.dtype), eta)


def credit(spec: DatasetSpec, values: jax.Array, empty: jax.Array, *, kind: CreditKind = 'shapley') -> jax.Array:
  """What each modality gets of a game, [B, M].

  Args:
    spec: number of modalities.
    values: [B, G] value of every coalition, in the order of `coalition_matrix`.
    empty: [B] value of the empty coalition.
    kind: 'shapley'; 'leave_one_out', v(all) - v(all but m); or 'confidence', v(only m) - v(nothing).
  """
  m = spec.num_modalities
  if kind == 'shapley':
    return shapley_values(values, empty, m)
  rows = coalition_matrix(m)
  if kind == 'confidence':
    alone = (rows & (rows.sum(1) == 1)[:, None]).argmax(0)
    return values[:, alone] - empty[:, None]
  others = (~rows & (rows.sum(1) == m - 1)[:, None]).argmax(0)
  return values[:, -1:] - values[:, others]
