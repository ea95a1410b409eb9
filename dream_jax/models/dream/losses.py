"""What DREAM learns from. It may use what the trainer itself removed; the forward pass never sees it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from dream_jax.models import evidence
from dream_jax.models.coalitions import coalition_matrix
from dream_jax.models.dream.frames import frame_loss
from dream_jax.models.dream.reconstruction import reconstruction_quality
from dream_jax.models.objective import label_of_each, task_loss
from dream_jax.parallel import rows
from dream_jax.settings import setting


def _weight(default: float, comment: str) -> Any:
  return setting(default, comment, least=0, most=1e6, varies=True)


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the terms beside the task loss; 0 turns a term off."""

  unimodal: float = _weight(0.3, 'every modality predicts the target alone')
  coalition: float = _weight(0.5, 'a random coalition of modalities predicts it')
  recognition: float = _weight(1.0, 'the posterior over coalitions names the one that the trainer left intact')
  frames: float = _weight(1.0, 'the odds of frames name those that the trainer left in a sequence')
  reconstruction: float = _weight(1.0, 'translators meet the latent of the content that the trainer removed')
  confidence: float = _weight(0.2, 'predicted against actual quality of reconstructions')


def draw_coalition(key: jax.Array, coalitions: jax.Array, kept: jax.Array) -> jax.Array:
  """Row of a coalition drawn uniformly among those whose members were all kept, int32 [B].

  Args:
    key: random key of the draw.
    coalitions: bool [G, M].
    kept: bool [B, M], at least one a row.
  """
  allowed = (~coalitions[None] | kept[:, None, :]).all(-1)
  noise = rows.draw(lambda shape: jax.random.gumbel(key, shape), allowed.shape)
  return jnp.argmax(jnp.where(allowed, noise, -jnp.inf), axis=-1)


def dream_terms(model: Any, batch: dict[str, Any]) -> dict[str, jax.Array]:
  """The weighted terms of `Model.objective`.

  Args:
    model: a bound `Dream`; its `weights` are those of the terms.
    batch: see `Model.objective`.
  """
  spec, label, settings, weights = model.spec, batch['label'], model.sizes, model.weights
  t = model.trace(batch['inputs'], train=True)
  out = t.outputs
  kept = batch['kept'] > 0.0  # What is left of a sequence is evidence.
  terms = {'task': task_loss(spec, out.prediction, label)}
  every_label = label_of_each(t.unimodal_evidence, label)
  likelihood = evidence.log_likelihood(spec, t.prior, t.unimodal_evidence, every_label)
  # Content that the trainer removed says nothing about this label; learning from it would blunt the evidence.
  intact = kept.astype(likelihood.dtype)
  removed = 1.0 - intact
  counts = rows.divisor(jnp.append(intact.sum(0), removed.sum()))
  terms['unimodal'] = -((intact * likelihood).sum(0) / counts[:-1]).sum()

  coalitions = jnp.asarray(coalition_matrix(spec.num_modalities))
  drawn = draw_coalition(model.make_rng('draw'), coalitions, kept)
  predicted = jnp.take_along_axis(t.coalition_predictions, drawn[:, None, None], axis=1)[:, 0]
  terms['coalition'] = task_loss(spec, predicted, label)

  if settings.recognise:
    # The row of the coalition that was left intact. Slots that were missing before the injection count as intact here:
    # the trainer does not know better.
    left = (kept[:, None, :] == coalitions[None]).all(-1)
    terms['recognition'] = -jnp.where(left, t.log_coalition, 0.0).sum(-1).mean()
  if t.judged is not None:
    terms['frames'] = frame_loss(spec, t.judged, batch['inputs'], kept, batch.get('kept_frames', {}))
  if settings.reconstruct != 'never':
    target = stop_gradient(model.encode(batch['clean'], train=False))
    error = jnp.square(out.reconstructions - target).mean(-1)
    # Learn from slots we removed that looked real before: a missing slot's latent is nothing to imitate.
    terms['reconstruction'] = (removed * error).sum() / counts[-1]
    quality = stop_gradient(reconstruction_quality(out.reconstructions, target))
    terms['confidence'] = (removed * jnp.square(t.confidence - quality)).sum() / counts[-1]
  return {name: term if name == 'task' else getattr(weights, name) * term for name, term in terms.items()}
