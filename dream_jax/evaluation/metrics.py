"""Metrics exactly as the field computes them, in NumPy.

Regression follows MMSA's `MetricsTop` (github.com/thuiar/MMSA, src/MMSA/utils/metricsTop.py): clip, then `np.round`
(halves to even), weighted F1 weighted by the support of the *labels*. Classification follows scikit-learn's definitions
with `zero_division=0`. Nothing is rounded. Letters: n samples, C outputs, K rates.

Where a quantity is undefined the answer says so instead of guessing: Corr and Spearman of a constant are 0.0 (a
constant says nothing about the target), AUROC with one class and Acc-2 without a non-zero label are NaN, and a
prediction that holds NaN (a diverged model) makes every metric NaN.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from dream_jax.errors import UserError
from dream_jax.spec import TASKS, DatasetSpec

Metric = Callable[[np.ndarray, np.ndarray], float]

_PRIMARY = {'regression': 'mae', 'binary': 'accuracy', 'multiclass': 'accuracy', 'multilabel': 'f1_samples'}
_SENTIMENT_RANGE = (-3.0, 3.0)  # CMU-MOSI, CMU-MOSEI
_SIMS_RANGE = (-1.0, 1.0)  # CH-SIMS
# CH-SIMS classes are half-open intervals (low, high] between these edges.
_SIMS_EDGES = {'acc2': (0.0,), 'acc3': (-0.1, 0.1), 'acc5': (-0.7, -0.1, 0.1, 0.7)}


_ERRORS = {'mae', 'ece', 'ece_raw', 'coverage_gap'}
# Metrics of the user's own, see `register`: name -> (task, function).
_own: dict[str, tuple[str, Metric]] = {}
# Metrics that are computed for a task, to refuse a second one of the same name.
_TAKEN = (
  *('mae', 'corr', 'acc7', 'acc5', 'acc3', 'acc2', 'f1', 'acc2_has0', 'f1_has0', 'acc2_non0', 'f1_non0'),
  *('accuracy', 'f1_weighted', 'uar', 'auroc', 'f1_samples', 'f1_micro', 'f1_macro', 'subset_accuracy', 'map'),
  *('ece', 'ece_raw', 'coverage_gap'),
)


def register(name: str, task: str, metric: Metric, *, higher_is_better: bool = True) -> None:
  """Adds a metric of yours to all that is computed for a task; tables and results have it under `name`.

  The file of a `--config` is a good place to call it. It judges and decides nothing: models are selected by the primary
  metric of the task.

  Args:
    name: key in the results.
    task: one of `spec.TASKS`.
    metric: (prediction [n, C], label [n] or [n, C]) -> number, both as `compute` takes them.
    higher_is_better: whether more of it is better.

  Raises:
    UserError: the name is one of ours, or there is no such task.
  """
  if name in _TAKEN:
    raise UserError(f'metric {name!r} is built in; choose another name')
  if task not in TASKS:
    raise UserError(f'metric {name!r} is of task {task!r}; expected one of {", ".join(TASKS)}')
  _own[name] = (task, metric)
  _ERRORS.discard(name)
  if not higher_is_better:
    _ERRORS.add(name)


def own_metrics() -> tuple[Metric, ...]:
  """The functions of all metrics that were registered."""
  return tuple(metric for _, metric in _own.values())


def primary_metric(spec: DatasetSpec) -> tuple[str, bool]:
  """(name, higher_is_better) of the metric that models are selected and compared by."""
  name = _PRIMARY[spec.task]
  return name, higher_is_better(name)


def higher_is_better(metric: str) -> bool:
  """Whether more of this metric is better: true of all but errors."""
  return metric not in _ERRORS


def compute(spec: DatasetSpec, prediction: ArrayLike, label: ArrayLike) -> dict[str, float]:
  """Every metric of the task, by name.

  Args:
    spec: the data set; regression metrics depend on `label_range`: (-3, 3) is the MOSI/MOSEI family (acc7, acc5, acc2
      and F1 as negative/non-negative `_has0` and as negative/positive without zero labels `_non0`), (-1, 1) the CH-SIMS
      family (acc5, acc3, acc2, f1; MAE and Corr after clipping to the range, as MMSA does); any other range gets mae
      and corr.
    prediction: [n, C]: the value (regression), the logit of class 1 (binary; 1 if above 0), logits or log-probabilities
      (multiclass) or one logit per label (multilabel).
    label: [n], or [n, C] for multilabel.

  Returns:
    regression: mae, corr and those above; binary and multiclass: accuracy, f1_weighted, uar (recall averaged over the
    classes that occur in `label`), and for binary auroc; multilabel: f1_samples, f1_micro, f1_macro, f1_weighted,
    subset_accuracy and map (average precision, averaged over the labels that occur).

  Raises:
    ValueError: shapes disagree with each other or with the spec, or there is no sample.
  """
  prediction, label = _checked(spec, prediction, label)
  if np.isnan(prediction).any():
    return dict.fromkeys(compute(spec, np.zeros_like(prediction), label), float('nan'))
  if spec.task == 'regression':
    result = _regression(prediction[:, 0], label, spec.label_range)
  elif spec.task == 'multilabel':
    result = _multilabel(prediction, label)
  else:
    result = _classification(_decide(spec, prediction), label, max(2, spec.num_outputs))
    if spec.task == 'binary':
      result['auroc'] = auroc(prediction[:, 0], label)
  result |= {name: metric(prediction, label) for name, (task, metric) in _own.items() if task == spec.task}
  return {name: float(value) for name, value in result.items()}


def sample_scores(spec: DatasetSpec, prediction: ArrayLike, label: ArrayLike) -> np.ndarray:
  """One score per sample, [n] float64, whose mean is the primary metric.

  Absolute error (regression), 1 or 0 for right or wrong (binary, multiclass), F1 of the sample's labels (multilabel).
  A sample whose prediction holds NaN scores NaN. Arguments and errors as for `compute`.
  """
  prediction, label = _checked(spec, prediction, label)
  if spec.task == 'regression':
    value = prediction[:, 0]
    if spec.label_range == _SIMS_RANGE:
      value, label = np.clip(value, *_SIMS_RANGE), np.clip(label, *_SIMS_RANGE)
    return np.abs(value.astype(np.float64) - label.astype(np.float64))
  if spec.task == 'multilabel':
    decided = prediction > 0
    scores = _f1((decided & label).sum(1), label.sum(1), decided.sum(1))
  else:
    scores = (_decide(spec, prediction) == label).astype(np.float64)
  return np.where(np.isnan(prediction).any(axis=1), np.nan, scores)


def auroc(score: ArrayLike, label: ArrayLike) -> float:
  """Probability that a random positive scores above a random negative, ties counting half; NaN with one class only.

  Args:
    score: [n] real numbers.
    label: [n], positive where non-zero.
  """
  score, positive = _vector(score, 'score'), _vector(label, 'label') != 0
  _same_length(score, positive)
  num_positive, num_negative = int(positive.sum()), int((~positive).sum())
  if not num_positive or not num_negative or np.isnan(score).any():
    return float('nan')
  rank_sum = ranks(score)[positive].sum()
  return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def spearman(a: ArrayLike, b: ArrayLike) -> float:
  """Rank correlation of a [n] and b [n], ties sharing their mean rank; 0.0 if one is constant, NaN below 2 samples."""
  a, b = _vector(a, 'a'), _vector(b, 'b')
  _same_length(a, b)
  if len(a) < 2 or np.isnan(a).any() or np.isnan(b).any():
    return float('nan')
  return float(_pearson(ranks(a), ranks(b)))


def ranks(values: ArrayLike) -> np.ndarray:
  """Ranks of `values` [n] from 1, equal values sharing the mean of theirs, [n] float64."""
  _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def auilc(rates: ArrayLike, values: ArrayLike) -> float:
  """Area under the curve of `values` [K] over `rates` [K] (trapezoids), divided by the span of the rates.

  So a flat curve has its own height; the field's AUILC is the same area without the division. One rate alone gives its
  value.

  Raises:
    ValueError: lengths differ, nothing is given, or rates do not increase strictly.
  """
  rates, values = _vector(rates, 'rates').astype(np.float64), _vector(values, 'values').astype(np.float64)
  _same_length(rates, values)
  if not len(rates) or (np.diff(rates) <= 0).any():
    raise ValueError(f'rates must increase strictly and not be empty; got {rates.tolist()}')
  if len(rates) == 1:
    return float(values[0])
  return float(np.trapezoid(values, rates) / (rates[-1] - rates[0]))


def _checked(spec, prediction, label) -> tuple[np.ndarray, np.ndarray]:
  """Float32 prediction [n, C] and label in its task's type; float32 because MMSA compares with thresholds in it."""
  prediction, label = np.asarray(prediction, np.float32), np.asarray(label)
  wanted = (len(label), spec.num_outputs) if label.ndim else ()
  if prediction.shape != wanted or label.shape != (wanted if spec.task == 'multilabel' else wanted[:1]):
    raise ValueError(
      f'{spec.task} with {spec.num_outputs} outputs: prediction {prediction.shape} and label {label.shape} do not fit'
    )
  if not len(label):
    raise ValueError('no sample to compute metrics on')
  if spec.task == 'regression':
    return prediction, label.astype(np.float32)
  return prediction, label.astype(bool) if spec.task == 'multilabel' else label.astype(np.int64)


def _decide(spec, prediction):
  return (prediction[:, 0] > 0).astype(np.int64) if spec.task == 'binary' else prediction.argmax(axis=1)


def _regression(value, label, label_range):
  if label_range == _SIMS_RANGE:
    value, label = np.clip(value, *_SIMS_RANGE), np.clip(label, *_SIMS_RANGE)
  wide_value, wide_label = value.astype(np.float64), label.astype(np.float64)
  result = {'mae': np.abs(wide_value - wide_label).mean(), 'corr': _pearson(wide_value, wide_label)}
  if label_range == _SENTIMENT_RANGE:
    for name, limit in (('acc7', 3), ('acc5', 2)):
      result[name] = _accuracy(np.round(np.clip(value, -limit, limit)), np.round(np.clip(label, -limit, limit)))
    result['acc2_has0'], result['f1_has0'] = _two_class(value >= 0, label >= 0)
    kept = label != 0
    result['acc2_non0'], result['f1_non0'] = _two_class(value[kept] > 0, label[kept] > 0)
  elif label_range == _SIMS_RANGE:
    for name, edges in _SIMS_EDGES.items():
      edges = np.asarray(edges, np.float32)
      classes, truth = np.searchsorted(edges, value), np.searchsorted(edges, label)
      result[name] = _accuracy(classes, truth)
      if name == 'acc2':
        result['f1'] = _two_class(classes, truth)[1]
  return result


def _two_class(decided, label):
  if not len(label):
    return float('nan'), float('nan')
  result = _classification(decided.astype(np.int64), label.astype(np.int64), 2)
  return result['accuracy'], result['f1_weighted']


def _classification(decided, label, num_classes):
  num_classes = max(num_classes, int(label.max()) + 1)
  support = np.bincount(label, minlength=num_classes)
  hits = np.bincount(label[decided == label], minlength=num_classes)
  f1 = _f1(hits, support, np.bincount(decided, minlength=num_classes))
  occurs = support > 0
  return {
    'accuracy': _accuracy(decided, label),
    'f1_weighted': (f1 * support).sum() / support.sum(),
    'uar': (hits[occurs] / support[occurs]).mean(),
  }


def _multilabel(prediction, label):
  decided = prediction > 0
  hits, support, chosen = (decided & label).sum(0), label.sum(0), decided.sum(0)
  f1 = _f1(hits, support, chosen)
  precisions = [_average_precision(prediction[:, c], label[:, c]) for c in np.flatnonzero(support)]
  return {
    'f1_samples': _f1((decided & label).sum(1), label.sum(1), decided.sum(1)).mean(),
    'f1_micro': _f1(hits.sum(), support.sum(), chosen.sum()),
    'f1_macro': f1.mean(),
    'f1_weighted': (f1 * support).sum() / max(1, support.sum()),
    'subset_accuracy': (decided == label).all(axis=1).mean(),
    'map': np.mean(precisions) if precisions else float('nan'),
  }


def _average_precision(score, label):
  """Sum over thresholds of the rise in recall times precision; equal scores share one threshold."""
  order = np.argsort(-score, kind='stable')
  score, hits = score[order], np.cumsum(label[order])
  ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))
  precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
  return (np.diff(recall, prepend=0.0) * precision).sum()


def _f1(hits, support, chosen):
  """F1 from counts; 0 where there is neither a label nor a decision."""
  return 2 * hits / np.maximum(support + chosen, 1)


def _accuracy(decided, label):
  return np.mean(decided == label)


def _pearson(a, b):
  if np.ptp(a) == 0 or np.ptp(b) == 0:
    return 0.0
  if not (np.isfinite(a).all() and np.isfinite(b).all()):
    return float('nan')
  a, b = a - a.mean(), b - b.mean()
  return np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0)


def _vector(values, name):
  values = np.asarray(values)
  if values.ndim != 1:
    raise ValueError(f'{name} must have one axis; got shape {values.shape}')
  return values


def _same_length(a, b):
  if len(a) != len(b):
    raise ValueError(f'lengths differ: {a.shape} and {b.shape}')
