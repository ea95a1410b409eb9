"""A suite in tables: mean ranks, verdicts, what the reference gains over each method, and every data set by itself."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from dream_jax.evaluation.across import VERDICTS
from dream_jax.report import page
from dream_jax.report import results as read
from dream_jax.report.table import Table
from dream_jax.workdir import storage


def as_text(results: Mapping[str, Any], width: int = 120) -> str:
  """The tables in lines of at most `width` characters."""
  data = results['data']
  kinds = ', '.join(f'{name} ({facts["runs"]} runs)' for name, facts in data.items())
  return '\n'.join([f'{len(data)} data sets: {kinds}\n', *(table.to_text(width) for table in _tables(results))])


def write(workdir: str | os.PathLike) -> str:
  """Path of `report.html`, written from `results.json` in the same folder."""
  results = read.read_results(workdir)
  sections = [
    (f'table{number}', table.title.partition(':')[0].partition(',')[0], table.to_html())
    for number, table in enumerate(_tables(results))
  ]
  path = storage.place(workdir) / 'report.html'
  name = f'{len(results["data"])} data sets'
  storage.write(path, page.frame(name, sections, _data_table(results).to_html()).encode('utf-8'))
  return os.fspath(path)


def _tables(results: Mapping[str, Any]) -> list[Table]:
  protocols = list(results['protocols'])
  return [
    _ranks(results),
    _verdicts(results),
    _middle(results),
    *(_matrix(results, protocol) for protocol in protocols[:1]),
    *(_means(results, protocol) for protocol in protocols),
  ]


def _title(results: Mapping[str, Any], method: str) -> str:
  return str(results['methods'][method]['title'])


def _number(estimate: Mapping[str, Any], digits: int, scale: float = 1.0) -> str:
  text = f'{scale * estimate["value"]:.{digits}f}'
  ends = estimate['ci95']
  return text if ends is None else f'{text} [{scale * ends[0]:.{digits}f}, {scale * ends[1]:.{digits}f}]'


def _ranks(results: Mapping[str, Any]) -> Table:
  protocols, overall = results['protocols'], results['mean_rank']
  rows = [
    (_title(results, m), _number(overall[m], 1), *(_number(found['mean_rank'][m], 1) for found in protocols.values()))
    for m in overall
  ]
  best = set()
  for column, found in enumerate((overall, *(p['mean_rank'] for p in protocols.values())), start=1):
    values = [found[m]['value'] for m in overall]
    best |= {(row, column) for row, value in enumerate(values) if value == min(values)}
  return Table(
    title='Mean rank over data sets, 1 is best',
    columns=('', 'all protocols', *protocols),
    rows=tuple(rows),
    note='Ranks of means on a data set, their mean over data sets, and its 95 % interval where data sets are '
    'resampled. Oracles and the constant predictor are not ranked.',
    best=frozenset(best),
  )


def _verdicts(results: Mapping[str, Any]) -> Table:
  protocols, reference = list(results['protocols']), results['reference']
  rows = []
  for m in results['methods']:
    if m != reference:
      cells = []
      for group in (protocols, *([p] for p in protocols)):
        said = Counter(c['verdict'] for c in results['comparisons'] if c['b'] == m and c['protocol'] in group)
        cells.append('/'.join(str(said[v]) for v in VERDICTS))
      rows.append((_title(results, m), *cells))
  style = read.measure(results['primary_metric'])
  return Table(
    title=f'{_title(results, reference)} against each method: {"/".join(VERDICTS)}, over data sets',
    columns=('', 'all protocols', *protocols),
    rows=tuple(rows),
    note='Better or worse: p < 0.05 after Holm correction over the methods on a data set under a protocol. '
    f'Equivalent: the 95 % interval lies within {style.scale * results["margin"]:g} of 0. Undecided: the data do not '
    'tell. On data sets that were divided several times the test is the corrected resampled t-test over divisions; '
    'else it is a paired bootstrap over seeds and test samples, which holds the training set fixed.',
    muted=frozenset(
      i for i, m in enumerate(m for m in results['methods'] if m != reference) if not results['methods'][m]['ranked']
    ),
  )


def _middle(results: Mapping[str, Any]) -> Table:
  protocols = results['protocols']
  rows = [
    (_title(results, m), *(_number(found['interquartile_mean'][m], 1, 100) for found in protocols.values()))
    for m in results['mean_rank']
  ]
  return Table(
    title='Interquartile mean of normalised scores, %',
    columns=('', *protocols),
    rows=tuple(rows),
    note='0 is what guessing gives, 100 the best mean on a data set under the protocol. The middle half of all runs of '
    'all data sets; 95 % intervals from runs resampled within data sets.',
  )


def _matrix(results: Mapping[str, Any], protocol: str) -> Table:
  style, reference = read.measure(results['primary_metric']), results['reference']
  improvement = results['protocols'][protocol]['improvement']
  rows = []
  for entry in results['protocols'][protocol]['matrix']:
    if entry['a'] == reference:
      p = '–' if entry['p'] is None else f'{entry["p"]:.3f}'
      gain = {'value': entry['difference'], 'ci95': entry['ci95']}
      rows.append(
        (
          _title(results, entry['b']),
          _number(gain, style.digits, style.scale),
          f'{entry["wins"]}/{entry["ties"]}/{entry["losses"]}',
          p,
          _number(improvement[entry['b']], 2),
        )
      )
  return Table(
    title=f'{_title(results, reference)} minus each method, {protocol}: mean over data sets',
    columns=('', 'difference', 'data sets won/tied/lost', 'p (Wilcoxon)', 'probability of improvement'),
    rows=tuple(rows),
    note='Won, tied, lost by means, whatever their intervals. p: signed-rank test over data sets, not corrected. '
    'Probability that a run of the first is better than a run of the other, mean over data sets.',
  )


def _means(results: Mapping[str, Any], protocol: str) -> Table:
  style, data = read.measure(results['primary_metric']), results['data']
  sign = 1 if results['higher_is_better'] else -1
  methods = list(results['methods'])
  means = [[results['methods'][m]['means'][protocol][n] for n in data] for m in methods]
  best = set()
  for column in range(len(data)):
    among = [means[i][column] for i, m in enumerate(methods) if results['methods'][m]['ranked']]
    best |= {
      (i, column + 1)
      for i, m in enumerate(methods)
      if results['methods'][m]['ranked'] and means[i][column] == max(among)
    }
  return Table(
    title=f'{style.label}, {protocol}: mean over runs and conditions, on each data set',
    columns=('', *data),
    rows=tuple(
      (_title(results, m), *(style.number(sign * value) for value in row))
      for m, row in zip(methods, means, strict=True)
    ),
    best=frozenset(best),
    muted=frozenset(i for i, m in enumerate(methods) if not results['methods'][m]['ranked']),
  )


def _data_table(results: Mapping[str, Any]) -> Table:
  rows = [
    (
      name,
      f['data_kind'],
      ', '.join(f['modalities']),
      f'{f["num_train"]}/{f["num_validation"]}/{f["num_test"]}',
      str(f['divisions']),
      str(f['runs']),
    )
    for name, f in results['data'].items()
  ]
  return Table(
    title='Data sets',
    columns=('', 'kind', 'modalities', 'training/validation/test samples', 'divisions', 'runs'),
    rows=tuple(rows),
    note='Of a data set that is divided anew several times the sizes are those of the first division.',
  )
