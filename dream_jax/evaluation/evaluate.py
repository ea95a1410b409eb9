"""Evaluation: protocols in, one entry of `results.json` per row of the table out. This code alone reads the test split.

Dimension letters: S seeds, n samples, M modalities, C outputs, Q conditions of a protocol.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from dream_jax.data.prepare import Prepared
from dream_jax.evaluation import calibration, metrics
from dream_jax.evaluation.calibration import Calibration
from dream_jax.evaluation.intervals import summarise, two_way_interval
from dream_jax.evaluation.predict import EvalInputs, Predictor, Seen
from dream_jax.missingness.missing import Missing
from dream_jax.missingness.native import missing_already
from dream_jax.missingness.protocols import Condition, conditions
from dream_jax.models.registry import Method
from dream_jax.parallel import hosts
from dream_jax.spec import DatasetSpec

_CONTRIBUTION_PARTS = ('contributions', 'gates', 'soft_mask')
_PATTERNS = 12  # What is missing from the start: so many patterns are reported,
_FEWEST = 10  # from so many samples.


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of the results: a method, or one modality of the single-modality models.

  Attributes:
    name: key in `results.json`: that of the method, METHOD/MODALITY for one modality. No method's name has a slash.
    title: how tables call it.
    modality: which one it reads, None where it reads all.
    protocols: as `results.json` has them.
    contribution: likewise, or None.
    native: the method on test samples by what they lack from the start, see `_native`; None where they lack nothing.
    valuation: see `modality_values.value_modalities`; None where it was not asked for.
    test_selected: {'protocols'} of the parameters that the test split would have selected; no result, but a measure of
      what that habit is worth. None where it was not asked for.
    sample_scores: protocol -> [S, n], mean over conditions of each sample's score, for paired comparisons.
    calibration: one fit a seed, made on validation.
  """

  name: str
  title: str
  protocols: dict[str, Any]
  contribution: dict[str, Any] | None
  sample_scores: dict[str, np.ndarray]
  calibration: tuple[Calibration, ...] = ()
  modality: str | None = None
  native: dict[str, Any] | None = None
  valuation: dict[str, Any] | None = None
  test_selected: dict[str, Any] | None = None


class ConstantPredictor:
  """Predicts the class frequencies or the mean of the training labels, whatever the input.

  Attributes:
    prediction: [C] what it says.
  """

  def __init__(self, prepared: Prepared, num_seeds: int):
    spec, label = prepared.spec, prepared.splits['train'].label
    if spec.task == 'multiclass':
      constant = np.log(np.maximum(np.bincount(label, minlength=spec.num_outputs) / len(label), 1e-12))
    elif spec.task == 'regression':
      constant = np.array([label.mean(dtype=np.float64)])
    else:
      rate = np.clip(label.reshape(len(label), -1).mean(0, dtype=np.float64), 1e-6, 1 - 1e-6)
      constant = np.log(rate / (1 - rate))
    self.prediction, self._num_seeds = constant.astype(np.float32), num_seeds

  def split(
    self, params: Any, inputs: EvalInputs, split: str, *, missing: Missing, seed: int, seen: Seen | None = None
  ) -> dict[str, np.ndarray]:
    """As `Predictor.split`; reads nothing but the number of samples."""
    del params, missing, seed, seen
    shape = (self._num_seeds, len(inputs.prepared.splits[split]), len(self.prediction))
    return {'prediction': np.broadcast_to(self.prediction, shape)}


def evaluate_method(
  method: Method,
  predictor: Predictor | ConstantPredictor,
  params: Any,
  inputs: EvalInputs,
  protocols: Sequence[str],
  *,
  seed: int,
  split: str = 'test',
  trained_under: Missing | None = None,
  draws: int = 1,
) -> list[Row]:
  """The rows of one trained method.

  Args:
    method: what was trained.
    predictor: its forward pass.
    params: selected parameters, leading axis S.
    inputs: the inputs of evaluation.
    protocols: names, see `dream_jax.missingness.protocols`.
    seed: the seed of the missingness, the same for all methods.
    split: the split to read.
    trained_under: the missingness that validation was read under; None where nothing was injected.
    draws: how many draws of it confidence is fitted on.
  """
  spec, data = inputs.prepared.spec, inputs.prepared.splits[split]
  rows = _row_names(method, spec)
  native = missing_already(spec, data.features, inputs.prepared.zero)
  collected = {name: _RowBuilder(name, title, modality, spec, data.label, native) for name, title, modality in rows}
  _calibrate(method, predictor, params, inputs, list(collected.values()), trained_under or Missing(), seed, draws)
  recognition = _Recognition(spec, native)
  seen = Seen()
  informativeness = data.extras.get('informativeness')
  for protocol in dict.fromkeys(('complete', *protocols)):
    for condition in conditions(protocol, spec):
      if hosts.stopping():
        raise hosts.stopped(f'{method.name} is trained, its evaluation will be made again')
      outputs = predictor.split(params, inputs, split, missing=condition.missing, seed=seed, seen=seen)
      for m, builder in enumerate(collected.values()):
        single = method.separate
        builder.add(protocol, condition, outputs['unimodal_predictions'][:, :, m] if single else outputs['prediction'])
      if 'presence' in outputs:
        collected[method.name].add_contribution(protocol, condition, outputs)
        recognition.add(protocol, condition, outputs)
        if protocol == 'complete' and informativeness is not None:
          recognition.scores.update(_fidelity(spec, outputs['contributions'], informativeness))
  result = []
  for builder in collected.values():
    scores = recognition.summary() if builder.contribution else None
    result.append(builder.row(scores))
  return result


def _calibrate(method, predictor, params, inputs, rows, missing, seed, draws) -> None:
  """Fits the confidence of every seed of every row on the validation split."""
  spec, label = inputs.prepared.spec, inputs.prepared.splits['validation'].label
  made = [
    predictor.split(params, inputs, 'validation', missing=missing, seed=seed + draw) for draw in range(max(1, draws))
  ]
  truth = np.concatenate([label] * len(made))
  for m, row in enumerate(rows):
    each = [o['unimodal_predictions'][:, :, m] if method.separate else o['prediction'] for o in made]
    row.calibration = tuple(calibration.fit(spec, p, truth) for p in np.concatenate(each, axis=1))


def _row_names(method: Method, spec: DatasetSpec) -> list[tuple[str, str, str | None]]:
  """(key, title, modality) of every row. Users name modalities, and may name one like a method."""
  if method.separate:
    own = ''.join(method.title.partition(':')[1:])  # Its settings, where it has some of its own.
    return [(f'{method.name}/{name}', f'Only {name}{own}', name) for name in spec.names]
  return [(method.name, method.title, None)]


class _RowBuilder:
  """Gathers one row condition by condition."""

  def __init__(
    self, name: str, title: str, modality: str | None, spec: DatasetSpec, label: np.ndarray, native: np.ndarray
  ):
    self.name, self._title, self._modality, self._spec, self._label = name, title, modality, spec, label
    self._missing_already = native
    self._native: dict[str, Any] | None = None
    self._primary = metrics.primary_metric(spec)[0]
    self._protocols: dict[str, dict[str, Any]] = {}
    self._scores: dict[str, list[np.ndarray]] = {}
    self.contribution: dict[str, Any] = {}
    self.calibration: tuple[Calibration, ...] = ()

  def add(self, protocol: str, condition: Condition, prediction: np.ndarray) -> None:
    """One condition's predictions [S, n, C]."""
    entry = self._protocols.setdefault(protocol, {'conditions': [], 'metrics': {}})
    entry['conditions'].append({'name': condition.name, 'rate': condition.rate})
    each = [
      metrics.compute(self._spec, p, self._label) | calibration.measure(self._spec, c, p, self._label)
      for p, c in zip(prediction, self.calibration, strict=True)
    ]
    for metric in each[0]:
      entry['metrics'].setdefault(metric, []).append([float(values[metric]) for values in each])
    scores = np.stack([metrics.sample_scores(self._spec, p, self._label) for p in prediction])
    self._scores.setdefault(protocol, []).append(scores)
    if protocol == 'complete' and self._missing_already.any():
      self._native = _native(self._spec, prediction, self._label, self._missing_already)

  def add_contribution(self, protocol: str, condition: Condition, outputs: dict[str, np.ndarray]) -> None:
    """Means over seeds and samples of what the model said about each modality under one condition."""
    entry = self.contribution.setdefault(protocol, {'conditions': []})
    entry['conditions'].append(condition.name)
    for part in _CONTRIBUTION_PARTS:
      entry.setdefault(part, []).append(outputs[part].mean((0, 1), dtype=np.float64).tolist())
    left, judged = outputs['kept'] >= 0.5, _judged(outputs['kept'], self._missing_already)
    kept = left & judged
    groups = {'kept': kept, 'removed': ~left, 'missing_already': ~judged}
    for part in ('contributions', 'presence'):
      mean = outputs[part].mean(0, dtype=np.float64)
      for name, where in groups.items():
        by_modality = [float(mean[w, m].mean()) if w.any() else None for m, w in enumerate(where.T)]
        entry.setdefault(f'{part}_{name}', []).append(by_modality)
    both = kept.any() and not left.all()
    found = [metrics.auroc(p[judged], left[judged]) for p in outputs['presence']] if both else []
    entry.setdefault('recognition_auroc', []).append(float(np.mean(found)) if found else None)

  def row(self, scores: dict[str, Any] | None) -> Row:
    """The finished row."""
    means = {protocol: np.mean(scores, axis=0) for protocol, scores in self._scores.items()}
    for protocol, entry in self._protocols.items():
      entry['summary'] = {metric: summarise(np.mean(values, axis=0)) for metric, values in entry['metrics'].items()}
      entry['summary'][self._primary]['ci95_two_way'] = two_way_interval(means[protocol])
      rates = [c['rate'] for c in entry['conditions']]
      if len(rates) > 1 and None not in rates:
        for metric in tuple(entry['summary']):
          curves = np.asarray(entry['metrics'][metric]).T
          entry['summary'][metric]['auilc'] = float(np.mean([metrics.auilc(rates, curve) for curve in curves]))
    contribution = {**self.contribution, 'scores': scores} if self.contribution else None
    return Row(
      self.name, self._title, self._protocols, contribution, means, self.calibration, self._modality, self._native
    )


class _Recognition:
  """AUROC of recognising what is missing, pooled over the conditions of a protocol, by seed."""

  def __init__(self, spec: DatasetSpec, native: np.ndarray):
    self._spec, self._missing_already = spec, native
    self._pools: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    self.scores: dict[str, list[float]] = {}

  def add(self, protocol: str, condition: Condition, outputs: dict[str, np.ndarray]) -> None:
    """One condition."""
    m = self._spec.num_modalities
    judged = _judged(outputs['kept'], self._missing_already)
    here = (outputs['presence'][:, judged], outputs['kept'][judged] >= 0.5)
    kind, _, fill = protocol.partition('/')
    if condition.missing.kind == 'none' or condition.rate == 0:
      if protocol == 'complete':
        self._pools['complete'] = [here]
      return
    self._pools.setdefault(f'recognition AUROC, {protocol}', []).append(here)
    if kind == 'subset' and len(condition.missing.kept) == m - 1:
      pool = self._pools.setdefault(f'recognition AUROC, none or one of {m} missing/{fill}', [])
      if not pool:
        pool.extend(self._pools.get('complete', []))
      pool.append(here)

  def summary(self) -> dict[str, Any]:
    """{score name: {'mean', 'std', 'ci95'}} over seeds."""
    for name, pool in self._pools.items():
      truth = np.concatenate([kept for _, kept in pool])
      if name != 'complete' and 0 < truth.sum() < truth.size:
        seeds = range(pool[0][0].shape[0])
        self.scores[name] = [metrics.auroc(np.concatenate([p[s] for p, _ in pool]), truth) for s in seeds]
    return {name: summarise(np.asarray(values)) for name, values in self.scores.items()}


def _judged(kept: np.ndarray, native: np.ndarray) -> np.ndarray:
  """Slots of which recognition is judged, bool [n, M]: all but those that were empty and that the protocol left so."""
  return (kept < 0.5) | ~native


def _native(spec: DatasetSpec, prediction: np.ndarray, label: np.ndarray, native: np.ndarray) -> dict[str, Any]:
  """The primary metric on test samples by what they lack from the start, nothing else removed.

  Args:
    spec: the data.
    prediction: [S, n, C] on the data as they are.
    label: [n], or [n, C].
    native: bool [n, M], the slots that are empty.

  Returns:
    'patterns': the most frequent ones, each with the modalities that are 'missing', the 'count' of samples and what
    `summarise` gives over seeds; 'modalities': for each the samples 'with' and 'without' it, likewise. None stands for
    the metric of fewer than 10 samples.
  """
  metric = metrics.primary_metric(spec)[0]

  def on(where: np.ndarray) -> dict[str, Any]:
    count = int(where.sum())
    if count < _FEWEST:
      return {'count': count, 'mean': None, 'std': None, 'ci95': None}
    return {'count': count, **summarise([metrics.compute(spec, p[where], label[where])[metric] for p in prediction])}

  found, counts = np.unique(native, axis=0, return_counts=True)
  frequent = found[np.argsort(-counts, kind='stable')][:_PATTERNS]
  return {
    'patterns': [
      {'missing': [name for name, gone in zip(spec.names, row, strict=True) if gone]} | on((native == row).all(1))
      for row in frequent
    ],
    'modalities': {
      name: {'with': on(~gone), 'without': on(gone)} for name, gone in zip(spec.names, native.T, strict=True)
    },
  }


def _fidelity(spec: DatasetSpec, contributions: np.ndarray, informativeness: np.ndarray) -> dict[str, list[float]]:
  """Rank correlation of contributions [S, n, M] with the known informativeness [n, M]: over all slots, and inside each
  modality (the mean over modalities), where knowing which modality is good on average does not help."""
  pooled = [metrics.spearman(c.ravel(), informativeness.ravel()) for c in contributions]
  inside = [
    float(np.mean([metrics.spearman(c[:, m], informativeness[:, m]) for m in range(spec.num_modalities)]))
    for c in contributions
  ]
  return {
    'Spearman with known informativeness': pooled,
    'Spearman with known informativeness, inside modalities': inside,
  }
