"""A study makes what is missing and nothing else, whatever interrupted it, and ends where an undisturbed one does."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from small_runs import FAST_COMPILE, optax_promotes, small_config, small_dataset  # noqa: F401

from dream_jax.config.recipe import recipe_from_config
from dream_jax.errors import UserError
from dream_jax.experiments import engine, experiment, units, workbench
from dream_jax.missingness.missing import Missing
from dream_jax.missingness.regimes import regime
from dream_jax.report.page import write_report
from dream_jax.training import feed, programs, train
from dream_jax.workdir import method_files
from dream_jax.workdir.config_guard import write_config

_PROGRAMS = {}  # Of all tests here: compiling is most of their time.
_ROOT = Path(__file__).resolve().parent.parent


def _config(**overrides):
  return small_config(
    **{
      'protocols': ('modality/zeros', 'subset/noise'),
      'study__methods': ('concat+dropout', 'unimodal', 'majority', 'oracle+dropout'),
      'study__regimes': ('complete', 'modality/0.5'),
      'train__num_evals': 2,
      'model__name': 'late+dropout',
      **overrides,
    }
  )


@pytest.fixture
def data(monkeypatch):
  """Two light modalities in the place of whatever the config names; one device and fast compilation."""
  dataset = small_dataset('multiclass', names=('face', 'pose'), train=24, validation=8, test=12)
  types = (AxisType.Auto, AxisType.Auto)
  mesh = jax.make_mesh((1, 1), ('seed', 'data'), devices=jax.devices()[:1], axis_types=types)
  monkeypatch.setattr(workbench, 'load_dataset', lambda *_, **__: dataset)
  for module in (programs, feed):
    monkeypatch.setattr(module, 'mesh_of', lambda _: mesh)
    monkeypatch.setattr(module, 'compiler_options', lambda **_: FAST_COMPILE)
  compile_programs = programs.compile_programs

  def compile_once(method, recipe, prepared, *, runs, **rest):
    key = (programs.program_key(method, recipe, prepared.spec, runs), tuple(rest.values()), recipe.train.batch_size)
    if key not in _PROGRAMS:
      _PROGRAMS[key] = compile_programs(method, recipe, prepared, runs=runs, **rest)
    return _PROGRAMS[key]

  monkeypatch.setattr(train, 'compile_programs', compile_once)
  return dataset


@pytest.fixture
def done(monkeypatch):
  """Titles of the runs that were really made."""
  made = []
  do = engine.Engine._do

  def spy(self, unit, *rest):
    made.append(self._plan.title(unit))
    return do(self, unit, *rest)

  monkeypatch.setattr(engine.Engine, '_do', spy)
  return made


def _without_times(value):
  if isinstance(value, dict):
    return {k: _without_times(v) for k, v in value.items() if not k.endswith('_seconds') and k != 'seal'}
  return [_without_times(v) for v in value] if isinstance(value, list) else value


def _results(workdir) -> dict:
  return json.loads((Path(workdir) / 'results.json').read_text())


def test_a_study_from_the_first_run_to_the_last(data, done, tmp_path, capsys):
  workdir = str(tmp_path / 'study')
  experiment.study(_config(), workdir)
  out = capsys.readouterr().out
  assert '[10/10]' in out
  assert 'batches are made there' in out
  assert len(done) == 10
  results = _results(workdir)
  names = ('late+dropout', 'concat+dropout', *(f'unimodal/{n}' for n in data.spec.names), 'majority', 'oracle+dropout')
  assert tuple(results['methods']) == (*names, *(f'{name}@modality/0.5' for name in names))
  entry = results['methods']['concat+dropout@modality/0.5']
  assert entry['regime'] == 'modality/0.5'
  assert 'modality/0.5' in entry['train_regime']
  assert set(entry['protocols']) == {'complete', 'modality/zeros', 'subset/noise'}
  assert set(entry['test_selected']['protocols']) == set(entry['protocols'])
  assert len(entry['gradient_imbalance']) == 2
  assert min(entry['gradient_imbalance']) >= 1
  assert entry['train_flops'] > 0
  assert entry['valuation']['fidelity']
  assert results['methods']['majority']['valuation'] is None
  pairs = {(c['a'], c['b']) for c in results['comparisons']}
  assert ('late+dropout@modality/0.5', 'oracle+dropout@modality/0.5') in pairs
  assert len(results['comparisons']) == 2 * 3 * (len(names) - 1)
  # Selected parameters stay, what training resumes from does not.
  folders = {path.parent.name for path in Path(workdir).glob('runs/*/checkpoints/*/best')}
  assert folders == {'late+dropout', 'concat+dropout', 'unimodal', 'oracle+dropout'}
  assert not list(Path(workdir).glob('runs/*/checkpoints/*/state'))

  # The same again makes nothing and changes nothing.
  del done[:]
  before = {path: path.read_bytes() for path in Path(workdir).glob('runs/**/*') if path.is_file()}
  experiment.study(_config(), workdir)
  assert done == []
  assert {path: path.read_bytes() for path in Path(workdir).glob('runs/**/*') if path.is_file()} == before
  assert _results(workdir) == results

  # Another method's loss is nobody else's business; another budget is everybody's.
  experiment.study(_config(losses__coalition=0.1, model__sharpness=0.1), workdir)
  assert done == []
  experiment.study(_config(study__methods=('concat+dropout', 'late', 'majority')), workdir)
  assert done == ['late, complete', 'late, modality/0.5']
  assert 'oracle+dropout' not in _results(workdir)['methods']


@pytest.mark.slow
def test_only_what_a_change_touches_is_made_again(data, done, tmp_path, monkeypatch, capsys):
  config = _config(study__methods=('concat+dropout',), study__regimes=('complete',), model__name='late+dropout')
  experiment.study(config, str(tmp_path))
  del done[:]
  digest = units.code_digest
  monkeypatch.setattr(units, 'code_digest', lambda m: digest(m) + ('edited' if m.name == 'concat+dropout' else ''))
  experiment.study(config, str(tmp_path))
  assert done == ['concat+dropout, complete']
  assert 'concat+dropout, complete: concat+dropout@complete-' in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_study_goes_on_after_the_last_finished_run(data, done, tmp_path, monkeypatch):
  config = _config(study__methods=('concat+dropout', 'majority'), study__valuation=False)
  whole, killed = str(tmp_path / 'whole'), str(tmp_path / 'killed')
  experiment.study(config, whole)
  write, count = method_files.write_method, []

  def die_before_the_third(*arguments, **rest):
    count.append(arguments)
    if len(count) == 3:
      raise KeyboardInterrupt
    write(*arguments, **rest)

  with monkeypatch.context() as patch:
    patch.setattr(method_files, 'write_method', die_before_the_third)
    with pytest.raises(KeyboardInterrupt):
      experiment.study(config, killed)
  del done[:]
  experiment.study(config, killed)
  assert len(done) == 6 - 2
  assert _without_times(_results(killed)) == _without_times(_results(whole))


@pytest.mark.slow
def test_the_search_trains_all_points_at_once_and_takes_the_best_on_validation(data, done, tmp_path):
  fields = (('optimizer.learning_rate', 'log', 1e-7, 1e-6), ('inject.rate', 'linear', 0.1, 0.6))
  config = _config(
    study__methods=(), study__regimes=('complete',), study__search__points=4, study__search__seeds=2,
    study__search__fields=fields, train__epochs=6,
  )  # fmt: skip
  experiment.study(config, str(tmp_path))
  assert done == ['late+dropout, search of settings', 'late+dropout, complete']
  found = _results(tmp_path)['search']['late+dropout']
  assert len(found['points']) == len(found['scores']) == 4
  assert found['chosen'] == found['points'][int(np.argmax(found['scores']))]
  # The config's own rate is the only one that learns anything.
  assert found['chosen']['optimizer.learning_rate'] == pytest.approx(config.optimizer.learning_rate)
  assert _results(tmp_path)['methods']['late+dropout']['settings'] == found['chosen']
  drawn = [point['optimizer.learning_rate'] for point in found['points'][1:]]
  assert all(0.9e-7 <= value <= 1.1e-6 for value in drawn)
  assert len(set(drawn)) == 3


@pytest.mark.slow
def test_points_of_a_search_that_diverge_are_not_chosen(data, done, tmp_path):
  config = _config(
    study__methods=(), study__regimes=('complete',), study__search__points=3, study__valuation=False,
    study__search__fields=(('optimizer.weight_decay', 'log', 9e3, 1e4),), optimizer__learning_rate=1.0,
  )  # fmt: skip
  experiment.study(config, str(tmp_path / 'some'))
  found = _results(tmp_path / 'some')['search']['late+dropout']
  assert found['scores'][0] is not None
  assert found['scores'][1:] == [None, None]
  assert found['chosen'] == found['points'][0]
  del done[:]
  config.optimizer.weight_decay = 1e4
  with pytest.raises(UserError, match=r'late\+dropout: all 3 points of the search diverged'):
    experiment.study(config, str(tmp_path / 'all'))
  config.study.search.points = 0
  with pytest.raises(UserError, match=r'late\+dropout diverged .*\(1 now\)'):
    experiment.study(config, str(tmp_path / 'none'))


@pytest.mark.slow
def test_without_valuation_and_peeking_there_is_neither(data, tmp_path):
  config = _config(
    study__methods=(), study__regimes=('complete',), study__peek=False, study__valuation=False
  )  # fmt: skip
  experiment.study(config, str(tmp_path))
  entry = _results(tmp_path)['methods']['late+dropout']
  assert entry['valuation'] is None
  assert entry['test_selected'] is None


@pytest.mark.slow
def test_peeking_does_not_change_what_validation_selects(data, tmp_path):
  kept = {}
  for peek in (False, True):
    config = _config(study__methods=(), study__regimes=('complete',), study__peek=peek, train__epochs=6)
    experiment.study(config, str(tmp_path / str(peek)))
    entry = _results(tmp_path / str(peek))['methods']['late+dropout']
    kept[peek] = {name: entry[name] for name in ('protocols', 'best_step', 'validation_score')}
  assert kept[False] == kept[True]


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'study__methods': ('concatt',)}, "unknown method 'concatt'; did you mean"),
    ({'study__regimes': ('modality/1.5',)}, r'has the rate 1\.5; expected at least 0 and below 1'),
    ({'study__regimes': ('half',)}, "unknown training regime 'half'"),
    ({'study__regimes': ()}, 'regimes is empty'),
    ({'study__search__points': 3}, 'search.fields is empty'),
    (
      {'study__search__points': 3, 'study__search__fields': (('model.width', 'linear', 1.0, 2.0),)},
      "'model.width' cannot be searched; expected one of optimizer.learning_rate",
    ),
    (
      {'study__search__points': 3, 'study__search__fields': (('inject.rate', 'linear', 0.5, 0.2),)},
      r'inject\.rate is .* expected .*lowest and highest',
    ),
    ({'protocols': ('modality/ones',)}, r"config\.protocols\[0\] is 'modality/ones'"),
    ({'train_missing__kind': 'modality', 'train_missing__rate': 0.5}, 'config.study.regimes'),
  ],
)
def test_mistakes_are_told_before_anything_is_trained(data, done, tmp_path, overrides, message):
  with pytest.raises(UserError, match=message):
    experiment.study(_config(**overrides), str(tmp_path / 'w'))
  assert not (tmp_path / 'w').exists()
  assert done == []


def test_the_workdir_of_another_mode_is_left_alone(data, done, tmp_path):
  write_config(tmp_path, {}, 'train data hash')
  before = (tmp_path / 'config.json').read_bytes()
  with pytest.raises(UserError, match='holds a training; go on with --mode=train'):
    experiment.study(_config(), str(tmp_path))
  assert done == []
  assert (tmp_path / 'config.json').read_bytes() == before


def test_a_method_with_settings_of_its_own_leaves_folders_that_can_be_read(data, done, tmp_path):
  own = 'late+dropout[optimizer.learning_rate=0.01]'
  config = _config(study__methods=(own,), study__regimes=('complete',), study__valuation=False, study__peek=False)
  experiment.study(config, str(tmp_path))
  assert set(_results(tmp_path)['methods']) == {'late+dropout', own}
  assert not [path for path in tmp_path.rglob('*') if '[' in path.name]
  assert len(list(tmp_path.glob('runs/late+dropout(*)@*/checkpoints/*/best'))) == 1
  assert not list(tmp_path.glob('runs/*/checkpoints/*/state'))
  done.clear()
  experiment.study(config, str(tmp_path))
  assert not done  # Nothing is run twice.


def test_a_study_is_not_mixed_with_other_data_or_modes(data, done, tmp_path, monkeypatch):
  config = _config(study__methods=(), study__regimes=('complete',), model__name='majority')
  experiment.study(config, str(tmp_path))
  before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
  with pytest.raises(UserError, match='holds a study; go on with --mode=study'):
    experiment.train(config, str(tmp_path))
  other = small_dataset('multiclass', names=('face', 'pose'), train=20, validation=8, test=12)
  monkeypatch.setattr(workbench, 'load_dataset', lambda *_, **__: other)
  with pytest.raises(UserError, match='was made with other data'):
    experiment.study(config, str(tmp_path))
  assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
  assert len(done) == 1
  # Before its first results a study is not done, and says so.
  (tmp_path / 'results.json').unlink()
  with pytest.raises(UserError, match='runs are not finished'):
    write_report(str(tmp_path))


def test_keys_name_what_matters():
  unit = units.Unit('dream', 'complete')

  def key(unit=unit, missing=Missing(), data='d', chosen=None, peek=False, **overrides):
    recipe = recipe_from_config(_config(**overrides))
    plan = units.Plan('study', ('dream',), {'complete': missing}, peek=peek)
    return units.run_key(unit, plan, recipe, data, chosen or {})

  base = key()
  same = (
    {'train__eval_batch_size': 3}, {'mesh__seed': -1}, {'train__data_path': 'host'}, {'controls': ('late',)},
    {'protocols': ('complete',)}, {'study__valuation': False},
  )  # fmt: skip
  assert {key(**overrides) for overrides in same} == {base}
  others = [
    {'losses__coalition': 0.7}, {'model__sharpness': 0.2}, {'model__width': 16}, {'num_seeds': 3}, {'seed': 1},
    {'train__epochs': 3}, {'optimizer__learning_rate': 0.5}, {'inject__rate': 0.1}, {'peek': True},
    {'peek': True, 'protocols': ('complete',)}, {'data': 'other'}, {'chosen': {'inject.rate': 0.2}},
    {'missing': regime('modality/0.5', small_dataset().spec)}, {'unit': units.Unit('concat', 'complete')},
  ]  # fmt: skip
  keys = [base, *(key(**overrides) for overrides in others)]
  assert len(set(keys)) == len(keys)


_KILLED = """
from dream_jax.config.default import get_default

def get_config(variant=''):
  config = get_default()
  config.name = 'killed'
  config.data.name = 'digits'
  config.data.options.seed = 1
  config.num_seeds = 2
  config.train.epochs = 16
  config.train.num_evals = 8
  config.train.checkpoint_seconds = 0.0
  config.protocols = ('modality/noise',)
  config.model.name = 'late+dropout'
  config.study.methods = ('concat+dropout', 'majority')
  config.study.regimes = ('complete', 'modality/0.5')
  config.study.search.points = 2
  config.study.search.fields = (('inject.rate', 'linear', 0.2, 0.8),)
  return config
"""


@pytest.mark.slow
def test_killed_at_random_times_the_results_are_the_same(tmp_path):
  config = tmp_path / 'killed.py'
  config.write_text(_KILLED)
  environment = {**os.environ, 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}

  def start(workdir):
    command = [sys.executable, '-m', 'dream_jax.main', '--mode=study', f'--config={config}', f'--workdir={workdir}']
    return subprocess.Popen(
      command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
      start_new_session=True,
    )  # fmt: skip

  began = time.monotonic()
  whole = start(tmp_path / 'whole')
  out = whole.communicate(timeout=900)[0]
  assert whole.returncode == 0, out
  length = time.monotonic() - began
  rng, kills = random.Random(0), 0
  while kills < 5:
    process = start(tmp_path / 'killed')
    try:
      out = process.communicate(timeout=rng.uniform(0.15, 0.6) * length)[0]
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
      kills += 1
      continue
    assert process.returncode == 0, out
    kills += 1  # It was done before it could be killed: from here on there is nothing left to interrupt.
  last = start(tmp_path / 'killed')
  out = last.communicate(timeout=900)[0]
  assert last.returncode == 0, out
  assert _without_times(_results(tmp_path / 'killed')) == _without_times(_results(tmp_path / 'whole'))
  assert len(list(tmp_path.glob('killed/runs/*/methods/*.json'))) == 8
