"""Reading `results.json`: every question the tables and figures ask of it, answered also where a part is absent.

The file may lack contributions, comparisons, summaries, times or whole protocols of a method, hold one seed, or hold
null where a value was undefined. Absent numbers come back as NaN, absent parts as None.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from dream_jax.errors import UserError
from dream_jax.evaluation import intervals
from dream_jax.evaluation.metrics import higher_is_better
from dream_jax.workdir import sealed, storage
from dream_jax.workdir.config_guard import is_study

SCHEMA_VERSION = 2
# They predict the same for everybody, far below the others: axes leave them out.
CONSTANT_METHODS = ('majority', 'mean')

_LABELS = {
  'mae': 'MAE', 'corr': 'Corr', 'acc7': 'Acc-7', 'acc5': 'Acc-5', 'acc3': 'Acc-3', 'acc2': 'Acc-2', 'f1': 'F1',
  'acc2_has0': 'Acc-2 (neg/non-neg)', 'f1_has0': 'F1 (neg/non-neg)',
  'acc2_non0': 'Acc-2 (neg/pos)', 'f1_non0': 'F1 (neg/pos)',
  'accuracy': 'Accuracy', 'f1_weighted': 'Weighted F1', 'uar': 'UAR', 'auroc': 'AUROC', 'f1_samples': 'F1 (per sample)',
  'f1_micro': 'Micro F1', 'f1_macro': 'Macro F1', 'subset_accuracy': 'Subset accuracy', 'map': 'mAP',
  'ece': 'ECE', 'ece_raw': 'ECE before calibration', 'coverage_gap': 'Coverage error of 90 % intervals',
}  # fmt: skip
_UNSCALED = ('mae', 'corr')
_RANGES = {'mae': (0.0, np.inf), 'corr': (-1.0, 1.0)}


class Measure(NamedTuple):
  """How a metric is written: its label, the factor and the decimals."""

  label: str
  scale: float
  digits: int

  def number(self, value: float | None) -> str:
    """The value as written in a table; a dash where it is undefined."""
    return '–' if value is None or not np.isfinite(value) else f'{self.scale * value:.{self.digits}f}'

  def signed(self, value: float | None) -> str:
    """The same of a difference, with its sign."""
    return '–' if value is None or not np.isfinite(value) else f'{self.scale * value:+.{self.digits}f}'


class Curve(NamedTuple):
  """One method under one protocol: mean over seeds and 95 % interval, [conditions] each, NaN where undefined.

  The interval ends where the metric does.
  """

  mean: np.ndarray
  low: np.ndarray
  high: np.ndarray


def read_results(workdir: str | os.PathLike) -> dict:
  """The content of `workdir/results.json`.

  Raises:
    UserError: the file is missing, damaged, of another run than the config beside it, or no results file of this
      schema.
  """
  folder = storage.place(workdir)
  path, config = folder / 'results.json', folder / 'config.json'
  remedy = 'run the command of this workdir again, or --mode=evaluate, to rewrite it'
  owner = None
  if config.exists():
    owner = sealed.read(config, remedy='bring back a copy of it').run
  try:
    results, run = sealed.read(path, remedy=remedy)
  except FileNotFoundError:
    if owner is not None:
      raise UserError(
        f'no results in {os.fspath(workdir)!r} yet: its runs are not finished; run its command again to go on'
      ) from None
    raise UserError(
      f'no results in {os.fspath(workdir)!r}: {path} is missing; train or study with this workdir first'
    ) from None
  if owner is not None and owner != run:
    if is_study(owner):
      raise UserError(
        f'{path} has the results of an earlier command: since then a study with another config or other data was begun'
        ' there and is not finished; run its command again to go on'
      )
    raise UserError(f'{path} belongs to another run than config.json beside it; {remedy}')
  if not isinstance(results.get('methods'), dict) or not results['methods']:
    raise UserError(f'{path} holds no methods; expected a results file written by train, evaluate or study')
  version = results.get('schema_version')
  if version != SCHEMA_VERSION:
    raise UserError(
      f'{path} has schema_version {version}; this program reads {SCHEMA_VERSION}: run --mode=evaluate again'
    )
  return results


def defined(results: Any) -> Any:
  """The results as their file holds them: None for a number that is not finite, and for an interval without both ends.

  What has just been measured holds NaN where a metric is undefined, and an old file may hold it, too.
  """
  if isinstance(results, dict):
    return {key: _interval(value) if str(key).startswith('ci95') else defined(value) for key, value in results.items()}
  if isinstance(results, (list, tuple)):
    return [defined(value) for value in results]
  return None if isinstance(results, float) and not math.isfinite(results) else results


def _interval(value: Any) -> list[float] | None:
  bounds = defined(value)
  return None if bounds is None or None in bounds else bounds


def measure(metric: str) -> Measure:
  """How to write a metric: shares of 1 as percentages, the rest as they are."""
  if metric in _LABELS and metric not in _UNSCALED:
    return Measure(f'{_LABELS[metric]}, %', 100.0, 1)
  return Measure(_LABELS.get(metric, metric), 1.0, 3)


def metric_range(metric: str) -> tuple[float, float]:
  """(lowest, highest) value that a metric can take."""
  return _RANGES.get(metric, (0.0, 1.0) if metric in _LABELS else (-np.inf, np.inf))


def within_range(metric: str, bounds: Sequence[float], *, difference: bool = False) -> tuple[float, float]:
  """An interval as far as the metric, or a difference of two of its values, goes: some methods do not know where."""
  lowest, highest = metric_range(metric)
  if difference:
    lowest, highest = lowest - highest, highest - lowest
  low, high = np.clip(np.asarray(bounds, np.float64), lowest, highest)
  return float(low), float(high)


def primary(results: dict) -> tuple[str, bool]:
  """(primary metric, higher is better)."""
  name = results.get('primary_metric') or 'accuracy'
  better = results.get('higher_is_better')
  return name, higher_is_better(name) if better is None else bool(better)


def title(results: dict, method: str) -> str:
  """The method's title, its oracle named: no reader may take such a row for a contender."""
  entry = results['methods'].get(method) or {}
  oracle = uses_oracle(results, method)
  return (entry.get('title') or method) + (f' [oracle: {", ".join(oracle)}]' if oracle else '')


def uses_oracle(results: dict, method: str) -> list[str]:
  """What the method is given that no user has, such as the true mask."""
  return list((results['methods'].get(method) or {}).get('uses_oracle') or ())


def protocols(results: dict) -> list[str]:
  """Every protocol any method was evaluated under, in order of appearance."""
  return list(dict.fromkeys(p for entry in results['methods'].values() for p in (entry.get('protocols') or {})))


def conditions(results: dict, protocol: str) -> list[dict]:
  """[{'name', 'rate'}] of a protocol, from the first method that has it."""
  for entry in results['methods'].values():
    found = (entry.get('protocols') or {}).get(protocol)
    if found:
      return found.get('conditions') or []
  return []


def rates(results: dict, protocol: str) -> np.ndarray | None:
  """The rates [K] if the protocol is a curve (two or more, strictly increasing), else None."""
  values = np.array([c.get('rate') for c in conditions(results, protocol)], np.float64)  # null becomes NaN
  return values if len(values) > 1 and (np.diff(values) > 0).all() else None


def metric_names(results: dict) -> list[str]:
  """Every metric that occurs, the primary one first."""
  seen = [primary(results)[0]]
  for entry in results['methods'].values():
    for protocol in filter(None, (entry.get('protocols') or {}).values()):
      seen += list(protocol.get('metrics') or {})
  return list(dict.fromkeys(seen))


def per_seed(results: dict, method: str, protocol: str, metric: str) -> np.ndarray | None:
  """Values [conditions, seeds] of a method; None if it was not evaluated so."""
  found = ((results['methods'].get(method) or {}).get('protocols') or {}).get(protocol) or {}
  values = (found.get('metrics') or {}).get(metric)
  return np.asarray(values, np.float64) if values and all(values) else None


def curve(results: dict, method: str, protocol: str, metric: str) -> Curve | None:
  """Mean and Student interval over seeds at every condition; None if the method was not evaluated so."""
  values = per_seed(results, method, protocol, metric)
  if values is None:
    return None
  rows = [intervals.summarise(v) for v in values]
  mean = np.array([np.nan if r['mean'] is None else r['mean'] for r in rows])
  bounds = np.array([within_range(metric, r['ci95'] or (np.nan, np.nan)) for r in rows])
  return Curve(mean, bounds[:, 0], bounds[:, 1])


def summary(results: dict, method: str, protocol: str, metric: str) -> dict | None:
  """{'mean', 'std', 'ci95'} over seeds of the mean over conditions: as stored, else computed; None if absent."""
  found = ((results['methods'].get(method) or {}).get('protocols') or {}).get(protocol) or {}
  stored = (found.get('summary') or {}).get(metric)
  if stored and stored.get('mean') is not None:
    return stored
  values = per_seed(results, method, protocol, metric)
  return None if values is None else intervals.summarise(values.mean(axis=0))


def seed_counts(results: dict) -> list[int]:
  """The numbers of seeds that occur among the methods, ascending."""
  return sorted({_num_seeds(entry) for entry in results['methods'].values()})


def _num_seeds(entry):
  widths = [
    len(row)
    for protocol in filter(None, (entry.get('protocols') or {}).values())
    for rows in (protocol.get('metrics') or {}).values()
    for row in rows
  ]
  return len(entry.get('seeds') or ()) or max(widths, default=0)


def contribution(results: dict, method: str) -> dict[str, dict]:
  """Contribution records of a method by protocol, empty where it has none."""
  found = (results['methods'].get(method) or {}).get('contribution') or {}
  return {name: record for name, record in found.items() if name != 'scores' and isinstance(record, dict)}


def contribution_scores(results: dict, method: str) -> dict[str, dict]:
  """{score name: {'mean', 'ci95'}} of a method, such as the AUROC of recognition; empty where it has none."""
  found = (results['methods'].get(method) or {}).get('contribution') or {}
  return found.get('scores') or {}


def mean(values: np.ndarray | None) -> float:
  """Mean of what is defined; NaN if nothing is."""
  return float('nan') if values is None or np.isnan(values).all() else float(np.nanmean(values))


def by_modality(record: dict, key: str, num_modalities: int) -> np.ndarray | None:
  """[conditions, M] of one quantity of a contribution record, NaN for null; None if it is absent."""
  rows = record.get(key)
  if not rows:
    return None
  return np.array([row if row is not None else [None] * num_modalities for row in rows], np.float64)


def regimes(results: dict) -> list[str]:
  """Names of the training regimes of a study, its first one first; empty for the results of a training."""
  return list(results.get('regimes') or ()) if results.get('mode') != 'train' else []


def of_regime(results: dict, regime: str) -> dict:
  """The results with what belongs to one regime alone; of a single run the results as they are."""
  methods = {k: e for k, e in results['methods'].items() if e.get('regime') == regime}
  comparisons = [c for c in results.get('comparisons') or () if c.get('regime') == regime]
  return {**results, 'methods': methods, 'comparisons': comparisons} if methods else results


def row_name(results: dict, method: str) -> str:
  """The key of a method's row without its regime: the same row under every regime."""
  regime = (results['methods'].get(method) or {}).get('regime')
  return method.removesuffix(f'@{regime}') if regime else method
