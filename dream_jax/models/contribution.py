"""Assess: how much does each modality of this sample contribute to its prediction?

The estimator sees no label. In training its target is the exact Shapley value of the modalities in the game
v(S) = probability that the coalition S gives to the true target.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix, shapley_values
from dream_jax.spec import DatasetSpec


class ContributionEstimator(nn.Module):
  """Shares pi [B, M] that sum to one: a softmax over slots of a small net on everything known about the sample.

  Attributes:
    hidden: width of the net.
    own_slot_only: each share's score sees its own modality only (an ablation).
  """

  hidden: int = 64
  dropout: float = 0.2

  @nn.compact
  def __call__(self, z: jax.Array, eta: jax.Array, presence: jax.Array, *, train: bool) -> jax.Array:
    """`z` [B, M, D] latents, `eta` [B, M, K] unimodal evidence, `presence` [B, M]; all are read only."""
    known = stop_gradient(jnp.concatenate([z, eta, presence[..., None]], axis=-1))
    x = known.reshape(known.shape[0], -1)
    x = nn.Dropout(self.dropout, deterministic=not train)(nn.gelu(nn.Dense(self.hidden, name='in')(x)))
    return jax.nn.log_softmax(nn.Dense(z.shape[1], name='out')(x), axis=-1)


def contribution_target(
  spec: DatasetSpec, values: jax.Array, empty: jax.Array, *, kind: str = 'shapley', temperature: float = 0.1
) -> jax.Array:
  """What the estimator learns, [B, M], rows sum to one. Needs labels (through `values`), so training and analysis only.

  Args:
    spec: number of modalities.
    values: [B, G] value of every coalition, in the order of `coalition_matrix`.
    empty: [B] value of the empty coalition.
    kind: 'shapley'; 'leave_one_out', v(all) - v(all but m); or 'confidence', v(only m).
    temperature: of the softmax that makes shares of it.
  """
  m = spec.num_modalities
  if kind == 'shapley':
    credit = shapley_values(values, empty, m)
  else:
    sizes = coalition_matrix(m).sum(1)
    if kind == 'confidence':
      rows = [int(i) for i in (coalition_matrix(m) & (sizes == 1)[:, None]).argmax(0)]
      credit = values[:, jnp.asarray(rows)]
    else:
      rows = [int(i) for i in (~coalition_matrix(m) & (sizes == m - 1)[:, None]).argmax(0)]
      credit = values[:, -1:] - values[:, jnp.asarray(rows)]
  return jax.nn.softmax(credit / temperature, axis=-1)


def coalition_values(spec: DatasetSpec, prior: jax.Array, predictions: jax.Array, label: jax.Array):
  """(values [B, G], value of the empty coalition [B]): the probability given to the target, in (0, 1].

  Regression uses exp(-Huber distance) of the standardised target. `predictions` is [B, G, C], `label` as in the spec.
  """
  label_of_each = jnp.broadcast_to(label[:, None], (*predictions.shape[:2], *label.shape[1:]))
  empty = evidence.predict(spec, prior, jnp.zeros((label.shape[0], evidence.num_natural(spec)), predictions.dtype))
  return jnp.exp(evidence.score(spec, predictions, label_of_each)), jnp.exp(evidence.score(spec, empty, label))
