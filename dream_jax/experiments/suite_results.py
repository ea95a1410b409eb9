"""From the results of many data sets to `results.json` of a suite: each data set by itself, and all together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dream_jax.evaluation import across
from dream_jax.evaluation.intervals import holm
from dream_jax.experiments.results_file import environment
from dream_jax.report import results as read
from dream_jax.workdir.sealed import plain

# Data set -> the results of its divisions, as `results.json` of a study holds them.
Found = Mapping[str, Sequence[Mapping[str, Any]]]


def assemble(found: Found, margin: float, config: Any) -> dict[str, Any]:
  """The content of `results.json`: what data sets say together under every protocol, and every comparison on each.

  Args:
    found: the results of every data set.
    margin: differences as small as this do not matter.
    config: the ConfigDict it came from, for the record.
  """
  first = next(iter(found.values()))[0]
  reference = first['reference']
  entries = {
    m: e for m, e in first['methods'].items()
    if e['modality'] is None and '@' not in m and all(m in d['methods'] for each in found.values() for d in each)
  }  # fmt: skip
  protocols = list(dict.fromkeys(p for p in entries[reference]['protocols'] if _everywhere(found, reference, p)))
  ranked = [m for m, e in entries.items() if not e['uses_oracle'] and m not in read.CONSTANT_METHODS]
  scores = {p: {m: [_runs(each, m, p) for each in found.values()] for m in entries} for p in protocols}
  among = {p: {m: scores[p][m] for m in ranked} for p in protocols}
  guessing = next((m for m in read.CONSTANT_METHODS if m in entries), None)
  lowest = [float(np.mean(_runs(each, guessing, 'complete'))) if guessing else 0.0 for each in found.values()]
  return {
    'schema_version': read.SCHEMA_VERSION,
    'mode': 'suite',
    'reference': reference,
    'margin': margin,
    'higher_is_better': first['higher_is_better'],
    'primary_metric': first['primary_metric'],
    'data': {name: _facts(each, reference) for name, each in found.items()},
    'methods': {
      m: {
        'title': e['title'],
        'uses_oracle': e['uses_oracle'],
        'ranked': m in ranked,
        'means': {p: {n: float(np.mean(x)) for n, x in zip(found, scores[p][m], strict=True)} for p in protocols},
      }
      for m, e in entries.items()
    },
    'mean_rank': _estimates(across.mean_ranks(*among.values())),
    'protocols': {p: _together(among[p], lowest, reference) for p in protocols},
    'comparisons': [
      {'data': name, 'protocol': protocol, 'a': reference, **entry}
      for place, (name, each) in enumerate(found.items())
      for protocol, of in scores.items()
      for entry in _comparisons(each, protocol, reference, {m: of[m][place] for m in entries}, margin)
    ],
    'environment': environment(),
    'config': plain(config),
    'wall_seconds': sum(d['wall_seconds'] for each in found.values() for d in each),
  }


def _everywhere(found: Found, method: str, protocol: str) -> bool:
  return all(protocol in d['methods'][method]['protocols'] for each in found.values() for d in each)


def _runs(each: Sequence[Mapping[str, Any]], method: str, protocol: str) -> np.ndarray:
  """Scores [R] of the runs of a method, more is better: the primary metric, its mean over the conditions."""
  runs = []
  for results in each:
    values = results['methods'][method]['protocols'][protocol]['metrics'][results['primary_metric']]
    mean = np.mean(np.asarray(values, np.float64), axis=0)  # [conditions, seeds] -> [seeds]
    runs.append(mean if results['higher_is_better'] else -mean)
  return np.concatenate(runs)


def _facts(each: Sequence[Mapping[str, Any]], reference: str) -> dict[str, Any]:
  fields = ('dataset', 'data_kind', 'primary_metric', 'modalities', 'num_train', 'num_validation', 'num_test')
  return {
    'divisions': len(each),
    'runs': len(_runs(each, reference, 'complete')),
    **{field: each[0][field] for field in fields},
  }


def _together(among: across.Scores, lowest: Sequence[float], reference: str) -> dict[str, Any]:
  """What all data sets say under one protocol."""
  share = across.normalised(among, lowest)
  thresholds = np.linspace(0, 1, 21)
  return {
    'mean_rank': _estimates(across.mean_ranks(among)),
    'interquartile_mean': _estimates(across.interquartile_mean(share)),
    'improvement': _estimates(across.improvement(among, reference)),
    'profiles': {
      'thresholds': thresholds.tolist(),
      'share_of_runs': {m: x.tolist() for m, x in across.profiles(share, thresholds).items()},
    },
    'matrix': [{'a': a, 'b': b, **entry} for (a, b), entry in across.matrix(among).items()],
  }


def _comparisons(
  each: Sequence[Mapping[str, Any]], protocol: str, reference: str, runs: Mapping[str, np.ndarray], margin: float
) -> list[dict[str, Any]]:
  """The reference against every other method on one data set, more is better, Holm over the opponents.

  Over one division: paired over seeds and test samples. Over several: the corrected test over divisions.
  """
  found = []
  if len(each) == 1:
    sign = 1 if each[0]['higher_is_better'] else -1
    for c in each[0]['comparisons']:
      if c['protocol'] == protocol and c['b'] in runs:
        ends = c['ci95'] and sorted(sign * x for x in c['ci95'])
        found.append({'b': c['b'], 'difference': sign * c['difference'], 'ci95': ends, 'p_holm': c.get('p_holm')})
  else:
    share = each[0]['num_test'] / each[0]['num_train']
    for other in runs:
      if other != reference:
        gap = (runs[reference] - runs[other]).reshape(len(each), -1).mean(1)
        c = across.over_divisions(gap, share)
        found.append({'b': other, 'difference': c.difference, 'ci95': c.ci95, 'p_holm': c.p})
    for entry, p in zip(found, holm([entry['p_holm'] for entry in found]), strict=True):
      entry['p_holm'] = p
  for entry in found:
    entry['verdict'] = across.verdict(entry['difference'], entry['ci95'], entry['p_holm'], margin)
  return found


def _estimates(found: Mapping[str, across.Estimate]) -> dict[str, dict[str, Any]]:
  return {name: e._asdict() for name, e in found.items()}
