"""The tables of a study: results, comparisons, contributions, methods; each a `Table` for terminal and page alike."""

import dataclasses
import math

import numpy as np

from dream_jax.evaluation import intervals, metrics
from dream_jax.report import results as read
from dream_jax.report.table import Table

_LEVEL = 0.05
_BEST = 'Bold or *: best mean among methods without an oracle; it is no test, the comparisons are.'
_UNIT = '± is the half width of the 95 % interval over seeds (Student t; test set fixed).'


def results_table(results: dict, metric: str | None = None) -> Table:
  """Methods x protocols: mean over a protocol's conditions, ± over seeds.

  Args:
    results: content of `results.json`.
    metric: which metric; the primary one by default.
  """
  metric = metric or read.primary(results)[0]
  columns = read.protocols(results)
  cells = [[read.summary(results, m, p, metric) for p in columns] for m in results['methods']]
  title = f'{read.measure(metric).label} by missingness protocol, mean over its conditions'
  return _method_table(results, title, columns, cells, [metric] * len(columns))


def calibration_table(results: dict) -> Table | None:
  """Methods x protocols: what the confidence of predictions is worth; None where it was not measured."""
  metric = next((n for n in ('ece', 'coverage_gap') if n in read.metric_names(results)), None)
  if metric is None:
    return None
  table = results_table(results, metric)
  first = next(iter(results['methods']))
  raw = [(read.summary(results, first, p, 'ece_raw') or {}).get('mean', math.nan) for p in read.protocols(results)]
  style, shown = read.measure('ece_raw'), ''
  if metric == 'ece':
    before = ', '.join(f'{p} {style.number(v)}' for p, v in zip(read.protocols(results), raw, strict=True))
    shown = f' Before it, {read.title(results, first)} has: {before}.'
  note = (
    'Expected calibration error of the predicted class, 15 bins, after one temperature per seed that was fitted on '
    f'validation under the missingness of training.{shown}'
    if metric == 'ece'
    else 'Distance from 90 % of the share of targets inside the interval that held 90 % of the validation targets.'
  )
  return dataclasses.replace(table, title=f'Confidence: {table.title}', note=note)


def metrics_table(results: dict, protocol: str) -> Table:
  """Methods x metrics under one protocol, mean over its conditions."""
  names = [n for n in read.metric_names(results) if _has(results, protocol, n)]
  cells = [[read.summary(results, m, protocol, n) for n in names] for m in results['methods']]
  title = f'{protocol}: every metric, mean over conditions'
  return _method_table(results, title, [read.measure(n).label for n in names], cells, names)


def conditions_table(results: dict, protocol: str, metric: str | None = None) -> Table:
  """Methods x conditions of one protocol; a curve over rates also gets its area (AUILC over the span of the rates)."""
  metric = metric or read.primary(results)[0]
  names = [str(c.get('name')) for c in read.conditions(results, protocol)]
  rates = read.rates(results, protocol)
  columns = [*names, 'AUILC'] if rates is not None else names
  cells = []
  for method in results['methods']:
    values = read.per_seed(results, method, protocol, metric)
    if values is None or len(values) != len(names):
      cells.append([None] * len(columns))
      continue
    row = [intervals.summarise(v) for v in values]
    if rates is not None:
      row.append(intervals.summarise([metrics.auilc(rates, v) for v in values.T]))
    cells.append(row)
  title = f'{protocol}: {read.measure(metric).label} by condition'
  return _method_table(results, title, columns, cells, [metric] * len(columns))


def intervals_table(results: dict) -> Table:
  """Methods x protocols of the primary metric: mean, standard deviation over seeds, interval over seeds and samples."""
  metric, _ = read.primary(results)
  style, columns = read.measure(metric), read.protocols(results)
  rows = []
  for method in results['methods']:
    cells = []
    for protocol in columns:
      found = read.summary(results, method, protocol, metric) or {}
      if found.get('mean') is None:
        cells.append('–')
        continue
      text = style.number(found['mean'])
      text += '' if found.get('std') is None else f' ({style.number(found["std"])})'
      bounds = found.get('ci95_two_way') and read.within_range(metric, found['ci95_two_way'])
      cells.append(text + (f'\n[{style.number(bounds[0])}, {style.number(bounds[1])}]' if bounds else ''))
    rows.append((read.title(results, method), *cells))
  return Table(
    title=f'{style.label}: mean (standard deviation over seeds) [95 % interval over seeds and test samples]',
    columns=('', *columns),
    rows=tuple(rows),
    note='The interval is a two-way bootstrap: another training run, judged on another test set of the same size and '
    'kind. Methods share the test samples: whether two differ is for the comparisons to say.',
  )


def comparison_tables(results: dict) -> list[Table]:
  """A table for every method compared (a) and metric: opponents x protocols, difference, interval and verdict."""
  entries = [e for e in results.get('comparisons') or () if e.get('difference') is not None]
  tables = []
  for a, metric in dict.fromkeys((e['a'], e['metric']) for e in entries):
    chosen = [e for e in entries if (e['a'], e['metric']) == (a, metric)]
    columns = list(dict.fromkeys(e['protocol'] for e in chosen))
    by_place = {(e['b'], e['protocol']): e for e in chosen}
    rows = []
    for b in dict.fromkeys(e['b'] for e in chosen):
      found = [by_place.get((b, p)) for p in columns]
      verdicts = [verdict(results, e) for e in found if e]
      tally = '/'.join(str(verdicts.count(v)) for v in ('win', 'tie', 'loss'))
      rows.append((read.title(results, b), *(_comparison_cell(results, e) for e in found), tally))
    label = read.measure(metric)
    better = 'Above' if higher(results, metric) else 'Below'
    tables.append(
      Table(
        title=f'{read.title(results, a)} minus the others: {label.label.replace(", %", "")}'
        + (' in points' if label.scale == 100 else ''),
        columns=('', *columns, 'win/tie/loss'),
        rows=tuple(rows),
        note=f'{better} zero is better. In brackets the 95 % interval over seeds and test samples (paired two-way '
        f'bootstrap). win or loss: p < {_LEVEL} after Holm correction over the opponents under a protocol; tie: not '
        'told apart, which is not the same as equal.',
      )
    )
  return tables


def verdict(results: dict, comparison: dict) -> str:
  """'win', 'tie' or 'loss' of `a` against `b` by the corrected p value; 'open' without one."""
  p, difference = comparison.get('p_holm'), comparison.get('difference')
  if p is None or not np.isfinite(p) or difference is None:
    return 'open'
  if p >= _LEVEL:
    return 'tie'
  return 'win' if (difference > 0) == higher(results, comparison['metric']) else 'loss'


def higher(results: dict, metric: str) -> bool:
  """Whether more of a metric is better; for the primary one the file decides."""
  name, better = read.primary(results)
  return better if metric == name else metrics.higher_is_better(metric)


def contribution_table(results: dict) -> Table | None:
  """Method and protocol: mean contribution by what became of a slot, gates, AUROC of recognition; None without any."""
  rows = _by_group(results, 'contributions', ('gates', 'soft_mask'), auroc=True)
  if not rows:
    return None
  return _without_empty(
    Table(
      title='Contributions and recognition, mean over conditions, modalities and seeds',
      columns=('', 'protocol', *_GROUPS.values(), 'gate', 'soft mask', 'AUROC of recognition'),
      rows=rows,
      note='Equal shares of a certain prediction contribute 1 - p(target) each. The gate is the share of a slot that '
      'reconstruction replaces. The AUROC says how well the estimate tells removed slots from kept ones: 0.5 is '
      'chance, 1 perfect. Slots that were missing from the start and left so are in neither.',
    )
  )


def presence_table(results: dict) -> Table | None:
  """Method and protocol: mean presence by what became of a slot; None where it was not recorded."""
  rows = _by_group(results, 'presence')
  if not rows:
    return None
  return _without_empty(
    Table(
      title='Presence, mean over conditions, modalities and seeds',
      columns=('', 'protocol', *_GROUPS.values()),
      rows=rows,
      note='The probability that a slot holds real content, as the model sees it: 1 is right for what was kept, 0 for '
      'what was removed or missing.',
    )
  )


def native_table(results: dict) -> Table | None:
  """The primary metric on test samples by what they lack from the start, a column a method; None if they lack nothing.

  A row for every pattern that occurs often, then the samples with and without each modality.
  """
  entries = {m: e['native'] for m, e in results['methods'].items() if e.get('native')}
  if not entries:
    return None
  metric = read.primary(results)[0]
  first = next(iter(entries.values()))
  total = results.get('num_test')
  rows = []

  def row(name, of):
    found = [of(native) for native in entries.values()]
    share = f'{found[0]["count"]:,}' + (f' ({100 * found[0]["count"] / total:.0f} %)' if total else '')
    rows.append((name, share, *(estimate(entry, read.measure(metric)) for entry in found)))

  for number, pattern in enumerate(first['patterns']):
    missing = ', '.join(pattern['missing'])
    row(f'without {missing}' if missing else 'nothing missing', lambda native, i=number: native['patterns'][i])
  for name, parts in first['modalities'].items():
    if parts['without']['count']:
      for side in ('with', 'without'):
        row(f'all {side} {name}', lambda native, n=name, s=side: native['modalities'][n][s])
  return Table(
    title=f'What test samples lack from the start, nothing removed: {read.measure(metric).label}',
    columns=('', 'test samples', *(read.title(results, method) for method in entries)),
    rows=tuple(rows),
    note=f'Samples whose slot holds nothing; the {len(first["patterns"])} most frequent patterns. A dash: fewer than '
    'ten samples. Those with a modality may be easier or harder for other reasons: the difference is no effect of it.',
  )


_GROUPS = {'kept': 'kept slots', 'removed': 'removed slots', 'missing_already': 'missing from the start'}


def _by_group(results, part, more=(), *, auroc=False):
  """Rows of means of a part of the outputs by what became of a slot, then of `more` parts."""
  num = len(results.get('modalities') or ())
  keys = (*(f'{part}_{group}' for group in _GROUPS), *more)
  rows = []
  for method in results['methods']:
    for protocol, record in read.contribution(results, method).items():
      if keys[0] not in record:
        continue
      means = [read.mean(read.by_modality(record, key, num)) for key in keys]
      if auroc:
        means.append(read.mean(np.array(record.get('recognition_auroc') or [None], np.float64)))
      rows.append((read.title(results, method), protocol, *map(_plain, means)))
  return tuple(rows)


def _without_empty(table):
  """The table without the column of what was missing from the start, where nothing was."""
  at = table.columns.index(_GROUPS['missing_already'])
  if any(row[at] != _plain(float('nan')) for row in table.rows):
    return table
  return dataclasses.replace(
    table,
    columns=table.columns[:at] + table.columns[at + 1 :],
    rows=tuple(row[:at] + row[at + 1 :] for row in table.rows),
  )


def scores_table(results: dict) -> Table | None:
  """Scores of the contribution estimate with their intervals; None without any."""
  rows = []
  for method in results['methods']:
    for name, score in read.contribution_scores(results, method).items():
      rows.append((read.title(results, method), name, estimate(score, read.Measure('', 1.0, 3))))
  if not rows:
    return None
  return Table('Quality of the contribution estimate', ('', 'score', 'value'), tuple(rows), _UNIT)


def methods_table(results: dict) -> Table:
  """What each method is: size, seeds, training data, oracle, selection and time."""
  rows, muted = [], set()
  for number, (method, entry) in enumerate(results['methods'].items()):
    params, seeds = entry.get('num_params'), entry.get('seeds') or ()
    oracle = read.uses_oracle(results, method)
    seconds = [entry.get(key) for key in ('train_seconds', 'compile_seconds')]
    rows.append(
      (
        entry.get('title') or method,
        '–' if params is None else f'{params:,}',
        str(len(seeds)),
        str(entry.get('train_regime') or '–'),
        ', '.join(oracle) or 'none',
        str(entry.get('selection') or '–'),
        *('–' if s is None else f'{s:.1f}' for s in seconds),
      )
    )
    if oracle:
      muted.add(number)
  return Table(
    title='Methods',
    columns=('', 'parameters', 'seeds', 'training data', 'oracle', 'selected on', 'training, s', 'compiling, s'),
    rows=tuple(rows),
    note='An oracle is information no user has; such a method marks what would be possible and is no contender.',
    muted=frozenset(muted),
  )


def seeds_text(results: dict) -> str:
  """The number of seeds, or its range where methods differ."""
  counts = read.seed_counts(results)
  return str(counts[0]) if len(counts) == 1 else f'{counts[0]} to {counts[-1]}'


def _method_table(results, title, columns, cells, metric_by_column):
  """Rows are methods; cells are summaries, the best of each column among contenders stressed."""
  names = list(results['methods'])
  oracle = frozenset(r for r, m in enumerate(names) if read.uses_oracle(results, m))
  texts, best = [[read.title(results, m)] for m in names], set()
  for c, metric in enumerate(metric_by_column):
    style, sign = read.measure(metric), 1 if higher(results, metric) else -1
    means = {}
    for r in range(len(names)):
      texts[r].append(estimate(cells[r][c], style))
      if r not in oracle and cells[r][c] and cells[r][c].get('mean') is not None:
        means[r] = round(sign * cells[r][c]['mean'] * style.scale, style.digits)
    best |= {(r, c + 1) for r, v in means.items() if len(means) > 1 and v == max(means.values())}
  interval = _UNIT if max(read.seed_counts(results)) > 1 else 'One seed: no interval over seeds can be given.'
  note = f'{interval} {_BEST}'
  return Table(title, ('', *columns), tuple(map(tuple, texts)), note, frozenset(best), oracle)


def estimate(summary, style):
  """'87.1 ± 0.4', without the interval where there is none, a dash where there is nothing."""
  if not summary or summary.get('mean') is None:
    return '–'
  ci = summary.get('ci95')
  text = style.number(summary['mean'])
  if not ci or not np.isfinite(np.array(ci, np.float64)).all():
    return text
  return f'{text} ± {style.number((ci[1] - ci[0]) / 2)}'


def _comparison_cell(results, comparison):
  if not comparison:
    return '–'
  metric, ci = comparison['metric'], comparison.get('ci95')
  style, ci = read.measure(metric), ci and read.within_range(metric, ci, difference=True)
  bounds = f'\n[{style.signed(ci[0])}, {style.signed(ci[1])}]' if ci else ''
  return f'{style.signed(comparison["difference"])} {verdict(results, comparison)}{bounds}'


def _has(results, protocol, metric):
  return any(read.summary(results, m, protocol, metric) for m in results['methods'])


def _plain(value):
  return f'{value:.3f}' if np.isfinite(value) else '–'
