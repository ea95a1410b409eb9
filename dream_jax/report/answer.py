"""What results say, in sentences: which method to use, what each modality is worth, how it holds up, what is not known.

Every sentence has its figure and how sure it is. What was not measured is said, and how to measure it.
"""

from typing import Any

import numpy as np

from dream_jax.evaluation import intervals
from dream_jax.report import results as read
from dream_jax.report import tables
from dream_jax.report.table import Table

_FILLS = {'zeros': 'zeros stand there', 'noise': 'noise stands there', 'swap': "another sample's content stands there"}
_FEW_SEEDS = 3


def sentences(results: dict[str, Any]) -> dict[str, list[str]]:
  """Question -> answers, of a run or of the first regime of a study; {} where no trained method is fit for use.

  Args:
    results: the content of `results.json`, see `results.defined`.
  """
  regimes = read.regimes(results)
  if regimes:
    results = read.of_regime(results, regimes[0])
  chosen = ranked(results)
  if not chosen:
    return {}
  best = chosen[0]
  answers = {
    'Which method to use': _which(results, chosen),
    'Which modalities matter': _modalities(results, best),
    'How it holds up': _robustness(results, best),
    'What is not known': _unknown(results, best),
  }
  return {question: said for question, said in answers.items() if said}


def as_text(results: dict[str, Any]) -> str:
  """The same in lines for a terminal."""
  lines = []
  for question, said in sentences(results).items():
    lines += [f'{question}:', *(f'  - {sentence}' for sentence in said)]
  return '\n'.join(lines)


def ranked(results: dict[str, Any]) -> list[str]:
  """Rows of methods that can be used and were selected alike, best on validation first.

  A method that trains without injection is validated on data of which nothing is missing: its score is no other's.

  Args:
    results: of a run, or of one regime of a study.
  """
  fit = {
    name: entry
    for name, entry in results['methods'].items()
    if not entry.get('uses_oracle') and not entry.get('modality') and np.isfinite(validation_score(entry))
  }
  if not fit:
    return []
  regime = next(iter(fit.values())).get('train_regime')
  alike = [name for name, entry in fit.items() if entry.get('train_regime') == regime]
  return sorted(alike, key=lambda name: -validation_score(fit[name]))


def validation_score(entry: dict[str, Any]) -> float:
  """Mean score of the selected parameters over seeds, higher is better; NaN where there is none."""
  return float(np.mean(np.array(entry.get('validation_score') or [np.nan], np.float64)))


def _which(results, chosen) -> list[str]:
  best, *others = chosen
  title = read.title(results, best)
  if not others:
    return [f'{title} is the only method here that was trained for missing modalities: there is nothing to choose.']
  metric, higher = read.primary(results)
  style = read.measure(metric)
  first, second = (validation_score(results['methods'][name]) for name in (best, others[0]))
  # Regression is selected by minus the error.
  shown = [_value(style, value if higher else -value) for value in (first, second)]
  score = f'{_name(style)} {shown[0]}; next {read.title(results, others[0])}, {shown[1]}'
  among = f'under the missingness of training, it is the best of {len(chosen)} methods'
  said = [f'Use {title}. On validation samples, {among}: {score}.']
  for name in others:
    found = [_verdict(results, best, name, c) for c in results.get('comparisons') or ()]
    ahead, level, behind = (found.count(kind) for kind in ('win', 'tie', 'loss'))
    if ahead + level + behind:
      said.append(
        f'On test samples it is significantly better than {read.title(results, name)} under {ahead} of '
        f'{ahead + level + behind} protocols, worse under {behind}, not told apart under {level}.'
      )
  return said


def _verdict(results, best, other, comparison) -> str | None:
  """'win', 'tie' or 'loss' of `best` against `other`; None for another pair."""
  pair = (comparison.get('a'), comparison.get('b'))
  if pair not in ((best, other), (other, best)):
    return None
  verdict = tables.verdict(results, comparison)
  if pair == (best, other):
    return verdict
  return {'win': 'loss', 'loss': 'win'}.get(verdict, verdict)


def _modalities(results, method) -> list[str]:
  names = list(results.get('modalities') or ())
  if len(names) < 2:
    return ['There is one modality: nothing to fuse.'] if names else []
  protocol = subset_protocol(results)
  losses = {} if protocol is None else {name: removal_cost(results, method, protocol, name) for name in names}
  losses = {name: loss for name, loss in losses.items() if loss is not None}
  if not losses:
    return ["What losing each modality costs was not measured: add 'subset/zeros' to config.protocols."]
  metric, higher = read.primary(results)
  style = read.measure(metric)
  said = []
  for name, loss in sorted(losses.items(), key=lambda item: -item[1].mean()):
    summary = intervals.summarise(loss)
    ci = summary['ci95']
    cost = f'Without {name} {_name(style)} {"falls" if higher else "rises"} by {_cost(style, loss.mean(), ci)}'
    if ci is None:
      said.append(f'{cost} (one seed: no interval).')
    elif ci[0] > 0:
      said.append(f'{cost}: it matters.')
    elif ci[1] < 0:
      said.append(f'Without {name} {_name(style)} gets better by {_cost(style, -loss.mean(), ci)}: it does harm.')
    else:
      said.append(f'{cost}, which is not told apart from nothing.')
  said.append(
    f'This is the cost of removal ({protocol}, test samples, interval over seeds). Contributions say something else: '
    'how much of a single prediction came from a modality while others were there, too.'
  )
  return said


def subset_protocol(results: dict[str, Any]) -> str | None:
  """The first protocol that keeps subsets of modalities."""
  return next((p for p in read.protocols(results) if p.partition('/')[0] == 'subset'), None)


def modality_table(results: dict[str, Any]) -> Table | None:
  """The best method, a row a modality: contribution, the metric from it alone and without it; None if unknown.

  Args:
    results: of a run, or of one regime of a study.
  """
  best, names, protocol = ranked(results), list(results.get('modalities') or ()), subset_protocol(results)
  if not best or len(names) < 2:
    return None
  method, metric = best[0], read.primary(results)[0]
  style, num = read.measure(metric), len(names)
  record = read.contribution(results, method).get('complete') or {}
  shares = read.by_modality(record, 'contributions', num)
  rows = []
  for m, name in enumerate(names):
    contribution = '–' if shares is None or not np.isfinite(shares[0, m]) else f'{shares[0, m]:.3f}'
    alone = None if protocol is None else _of_subset(results, method, protocol, name)
    own = read.summary(
      results, next((k for k, e in results['methods'].items() if e.get('modality') == name), ''), 'complete', metric
    )
    cost = None if protocol is None else removal_cost(results, method, protocol, name)
    cost = None if cost is None else intervals.summarise(cost)
    rows.append((name, contribution, *(tables.estimate(found, style) for found in (alone, own, cost))))
  if all(cell == '–' for row in rows for cell in row[1:]):
    return None
  return Table(
    title=f'{read.title(results, method)}, by modality: {style.label}',
    columns=('', 'mean contribution', 'from it alone', 'a model of it alone', 'lost without it'),
    rows=tuple(rows),
    note='Complete test samples. From it alone: the same model, all others removed. ± over seeds.',
  )


def _of_subset(results, method, protocol, kept):
  values = read.per_seed(results, method, protocol, read.primary(results)[0])
  places = [i for i, c in enumerate(read.conditions(results, protocol)) if c.get('name') == kept]
  return intervals.summarise(values[places[0]]) if values is not None and places else None


def removal_cost(results: dict[str, Any], method: str, protocol: str, name: str) -> np.ndarray | None:
  """How much worse a method is without one modality under a subset protocol, [S]; above 0 is worse, None if unknown."""
  metric, higher = read.primary(results)
  whole = read.per_seed(results, method, 'complete', metric)
  parts = read.per_seed(results, method, protocol, metric)
  kept = '+'.join(n for n in results['modalities'] if n != name)
  places = [i for i, c in enumerate(read.conditions(results, protocol)) if c.get('name') == kept]
  if whole is None or parts is None or not places:
    return None
  loss = (whole[0] - parts[places[0]]) * (1 if higher else -1)
  return loss if np.isfinite(loss).all() else None


def _robustness(results, method) -> list[str]:
  metric = read.primary(results)[0]
  style, said = read.measure(metric), []
  whole = read.summary(results, method, 'complete', metric)
  if not whole:
    return []
  said.append(f'With nothing removed {_name(style)} is {_estimate(style, whole)}.')
  for fill, words in _FILLS.items():
    protocol = f'modality/{fill}'
    rates, found = read.rates(results, protocol), read.summary(results, method, protocol, metric)
    if protocol not in read.protocols(results) or not found or rates is None:
      continue
    sentence = (
      f'Where modalities are missing and {words} it is {_estimate(style, found)}, mean over rates from '
      f'{min(rates):g} to {max(rates):g}'
    )
    curve = read.curve(results, method, protocol, metric)
    if curve is not None:
      sentence += f'; at {max(rates):g} it is {_value(style, curve.mean[int(np.argmax(rates))])}'
    said.append(f'{sentence}.')
  return said


def _unknown(results, method) -> list[str]:
  metric = read.primary(results)[0]
  style, said = read.measure(metric), []
  entry = results['methods'][method]
  ci = (read.summary(results, method, 'complete', metric) or {}).get('ci95_two_way')
  if ci and results.get('num_test'):
    half = _cost(style, (ci[1] - ci[0]) / 2, None)
    said.append(f'Other test samples: with {results["num_test"]:,} of them complete data are known to ± {half}.')
  if len(entry.get('seeds') or ()) < _FEW_SEEDS:
    said.append(
      f'Another training: {len(entry.get("seeds") or ())} seed(s) say little of it; set config.num_seeds to 5.'
    )
  missing = [f for f in _FILLS if f'modality/{f}' not in read.protocols(results)]
  if missing:
    wanted = ', '.join(f"'modality/{fill}'" for fill in missing)
    said.append(f'How it holds up to {", ".join(missing)}: add {wanted} to config.protocols.')
  native = entry.get('native')
  if native and results.get('num_test'):
    parts = [
      f'{100 * found["without"]["count"] / results["num_test"]:.0f} % lack {name}'
      for name, found in native['modalities'].items()
      if found['without']['count']
    ]
    said.append(
      f'Complete samples: of the test samples {", ".join(parts)} from the start. "Complete" means that nothing more '
      'was removed.'
    )
  if results.get('data_kind') != 'real':
    said.append('Anything about real data: these are not.')
  return said


def _name(style) -> str:
  """What a metric is called in a sentence."""
  return style.label.removesuffix(', %')


def _value(style, value) -> str:
  return style.number(value) + _percent(style)


def _estimate(style, summary) -> str:
  return tables.estimate(summary, style) + _percent(style)


def _cost(style, mean, ci) -> str:
  half = '' if ci is None else f' ± {style.number((ci[1] - ci[0]) / 2)}'
  return f'{style.number(mean)}{half}{" points" if _percent(style) else ""}'


def _percent(style) -> str:
  return ' %' if style.label.endswith(', %') else ''
