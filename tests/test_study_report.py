"""Tables and page of a study: standings, worth of modalities, cost, and what selecting on the test split shows."""

import copy
import io
import math
import random
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from test_report import MODALITIES, embedded_images, make_results, write

from dream_jax.report import figures, study_tables
from dream_jax.report import results as read
from dream_jax.report.sections import make_sections
from dream_jax.report.text import as_text

_REGIMES = ('complete', 'modality/0.5')
_LAYOUT = ('modality/zeros', 'subset/zeros')
_SHIFT = {'dream': 0.02, 'audio': -0.01}  # what another checkpoint would have added
_SUMMARY = {'mean': 0.5, 'std': 0.1, 'ci95': [0.4, 0.6]}


def _study(metrics=('accuracy',)):
  """A study made of a run: its methods under two regimes, those of the second a little worse."""
  results = make_results(seeds=3, metrics=metrics, layout=_LAYOUT)
  methods, comparisons = {}, []
  for number, regime in enumerate(_REGIMES):
    suffix = f'@{regime}' if number else ''
    for name, entry in results['methods'].items():
      entry = copy.deepcopy(entry)
      peeked = copy.deepcopy(entry['protocols'])
      for protocol in peeked.values():
        protocol['summary'][metrics[0]]['mean'] += _SHIFT.get(name, 0.001)
      entry |= {
        'method': 'unimodal' if name in MODALITIES else name,
        'modality': name if name in MODALITIES else None,
        'regime': regime,
        'test_selected': {'protocols': peeked} if name != 'majority' else None,
        'train_flops': 3e9,
        'evaluate_seconds': 2.0,
        'wall_seconds': 60.0 + number,
        'gradient_imbalance': [1.5, 1.7, 1.9],
        'gradient_norms': {m: [1.0, 2.0] for m in MODALITIES},
        'gradient_steps': [10, 20],
        'valuation': {
          'modalities': MODALITIES,
          'shapley_share': [0.7, 0.31, -0.01],
          'balance': _SUMMARY,
          'leave_one_out': [0.3, 0.02, -0.004],
          'fidelity': {'soft mask': dict.fromkeys(
            ('spearman_shapley', 'spearman_shapley_inside', 'spearman_leave_one_out', 'auroc_helps'), _SUMMARY
          )},
        },
      }  # fmt: skip
      methods[f'{name}{suffix}'] = entry
    for c in results['comparisons']:
      comparisons.append({**c, 'a': f'dream{suffix}', 'b': f'{c["b"]}{suffix}', 'regime': regime})
  points = [{'inject.rate': 0.5}, {'inject.rate': 0.2}]
  search = {'points': points, 'scores': [0.7, 0.75], 'chosen': points[1], 'compile_seconds': 1.0, 'wall_seconds': 5.0}
  return {
    **results,
    'methods': methods,
    'comparisons': comparisons,
    'regimes': list(_REGIMES),
    'reference': 'dream',
    'search': {'dream': search},
  }


def _row(table, name):
  (row,) = [row for row in table.rows if row[0] == name]
  return dict(zip(table.columns, row, strict=True))


@pytest.mark.parametrize('metric', ['accuracy', 'mae'])
def test_standings_are_mean_ranks_of_contenders(metric):
  results = _study((metric,))
  table = study_tables.standings_table(results)
  names = [m for m in make_results(layout=_LAYOUT)['methods'] if m not in ('majority', 'oracle+dropout')]
  sign = 1 if metric == 'mae' else -1
  ranks = [
    stats.rankdata([sign * read.summary(results, m, p, metric)['mean'] for m in names]) for p in _LAYOUT
  ]  # fmt: skip
  for name, expected in zip(names, np.mean(ranks, axis=0), strict=True):
    row = _row(table, 'DREAM' if name == 'dream' else name)
    assert row['complete'] == row['modality/0.5'] == row['all'] == f'{expected:.1f}'
  assert [float(row[-2]) for row in table.rows] == sorted(float(row[-2]) for row in table.rows)
  assert len(table.rows) == len(names)


def test_without_contenders_there_are_no_standings():
  results = _study()
  results['methods'] = {k: e for k, e in results['methods'].items() if e['method'] in ('majority', 'oracle+dropout')}
  assert study_tables.standings_table(results) is None
  assert as_text(results)


def test_a_row_that_is_better_under_one_regime_stands_better_there():
  results = _study()
  for protocol in results['methods']['audio@modality/0.5']['protocols'].values():
    protocol['summary']['accuracy']['mean'] = 1.0
  row = _row(study_tables.standings_table(results), 'audio')
  assert row['modality/0.5'] == '1.0'
  assert float(row['complete']) > 1.0
  assert float(row['all']) == pytest.approx((1.0 + float(row['complete'])) / 2, abs=0.06)


def test_tallies_count_every_regime_and_protocol():
  results = _study()
  for c in results['comparisons']:
    c |= {'difference': 0.1, 'p_holm': 0.5}
  mine = [c for c in results['comparisons'] if c['b'].startswith('concat+dropout')]
  assert len(mine) == 4
  mine[0]['p_holm'] = mine[1]['p_holm'] = 0.01
  mine[2] |= {'difference': -0.1, 'p_holm': 0.01}
  table = study_tables.standings_table(results)
  assert _row(table, 'concat+dropout')['DREAM wins/ties/losses'] == '2/1/1'
  assert _row(table, 'DREAM')['DREAM wins/ties/losses'] == '–'


@pytest.mark.parametrize(('metric', 'gain'), [('accuracy', '+2.0'), ('mae', '-0.020')])
def test_what_the_habit_shows_stands_apart_and_says_what_it_adds(metric, gain):
  table = study_tables.selection_table(_study((metric,)))
  assert table.title.startswith('NOT A RESULT')
  row = _row(table, 'DREAM')
  assert row['gain'] == gain
  assert {row[0] for row in table.rows} >= {'DREAM', 'audio', 'concat'}
  assert not any('majority' in row[0] for row in table.rows)
  (oracle,) = [i for i, row in enumerate(table.rows) if 'oracle' in row[0]]
  assert oracle in table.muted
  assert table.rows[oracle][-2:] == ('–', '–')


def test_places_change_where_the_habit_changes_them():
  results = _study()
  table = study_tables.selection_table(results)
  own = {row[0]: float(row[1]) for row in table.rows}
  habit = {row[0]: float(row[2]) for row in table.rows}
  contenders = [row for row in table.rows if row[-1] != '–']
  for values, column in ((own, -2), (habit, -1)):
    order = sorted((row[0] for row in contenders), key=lambda name: -values[name])
    places = {row[0]: float(row[column]) for row in contenders}
    assert sorted(places, key=places.get) == order


def test_worth_of_modalities():
  view = read.of_regime(_study(), 'complete')
  row = _row(study_tables.balance_table(view), 'DREAM')
  assert row['audio, share'] == '70 %'
  assert row['lower, share'] == '-1 %'
  assert row['without audio'] == '+30.0'
  assert row['gradient imbalance'] == '1.70'
  assert row['balance'] == '0.50 ± 0.10'
  table = study_tables.fidelity_table(view)
  assert _row(table, 'DREAM: soft mask')['Spearman, Shapley'] == '0.500 ± 0.100'
  assert table.title.endswith('training data: complete')


def test_cost_counts_a_run_once_and_a_search_too():
  row = _row(study_tables.cost_table(_study()), 'DREAM')
  assert row['parameters'] == '123,456'
  assert row['GFLOP'] == '3'
  assert row['compiling, s'] == '25.0'  # twice 12, and the search's
  assert row['search, s'] == '5.0'
  assert row['all, s'] == '126.0'
  # Three rows of single modalities are one run.
  assert _row(study_tables.cost_table(_study()), 'Single modality')['all, s'] == '121.0'


def test_settings_say_what_the_search_gained():
  row = _row(study_tables.settings_table(_study()), 'dream')
  assert (row['inject.rate'], row['point'], row['gain on validation']) == ('0.2', '2 of 2', '+0.0500')


def test_a_run_has_none_of_these_tables():
  results = make_results(layout=_LAYOUT)
  for table in (
    study_tables.standings_table,
    study_tables.selection_table,
    study_tables.balance_table,
    study_tables.fidelity_table,
    study_tables.cost_table,
    study_tables.settings_table,
  ):
    assert table(results) is None


def _spoiled(value, share, rng, holes):
  """The same with a share of its measured numbers undefined; what a search tried is no measurement."""
  if isinstance(value, dict):
    return {k: v if k in ('points', 'chosen') else _spoiled(v, share, rng, holes) for k, v in value.items()}
  if isinstance(value, list):
    return [_spoiled(v, share, rng, holes) for v in value]
  return rng.choice(holes) if isinstance(value, float) and rng.random() < share else value


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
  ('holes', 'share'),
  [([None, math.nan, math.inf, -math.inf], 0.1), ([None, math.nan, math.inf, -math.inf], 1.0), ([None], 1.0)],
  ids=['some', 'all', 'null'],
)
@pytest.mark.parametrize('kind', ['run', 'one seed', 'errors', 'study'])
def test_whatever_is_undefined_is_a_dash(kind, holes, share):
  metrics, seeds = ('mae', 'corr') if kind == 'errors' else ('accuracy',), 1 if kind == 'one seed' else 3
  results = _study() if kind == 'study' else make_results(seeds, metrics, layout=_LAYOUT)
  few = ('dream', 'audio', 'majority', 'oracle+dropout')
  results['methods'] = {key: entry for key, entry in results['methods'].items() if key.split('@')[0] in few}
  results['comparisons'] = [c for c in results['comparisons'] if {c['a'], c['b']} <= set(results['methods'])]
  rng = random.Random(f'{kind} {share} {len(holes)}')
  for part in ('methods', 'comparisons', 'search'):
    results[part] = _spoiled(results.get(part), share, rng, holes)
  for drawing in figures.draw(results):
    Image.open(io.BytesIO(drawing.png)).load()
  page = ''.join(
    content for key, _, content in make_sections(read.defined(results), [], 'runs/x') if key != 'environment'
  )
  for shown in (page, as_text(results)):
    assert not re.search(r'\b(nan|inf|None)\b', shown)
    assert share < 1 or '–' in shown


def test_the_page_has_a_section_for_every_regime_and_sets_the_habit_apart(tmp_path):
  results = _study()
  text = write(tmp_path, results)
  headings = re.findall(r'<h2>(.*?)</h2>', text)
  assert headings[:3] == ['Standings', 'Training data: complete', 'Training data: modality/0.5']
  assert 'Not a result: selection on the test split' in headings
  assert text.index('NOT A RESULT') > text.index('Methods and cost</h2>')
  assert len(embedded_images(text)) == 2 + 1 + 2 + 1
  assert all(f'id="{key}"' in text for key in re.findall(r'href="#([^"]+)"', text))


def test_the_terminal_shows_every_regime_and_ends_with_the_standings():
  text = as_text(_study(), 100)
  assert all(f'=== training data: {regime} ===' in text for regime in _REGIMES)
  assert text.index('NOT A RESULT') < text.index('Standings:')
  assert 'spoken_written_digits (real data), 900 test samples, seeds: 3' in text


@pytest.mark.parametrize('absent', ['valuation', 'test_selected', 'gradient_norms', 'search', 'train_flops', 'summary'])
def test_a_study_without_a_part_still_makes_a_page(tmp_path, absent, monkeypatch):
  results = _study()
  if absent not in ('gradient_norms', 'summary'):  # No figure shows it, and drawing takes most of the time.
    monkeypatch.setattr(figures, 'draw', lambda _: [])
  if absent == 'search':
    results['search'] = None
  elif absent == 'summary':
    for protocol in results['methods']['dream']['protocols'].values():
      protocol['summary'] = {'accuracy': {'mean': None, 'std': None, 'ci95': None}}
      protocol['metrics'] = {}
  else:
    for entry in results['methods'].values():
      entry[absent] = None
  text = write(tmp_path, results)
  assert 'nan' not in re.sub(r'base64,[^"]+|<pre>.*?</pre>', '', text, flags=re.S)
  assert as_text(results)
