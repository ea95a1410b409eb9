"""Training losses. They may use what the trainer itself removed; a model's forward pass never sees it."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix
from dream_jax.models.contribution import coalition_values, contribution_target
from dream_jax.models.reconstruction import reconstruction_quality
from dream_jax.models.registry import Method
from dream_jax.spec import DatasetSpec


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the terms beside the task loss; 0 turns a term off.

  Attributes:
    unimodal: every modality predicts the target alone.
    coalition: a random coalition of modalities predicts it.
    estimator: estimated contributions follow the target.
    recognition: the posterior over coalitions names the one that the trainer left intact.
    reconstruction: translators meet the latent of the content that the trainer removed.
    confidence: predicted against actual quality of reconstructions.
    target: which contribution target the estimator learns.
  """

  unimodal: float = 0.3
  coalition: float = 0.5
  estimator: float = 1.0
  recognition: float = 1.0
  reconstruction: float = 1.0
  confidence: float = 0.2
  target: Literal['shapley', 'leave_one_out', 'confidence'] = 'shapley'


def task_loss(spec: DatasetSpec, prediction: jax.Array, label: jax.Array) -> jax.Array:
  """Mean loss of predictions [B, C]: cross-entropy, or Huber distance of a standardised target."""
  return -evidence.score(spec, prediction, label).mean()


def unimodal_loss(spec: DatasetSpec, predictions: jax.Array, label: jax.Array) -> jax.Array:
  """Sum over modalities of the task loss of predictions [B, M, C]."""
  repeated = jnp.broadcast_to(label[:, None], (*predictions.shape[:2], *label.shape[1:]))
  return -evidence.score(spec, predictions, repeated).mean(0).sum()


def draw_coalition(key: jax.Array, coalitions: jax.Array, kept: jax.Array) -> jax.Array:
  """Row of a coalition drawn uniformly among those whose members were all kept, int32 [B].

  Args:
    key: of the draw.
    coalitions: bool [G, M].
    kept: bool [B, M], at least one a row.
  """
  allowed = (~coalitions[None] | kept[:, None, :]).all(-1)
  return jax.random.categorical(key, jnp.where(allowed, 0.0, -jnp.inf), axis=-1)


def dream_loss(
  model: Any, params: Any, batch: dict[str, Any], rng: jax.Array, weights: LossWeights
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(total loss, its terms) of one batch.

  Args:
    model: a `Dream`.
    params: its parameters.
    batch: 'inputs' after injection, 'clean' before it, 'label', and 'kept' [B, M], the share of each slot that the
      injection kept. What was missing before the injection is nowhere in it.
    rng: key of dropout and of the random coalition.
    weights: of the terms.
  """
  spec, label = model.spec, batch['label']
  dropout_key, coalition_key = jax.random.split(rng)
  variables = {'params': params}
  t = model.apply(variables, batch['inputs'], train=True, method='trace', rngs={'dropout': dropout_key})
  out = t.outputs
  kept = batch['kept'] >= 0.5
  terms = {'task': task_loss(spec, out.prediction, label)}
  every_label = jnp.broadcast_to(label[:, None], (*t.unimodal_evidence.shape[:2], *label.shape[1:]))
  likelihood = evidence.log_likelihood(spec, t.prior, t.unimodal_evidence, every_label)
  # Content that the trainer removed says nothing about this label; learning from it would blunt the evidence.
  intact = kept.astype(likelihood.dtype)
  terms['unimodal'] = -((intact * likelihood).sum(0) / jnp.maximum(intact.sum(0), 1.0)).sum()

  coalitions = jnp.asarray(coalition_matrix(spec.num_modalities))
  drawn = draw_coalition(coalition_key, coalitions, kept)
  predicted = jnp.take_along_axis(t.coalition_predictions, drawn[:, None, None], axis=1)[:, 0]
  terms['coalition'] = task_loss(spec, predicted, label)

  if model.settings.assess:
    values, empty = coalition_values(spec, t.prior, t.coalition_predictions, label)
    target = contribution_target(spec, values, empty, kind=weights.target)
    terms['estimator'] = jnp.square(t.credit - stop_gradient(target)).sum(-1).mean()
  if model.settings.recognise:
    # The row of the coalition that was left intact. Slots that were missing before the injection count as intact here:
    # the trainer does not know better.
    left = (kept[:, None, :] == coalitions[None]).all(-1)
    terms['recognition'] = -jnp.where(left, t.log_coalition, 0.0).sum(-1).mean()
  if model.settings.reconstruct != 'never':
    target = stop_gradient(model.apply(variables, batch['clean'], train=False, method='encode'))
    error = jnp.square(out.reconstructions - target).mean(-1)
    # Learn from slots we removed that looked real before: a missing slot's latent is nothing to imitate.
    removed = (~kept).astype(error.dtype)
    count = jnp.maximum(removed.sum(), 1.0)
    terms['reconstruction'] = (removed * error).sum() / count
    quality = stop_gradient(reconstruction_quality(out.reconstructions, target))
    terms['confidence'] = (removed * jnp.square(t.confidence - quality)).sum() / count
  total = terms['task'] + sum(getattr(weights, name) * term for name, term in terms.items() if name != 'task')
  return total, terms


def control_loss(
  method: Method, model: Any, params: Any, batch: dict[str, Any], rng: jax.Array, weights: LossWeights
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """(total loss, its terms) of a control: the task loss, with separate heads the losses of the heads too."""
  out = model.apply({'params': params}, batch['inputs'], train=True, rngs={'dropout': rng})
  spec, label = model.spec, batch['label']
  if method.model == 'unimodal':
    total = unimodal_loss(spec, out.unimodal_predictions, label)
    return total, {'unimodal': total}
  terms = {'task': task_loss(spec, out.prediction, label)}
  if method.model == 'late':
    terms['unimodal'] = unimodal_loss(spec, out.unimodal_predictions, label)
    return terms['task'] + weights.unimodal * terms['unimodal'], terms
  return terms['task'], terms


def method_loss(method: Method, model: nn.Module, weights: LossWeights):
  """The loss of a method as (params, batch, rng) -> (total, terms)."""
  if method.model == 'dream':
    return lambda params, batch, rng: dream_loss(model, params, batch, rng, weights)
  return lambda params, batch, rng: control_loss(method, model, params, batch, rng, weights)


def needs_clean(method: Method, model: nn.Module) -> bool:
  """Whether the loss reads the inputs before the injection."""
  return method.model == 'dream' and model.settings.reconstruct != 'never'
