"""The report copes with full and with poor results, states what it must, and needs nothing from outside."""

import base64
import copy
import errno
import io
import os
import re

import numpy as np
import pytest
from PIL import Image

from dream_jax.errors import UserError
from dream_jax.evaluation import intervals
from dream_jax.report import page, tables, text
from dream_jax.report import results as read
from dream_jax.report.text import as_text
from dream_jax.workdir import sealed

MODALITIES = ['audio', 'upper', 'lower']
SUBSETS = ['audio', 'upper', 'lower', 'audio+upper', 'audio+lower', 'upper+lower']
LAYOUT = ('modality/zeros', 'modality/noise', 'modality/swap', 'subset/zeros', 'imbalanced/zeros')
FEW = ('modality/zeros', 'modality/noise', 'subset/zeros')
METHODS = {  # accuracy at rate 0 and its fall per unit of rate
  'dream': (0.972, 0.22),
  'majority': (0.102, 0.0),
  'audio': (0.951, 0.80),
  'upper': (0.890, 0.75),
  'lower': (0.902, 0.77),
  'concat': (0.975, 0.62),
  'concat+dropout': (0.970, 0.35),
  'late+dropout': (0.968, 0.30),
  'oracle+dropout': (0.974, 0.20),
}
TITLES = {'dream': 'DREAM', 'oracle+dropout': 'Concat + dropout with the true mask'}


def _protocol(rng, conditions, quality, seeds, metrics):
  start, fall = quality
  values = {}
  for metric in metrics:
    scale = -0.5 if metric == 'mae' else 1.0
    base = [1.2 if metric == 'mae' else 0.0 for _ in conditions]
    rows = []
    for b, c in zip(base, conditions, strict=True):
      rate = c['rate'] if c['rate'] is not None else 0.33 * (3 - c['name'].count('+') - 1)
      rows.append((b + scale * (start - fall * rate) + rng.normal(0, 0.006, seeds)).tolist())
    values[metric] = rows
  summary = {m: intervals.summarise(np.mean(v, axis=0)) for m, v in values.items()}
  return {'conditions': conditions, 'metrics': values, 'summary': summary}


def _contribution(rng, protocols):
  found = {}
  for name, protocol in protocols.items():
    rows = {k: [] for k in ('contributions', 'contributions_kept', 'contributions_removed', 'gates', 'soft_mask')}
    aurocs = []
    for c in protocol['conditions']:
      kept = [1.25, 0.85, 0.9]
      nothing_removed = c['rate'] == 0.0
      removed = [None] * 3 if nothing_removed else (0.15 + 0.05 * rng.random(3)).tolist()
      rows['contributions_kept'].append(kept)
      rows['contributions_removed'].append(removed)
      rows['contributions'].append(kept if nothing_removed else [0.7, 0.5, 0.6])
      rows['gates'].append((0.1 + 0.8 * (c['rate'] or 0.3) + 0.05 * rng.random(3)).tolist())
      rows['soft_mask'].append((0.95 - 0.8 * (c['rate'] or 0.3) + 0.05 * rng.random(3)).tolist())
      aurocs.append(None if nothing_removed else 0.93)
    found[name] = {**rows, 'recognition_auroc': aurocs}
  found['scores'] = {'Spearman with known informativeness': {'mean': 0.62, 'ci95': [0.58, 0.66]}}
  return found


def make_results(seeds=5, metrics=('accuracy', 'f1_weighted', 'uar'), kind='real', layout=LAYOUT):
  rng = np.random.default_rng(0)
  curve = [{'name': f'{r:.1f}', 'rate': r / 1.0} for r in np.round(np.arange(8) / 10, 1).tolist()]
  subset = [{'name': s, 'rate': None} for s in SUBSETS]
  heavy = [{'name': f'{m} .8', 'rate': None} for m in MODALITIES]
  kinds = {'modality': curve, 'subset': subset, 'imbalanced': heavy}
  layout = {p: kinds[p.split('/')[0]] for p in layout}
  methods = {}
  for name, quality in METHODS.items():
    protocols = {p: _protocol(rng, c, quality, seeds, metrics) for p, c in layout.items()}
    methods[name] = {
      'title': TITLES.get(name, name),
      'num_params': 0 if name == 'majority' else 123_456,
      'uses_oracle': ['mask'] if name.startswith('oracle') else [],
      'seeds': list(range(seeds)),
      'selection': 'validation',
      'train_regime': 'complete, 0 to 70 % injected',
      'protocols': protocols,
      'contribution': _contribution(rng, protocols) if name == 'dream' else None,
      'train_seconds': 41.2,
      'compile_seconds': 12.0,
    }
  comparisons = []
  for name, quality in METHODS.items():
    for number, protocol in enumerate(layout if name != 'dream' else ()):
      gap = (0.9 - quality[0] + 0.3 * quality[1]) * (0.2 if number else 1.0)
      p = 0.001 if abs(gap) > 0.02 else 0.4
      ci = [gap - 0.02, gap + 0.02]
      entry = {'a': 'dream', 'b': name, 'protocol': protocol, 'metric': metrics[0], 'difference': gap, 'ci95': ci}
      comparisons.append({**entry, 'p': p, 'p_holm': p})
  return {
    'schema_version': read.SCHEMA_VERSION,
    'dataset': 'spoken_written_digits',
    'data_kind': kind,
    'task': 'regression' if metrics[0] == 'mae' else 'multiclass',
    'num_outputs': 1 if metrics[0] == 'mae' else 10,
    'modalities': MODALITIES,
    'primary_metric': metrics[0],
    'higher_is_better': metrics[0] != 'mae',
    'num_test': 900,
    'num_train': 740,
    'environment': {'versions': {'jax': '0.10.2'}, 'devices': ['cpu']},
    'config': {'name': 'digits', 'note': '<b>&', 'where': 'https://example.org/x'},
    'methods': methods,
    'comparisons': comparisons,
  }


def write(tmp_path, results):
  sealed.write(tmp_path / 'results.json', results)
  path = page.write_report(tmp_path)
  assert path == str(tmp_path / 'report.html')
  return (tmp_path / 'report.html').read_text(encoding='utf-8')


def embedded_images(text):
  return [base64.b64decode(data) for data in re.findall(r'<img src="data:image/png;base64,([^"]+)"', text)]


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  folder = tmp_path_factory.mktemp('report')
  return folder, write(folder, make_results())


def test_figures_decode_and_are_the_files(full):
  folder, text = full
  images = embedded_images(text)
  files = sorted((folder / 'figures').glob('*.png'))
  assert len(images) == len(files) == 5 + 1 + 5
  assert sorted(images) == sorted(f.read_bytes() for f in files)
  for data in images:
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == 'PNG'
    assert image.width > 500
    assert image.height > 300
    assert len(np.unique(np.asarray(image.convert('L')))) > 20  # something was drawn


def test_page_loads_nothing_from_outside(full):
  _, text = full
  resources = re.findall(r'(?:src|href|srcset|poster|data|action)\s*=\s*["\']?([^"\'\s>]+)', text)
  assert resources
  assert all(r.startswith(('data:image/png', '#')) for r in resources)
  assert not re.search(r'url\(|@import|<script|<link|<iframe|javascript:', text)
  assert "default-src 'none'" in text


def test_page_states_what_it_must(full):
  _, text = full
  for phrase in (
    'Real data.', '5 per method', 'chosen on validation', 'Only the abstract', 'Holm', '900 for testing', '0.10.2',
    'Concat + dropout with the true mask [oracle: mask]', 'Spearman with known informativeness',
  ):  # fmt: skip
    assert phrase in text, phrase
  assert '&lt;b&gt;&amp;' in text
  assert '<b>&' not in text
  assert all(f'id="{key}"' in text for key in re.findall(r'href="#([^"]+)"', text))


def test_synthetic_data_are_announced(tmp_path, monkeypatch):
  monkeypatch.setattr(page.figures, 'draw', lambda _: [])  # Drawing takes most of the time.
  text = write(tmp_path, make_results(kind='synthetic', layout=FEW[:1]))
  assert 'Synthetic data.' in text
  assert 'nothing about real data' in text
  assert 'Real data.' not in text


def _poor(name):
  metrics = ('mae', 'corr') if name == 'regression' else ('accuracy',)
  # Drawing takes most of the time: of each kind of figure one, but where a second one has the holes.
  layout = FEW if name == 'holes' else (FEW[0], FEW[2])
  results = make_results(seeds=1 if name == 'one seed' else 3, metrics=metrics, layout=layout)
  dream = results['methods']['dream']
  if name == 'no contribution':
    dream['contribution'] = None
  elif name == 'no comparisons':
    results['comparisons'] = []
  elif name == 'bare':
    for key in set(results) - {'schema_version', 'dataset', 'task', 'primary_metric', 'methods'}:
      del results[key]
    curve = {'conditions': [{'name': 'complete', 'rate': None}], 'metrics': {'accuracy': [[0.5, 0.6]]}}
    results['methods'] = {'dream': {'protocols': {'complete': curve}}}
  elif name == 'holes':
    dream['protocols']['modality/zeros']['metrics']['accuracy'][2] = [None, 0.5, float('nan')]
    dream['protocols']['modality/zeros']['summary']['accuracy'] = {'mean': None, 'std': None, 'ci95': None}
    dream['protocols']['subset/zeros'] = None
    results['methods']['concat']['protocols'] = {}
    results['methods']['audio']['protocols']['modality/noise']['metrics'] = {}
    dream['contribution']['modality/zeros']['contributions_removed'] = [None] * 8
    del dream['contribution']['modality/noise']['gates'], dream['contribution']['modality/noise']['soft_mask']
    results['comparisons'][0]['p_holm'] = None
    results['comparisons'][1]['ci95'] = None
    results['comparisons'][2]['difference'] = None
  elif name == 'nothing finite':
    for entry in results['methods'].values():
      entry['protocols']['modality/zeros']['metrics']['accuracy'] = [[None] * 3] * 8
      entry['protocols']['modality/zeros']['summary'] = {}
      entry['protocols']['subset/zeros']['metrics']['accuracy'] = [[None] * 3] * 6
  return results


@pytest.mark.parametrize(
  'name', ['one seed', 'regression', 'no contribution', 'no comparisons', 'bare', 'holes', 'nothing finite']
)
def test_poor_results_still_make_a_page(tmp_path, name):
  results = _poor(name)
  text = write(tmp_path, results)
  for data in embedded_images(text):
    Image.open(io.BytesIO(data)).load()
  assert 'nan' not in re.sub(r'base64,[^"]+|<pre>.*?</pre>', '', text, flags=re.S)
  if name == 'one seed':
    assert 'One seed: no interval' in text
    assert 'one seed: no band' in text
  if name == 'regression':
    assert 'MAE, lower is better' in text
    assert 'MAE, %' not in text
  if name == 'bare':
    assert 'Data kind not recorded' in text
    assert '2 per method' in text
    assert 'id="comparisons"' not in text
  assert ('id="contributions"' in text) == (name not in ('no contribution', 'bare'))
  assert as_text(results)


def test_stale_figures_go_and_foreign_files_stay(tmp_path):
  results = make_results(seeds=2, layout=(FEW[2],))
  write(tmp_path, results)
  folder = tmp_path / 'figures'
  assert len(list(folder.iterdir())) == 3
  (folder / 'mine.png').write_bytes(b'x')
  results['comparisons'], results['methods']['dream']['contribution'] = [], None
  write(tmp_path, results)
  assert {f.name for f in folder.iterdir()} - {'mine.png'} == {'conditions_subset-zeros.png'}
  assert (folder / 'mine.png').exists()


@pytest.mark.parametrize(
  'content',
  [None, '{"methods": ', '[]', {'methods': {}}, {'schema_version': 9, 'methods': {'a': {}}}, b'\xff\xfe{', '{"a": 1}'],
)
def test_missing_or_broken_results_are_one_clear_line(tmp_path, content):
  if isinstance(content, dict):
    sealed.write(tmp_path / 'results.json', content)
  elif content is not None:
    (tmp_path / 'results.json').write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(UserError) as error:
    page.write_report(tmp_path)
  message = str(error.value)
  assert '\n' not in message
  assert 'results.json' in message
  assert len(message) > 40
  assert not (tmp_path / 'report.html').exists()


def test_tables_of_a_workdir_that_cannot_be_written_to(tmp_path, monkeypatch, capsys):
  sealed.write(tmp_path / 'results.json', make_results(seeds=2, layout=FEW))
  monkeypatch.setattr(page.figures, 'draw', lambda _: [])

  def refuse(number):
    def write(path, _):
      raise OSError(number, os.strerror(number), str(path))

    return write

  monkeypatch.setattr(page.storage, 'write', refuse(errno.EROFS))
  text.show(tmp_path)
  said = capsys.readouterr().out
  assert 'Accuracy' in said
  assert f'report: not made again (Read-only file system: {tmp_path}/report.html)' in said
  monkeypatch.setattr(page.storage, 'write', refuse(errno.ENOSPC))
  with pytest.raises(OSError, match='No space'):
    text.show(tmp_path)


def test_results_table_holds_mean_and_half_width():
  results = make_results()
  table = tables.results_table(results)
  values = np.mean(results['methods']['dream']['protocols']['modality/noise']['metrics']['accuracy'], axis=0)
  summary = intervals.summarise(100 * values)
  assert table.rows[0][2] == f'{summary["mean"]:.1f} ± {summary["ci95"][1] - summary["mean"]:.1f}'
  assert table.columns[1:] == tuple(read.protocols(results))


def test_best_is_stressed_among_contenders_only_and_by_direction():
  results = make_results()
  table = tables.results_table(results)
  oracle = list(results['methods']).index('oracle+dropout')
  assert oracle in table.muted
  assert not any(r == oracle for r, _ in table.best)
  assert {c for _, c in table.best} == set(range(1, 6))
  assert (0, 1) in table.best  # dream under modality/zeros
  lower = make_results(metrics=('mae',))
  means = {
    m: read.summary(lower, m, 'modality/zeros', 'mae')['mean'] for m in lower['methods'] if m != 'oracle+dropout'
  }
  stressed = [list(lower['methods'])[r] for r, c in tables.results_table(lower).best if c == 1]
  assert stressed == [min(means, key=means.get)]


def test_verdicts_follow_the_corrected_p_value_and_the_direction():
  results = make_results()
  entry = {'a': 'dream', 'b': 'x', 'metric': 'accuracy', 'difference': 0.1, 'p': 0.001, 'p_holm': 0.01}
  assert tables.verdict(results, entry) == 'win'
  assert tables.verdict(results, entry | {'difference': -0.1}) == 'loss'
  assert tables.verdict(results, entry | {'p_holm': 0.06}) == 'tie'
  assert tables.verdict(results, entry | {'p_holm': None}) == 'open'
  assert tables.verdict(results, entry | {'metric': 'mae'}) == 'loss'
  lower = copy.deepcopy(results) | {'primary_metric': 'mae', 'higher_is_better': False}
  assert tables.verdict(lower, entry | {'metric': 'mae', 'difference': -0.1}) == 'win'


def test_area_under_the_curve_is_in_the_table_of_conditions():
  table = tables.conditions_table(make_results(), 'modality/zeros')
  assert table.columns[-1] == 'AUILC'
  assert table.rows[0][-1].startswith('89.')
  assert 'AUILC' not in tables.conditions_table(make_results(), 'subset/zeros').columns


def test_text_tables_fit_the_terminal():
  text = as_text(make_results(), width=90)
  table = tables.results_table(make_results()).to_text(90)
  lines = table.splitlines()
  assert max(len(line) for line in lines[1:-1]) <= 90
  assert table.count('DREAM') >= 2  # continued below with the names again
  assert 'spoken_written_digits (real data), 900 test samples, seeds: 5' in text


def test_intervals_are_shown_as_far_as_the_metric_goes():
  results = make_results()
  dream = results['methods']['dream']['protocols']['modality/zeros']
  dream['summary']['accuracy']['ci95_two_way'] = [0.93, 1.04]
  assert tables.intervals_table(results).rows[0][1].endswith('\n[93.0, 100.0]')
  dream['metrics']['accuracy'][0] = [1.0, 1.0, 1.0, 1.0, 0.9]
  dream['metrics']['accuracy'][1] = [0.0, 0.0, 0.0, 0.0, 0.1]
  curve = read.curve(results, 'dream', 'modality/zeros', 'accuracy')
  assert curve.high[0] == 1.0
  assert curve.low[1] == 0.0
  assert read.within_range('mae', (-0.2, 4.0)) == (0.0, 4.0)
  assert read.within_range('accuracy', (-1.2, -0.4), difference=True) == (-1.0, -0.4)
  assert read.within_range('unheard of', (-1.2, 4.0)) == (-1.2, 4.0)
