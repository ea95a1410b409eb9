"""What each modality of each test sample was really worth to a trained method, and what the method said it was worth.

For every sample a cooperative game: v(S) is the probability that the method gives to the true target when only the
modalities in S are there (raw zeros stand for the others; regression: exp of minus the Huber distance of the
standardised target), and v of nothing is what the constant predictor gives. The exact Shapley value and the
leave-one-out value of that game need labels and 2^M predictions: they judge an estimate, they are none. Any method can
be judged so, whatever is inside.

Dimension letters: S seeds, n samples, G coalitions, M modalities, C outputs.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from dream_jax.evaluation import metrics
from dream_jax.evaluation.intervals import summarise
from dream_jax.evaluation.predict import EvalInputs, Predictor
from dream_jax.models import evidence
from dream_jax.models.coalitions import MAX_EXACT, coalition_matrix, shapley_values
from dream_jax.spec import DatasetSpec

# What a method says of a modality, by the name it is reported under.
_ESTIMATES = {'contributions': 'contributions', 'soft_mask': 'soft mask', 'gates': 'gate (kept share)'}


def value_modalities(
  predictor: Predictor, params: Any, inputs: EvalInputs, split: str, *, constant: np.ndarray, seed: int
) -> dict[str, Any] | None:
  """Shapley and leave-one-out values of a method, the balance between modalities, and how faithful its estimates are.

  Args:
    predictor: the predictor of the method.
    params: leading axis S.
    inputs: the inputs of evaluation.
    split: which split.
    constant: [C] what the constant predictor says.
    seed: decides which lengths removed sequences get.

  Returns:
    None above `MAX_EXACT` modalities, else {'modalities', 'shapley_share': share of each modality in the summed Shapley
    values, 'balance': its entropy over log M, a summary over seeds; 'leave_one_out': mean of each modality; 'fidelity':
    {estimate: {'spearman_shapley', 'spearman_shapley_inside', 'spearman_leave_one_out', 'auroc_helps': summaries}}}.
    'inside' correlates within each modality; 'helps' are slots whose Shapley value is positive.
  """
  spec, m = inputs.prepared.spec, inputs.prepared.spec.num_modalities
  if m > MAX_EXACT:
    return None
  outputs = predictor.coalitions(params, inputs, split, seed=seed)
  label = inputs.scale.standardise(inputs.prepared.splits[split].label)
  values, shapley = play(
    spec, inputs.scale.standardise(outputs['prediction']), label, inputs.scale.standardise(constant)
  )
  rows = coalition_matrix(m)
  others = (~rows & (rows.sum(1) == m - 1)[:, None]).argmax(0)
  alone = (rows & (rows.sum(1) == 1)[:, None]).argmax(0)
  left_out = (values[:, :, -1:] - values[:, :, others]).astype(np.float64)
  total = shapley.sum((1, 2))
  share = shapley.sum(1) / np.where(total == 0, 1, total)[:, None]
  estimates = {title: outputs[name][:, :, -1] for name, title in _ESTIMATES.items() if name in outputs}
  if 'gate (kept share)' in estimates:
    estimates['gate (kept share)'] = 1.0 - estimates['gate (kept share)']
  confidence = _confidence(spec, outputs['prediction'][:, :, alone])
  if confidence is not None:
    estimates['unimodal confidence'] = confidence
  return {
    'modalities': list(spec.names),
    'shapley_share': share.mean(0).tolist(),
    'balance': summarise(_entropy(share)),
    'leave_one_out': left_out.mean((0, 1)).tolist(),
    'fidelity': {name: _fidelity(estimate, shapley, left_out) for name, estimate in estimates.items()},
  }


def play(
  spec: DatasetSpec, prediction: np.ndarray, label: np.ndarray, constant: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(v [S, n, G], exact Shapley values float64 [S, n, M]) of the game of every sample.

  Args:
    spec: at most `MAX_EXACT` modalities.
    prediction: [S, n, G, C] of every coalition, as models give them.
    label: [n] or [n, C], as models read them.
    constant: [C], what is predicted from nothing.
  """
  values = _value(spec, prediction, label)
  nothing = np.broadcast_to(constant, (1, len(label), 1, len(constant)))
  empty = np.broadcast_to(_value(spec, nothing, label)[:, :, 0], values.shape[:2])
  shapley = shapley_values(jnp.asarray(values), jnp.asarray(empty), spec.num_modalities)
  return values, np.asarray(shapley, np.float64)


def _value(spec: DatasetSpec, prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
  """v of predictions [S, n, G, C] for labels [n] or [n, C], [S, n, G]."""
  label = label.reshape(1, len(label), 1, *label.shape[1:])
  label = np.broadcast_to(label, (*prediction.shape[:3], *label.shape[3:]))
  return np.exp(np.asarray(evidence.score(spec, jnp.asarray(prediction), jnp.asarray(label))))


def _confidence(spec: DatasetSpec, alone: np.ndarray) -> np.ndarray | None:
  """How sure the method is of each modality alone, [S, n, M]; None for regression, whose predictions have no width."""
  if spec.task == 'regression':
    return None
  return np.asarray(evidence.certainty(spec, jnp.asarray(alone), jnp.zeros(alone.shape, jnp.float32)))


def _entropy(share: np.ndarray) -> np.ndarray:
  """Entropy of shares [S, M] over its maximum; negative shares count as nothing."""
  p = np.maximum(share, 0.0)
  p = p / np.maximum(p.sum(1, keepdims=True), 1e-12)
  return -(p * np.log(np.maximum(p, 1e-12))).sum(1) / np.log(share.shape[1])


def _fidelity(estimate: np.ndarray, shapley: np.ndarray, left_out: np.ndarray) -> dict[str, Any]:
  found: dict[str, list[float]] = {}
  for e, phi, loo in zip(estimate.astype(np.float64), shapley, left_out, strict=True):
    inside = [metrics.spearman(e[:, m], phi[:, m]) for m in range(phi.shape[1])]
    helps = (phi > 0).ravel()
    for name, value in (
      ('spearman_shapley', metrics.spearman(e.ravel(), phi.ravel())),
      ('spearman_shapley_inside', float(np.mean(inside))),
      ('spearman_leave_one_out', metrics.spearman(e.ravel(), loo.ravel())),
      ('auroc_helps', metrics.auroc(e.ravel(), helps)),
    ):
      found.setdefault(name, []).append(value)
  return {name: summarise(np.asarray(values)) for name, values in found.items()}
