"""Confidence that means what it says: fitted on validation, measured under every condition of the test.

Classification: logits are divided by a temperature that minimises the negative log likelihood of the validation set
(Guo et al., On Calibration of Modern Neural Networks, ICML 2017). Regression: an interval around the prediction that
holds 90 % of the validation targets (split conformal prediction; Vovk et al., 2005; Lei et al., JASA 2018). Validation
is read under the missingness of training, as selection reads it: one number serves all conditions, and what it is worth
under each of them is what is reported. A temperature that makes the likelihood or the calibration error of the very
samples it is fitted on worse than none is not kept. A regression has nothing to compare its interval with.

Letters: n samples, C outputs.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import optimize, special

from dream_jax.spec import DatasetSpec

LEVEL = 0.9
_BINS = 15
_LOG_RANGE = (-3.0, 3.0)  # of temperatures


@dataclasses.dataclass(frozen=True)
class Calibration:
  """How the confidence of one model is put right.

  Attributes:
    temperature: logits are divided by it; above 1 the model was too sure.
    margin: half width of the 90 % interval of a regression, in the units of the labels; None for other tasks.
  """

  temperature: float = 1.0
  margin: float | None = None


def fit(spec: DatasetSpec, prediction: np.ndarray, label: np.ndarray) -> Calibration:
  """The calibration of a model from its predictions [n, C] on validation samples.

  A model that diverged gets none. The temperature is 1 unless the one found makes neither the negative log likelihood
  nor the expected calibration error of these samples worse.

  Args:
    spec: names the task.
    prediction: as `metrics.compute` takes it.
    label: [n], or [n, C] for multilabel.
  """
  prediction = np.asarray(prediction, np.float64)
  if not np.isfinite(prediction).all():
    return Calibration(margin=math.inf if spec.task == 'regression' else None)
  if spec.task == 'regression':
    missed = np.sort(np.abs(prediction[:, 0] - label))
    rank = math.ceil((len(missed) + 1) * LEVEL)
    return Calibration(margin=float(missed[rank - 1]) if rank <= len(missed) else math.inf)

  def loss(log_temperature: float) -> float:
    return -_log_likelihood(spec, prediction / math.exp(log_temperature), label)

  def error(log_temperature: float) -> float:
    return expected_calibration_error(*confidence(spec, prediction / math.exp(log_temperature), label))

  result: Any = optimize.minimize_scalar(loss, bounds=_LOG_RANGE, method='bounded')
  found = float(result.x)
  better = loss(found) <= loss(0.0) and error(found) <= error(0.0)
  return Calibration(temperature=math.exp(found) if better else 1.0)


def measure(spec: DatasetSpec, calibration: Calibration, prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
  """What confidence is worth on these samples.

  Returns:
    classification: 'ece' and, before calibration, 'ece_raw'; regression: 'coverage_gap', how far the share of targets
    inside the interval is from 0.9. NaN for a model that diverged.
  """
  prediction = np.asarray(prediction, np.float64)
  diverged = not np.isfinite(prediction).all()
  if spec.task == 'regression':
    assert calibration.margin is not None
    inside = np.abs(prediction[:, 0] - label) <= calibration.margin
    return {'coverage_gap': math.nan if diverged else abs(float(inside.mean()) - LEVEL)}
  if diverged:
    return {'ece': math.nan, 'ece_raw': math.nan}
  return {
    'ece': expected_calibration_error(*confidence(spec, prediction / calibration.temperature, label)),
    'ece_raw': expected_calibration_error(*confidence(spec, prediction, label)),
  }


def confidence(spec: DatasetSpec, prediction: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(confidence, whether it was right) of every decision, flat: one a sample, for multilabel one a sample and label."""
  if spec.task == 'multiclass':
    p = special.softmax(prediction, axis=-1)
    return p.max(-1), p.argmax(-1) == label
  p = special.expit(prediction).ravel()
  return np.maximum(p, 1.0 - p), (p > 0.5) == (np.asarray(label).ravel() > 0.5)


def expected_calibration_error(sure: np.ndarray, right: np.ndarray) -> float:
  """Mean distance of confidence [n] and accuracy [n] over 15 bins of equal width, weighted by their samples.

  Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning. AAAI 2015.
  """
  place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
  gap = np.bincount(place, weights=sure - right, minlength=_BINS)
  return float(np.abs(gap).sum() / len(sure))


def _log_likelihood(spec: DatasetSpec, prediction: np.ndarray, label: np.ndarray) -> float:
  if spec.task == 'multiclass':
    return float(special.log_softmax(prediction, axis=-1)[np.arange(len(label)), label].mean())
  signs = np.where(np.reshape(label, prediction.shape) > 0.5, 1.0, -1.0)
  return float(special.log_expit(signs * prediction).mean())
