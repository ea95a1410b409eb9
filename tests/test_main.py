"""The command as a user types it: what it leaves behind, what it refuses, and that a refusal changes nothing."""

import hashlib
import json
import shutil
import subprocess

import numpy as np
import pytest
from run_places import run_folder

from dream_jax import main
from dream_jax.missingness.protocols import protocol_names
from dream_jax.models.registry import METHODS

_METHODS = ('dream', 'late+dropout', 'majority')


def _tree(folder):
  """Relative path -> hash of every file below a folder."""
  files = sorted(p for p in folder.rglob('*') if p.is_file()) if folder.exists() else []
  return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _same_results(a, b):
  """Two results, seconds apart."""
  a, b = json.loads(a), json.loads(b)
  for results in (a, b):
    for method in results['methods'].values():
      for name in [name for name in method if name.endswith('_seconds')]:
        del method[name]
  return a == b


@pytest.fixture
def copied(trained, tmp_path):
  """A copy of the trained workdir to do harm to."""
  workdir = tmp_path / 'run'
  shutil.copytree(trained[0], workdir)
  return workdir


def test_training_exits_zero_and_says_where_the_results_are(trained):
  workdir, process = trained
  assert process.returncode == 0, process.stderr[-2000:]
  assert process.stderr == ''
  assert f'{workdir}/results.json' in process.stdout
  assert f'{workdir}/report.html' in process.stdout
  for title in ('DREAM', 'Late averaging + dropout'):
    assert title in process.stdout


def test_results_follow_the_schema(trained):
  results = json.loads((trained[0] / 'results.json').read_text())
  assert results['schema_version'] == 2
  assert (results['dataset'], results['data_kind'], results['task']) == ('digits', 'real', 'multiclass')
  assert (results['primary_metric'], results['higher_is_better']) == ('accuracy', True)
  assert len(results['modalities']) == 3
  assert results['environment']['versions']['jax']
  assert results['config']['model']['width'] == 8
  assert tuple(results['methods']) == _METHODS
  for name, method in results['methods'].items():
    assert method['seeds'] == [0, 1]
    assert method['uses_oracle'] == []
    assert method['train_regime']
    assert (method['num_params'] > 0) == (name != 'majority')
    assert set(method['protocols']) == {'complete', 'modality/noise'}
    entry = method['protocols']['modality/noise']
    assert [c['rate'] for c in entry['conditions']] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    accuracy = np.array(entry['metrics']['accuracy'])
    assert accuracy.shape == (8, 2)
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    assert {'mean', 'std', 'ci95', 'auilc'} <= set(entry['summary']['accuracy'])
    assert (method['contribution'] is not None) == (name == 'dream')
  pairs = {(c['a'], c['b'], c['protocol']) for c in results['comparisons']}
  assert {('dream', 'late+dropout', 'modality/noise'), ('dream', 'majority', 'modality/noise')} <= pairs
  assert all({'difference', 'ci95', 'p_holm', 'metric'} <= set(c) for c in results['comparisons'])


def test_logs_checkpoints_and_report_are_there(trained):
  workdir = trained[0]
  assert '<html' in (workdir / 'report.html').read_text()
  for name in ('dream', 'late+dropout'):
    folder = run_folder(workdir, name)
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    assert {line['method'] for line in lines} == {name}
    assert list((folder / 'checkpoints' / name / 'best').iterdir())
    assert not (folder / 'checkpoints' / name / 'state').exists()  # Nothing is trained on from here.
    assert list((folder / 'tensorboard' / name).glob('events*'))


def test_finished_run_says_so_and_changes_nothing(command, trained):
  workdir = trained[0]
  before, results = _tree(workdir), (workdir / 'results.json').read_text()
  process = command(*command.quick, f'--workdir={workdir}')
  assert process.returncode == 0, process.stderr
  for name in _METHODS:
    assert f'{name}: finished before' in process.stdout
  after = _tree(workdir)
  changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
  assert changed <= {'results.json', 'report.html'}
  assert _same_results(results, (workdir / 'results.json').read_text())


@pytest.mark.slow
def test_evaluation_again_under_other_protocols(command, copied):
  first = json.loads((copied / 'results.json').read_text())
  arguments = [a for a in command.quick if 'protocols' not in a]
  process = command(
    *arguments, "--config.protocols=('modality/noise', 'subset/swap')", '--mode=evaluate', f'--workdir={copied}'
  )
  assert process.returncode == 0, process.stderr
  again = json.loads((copied / 'results.json').read_text())
  for name in _METHODS:
    protocols = again['methods'][name]['protocols']
    assert set(protocols) == {'complete', 'modality/noise', 'subset/swap'}
    assert len(protocols['subset/swap']['conditions']) == 6
    # The same parameters under the same masks.
    assert protocols['modality/noise'] == first['methods'][name]['protocols']['modality/noise']


def test_report_again_from_what_is_there(command, copied):
  (copied / 'report.html').unlink()
  process = command('--mode=report', f'--workdir={copied}')
  assert process.returncode == 0, process.stderr
  assert '<html' in (copied / 'report.html').read_text()
  assert 'by missingness protocol' in process.stdout


def test_list_names_everything(command):
  process = command('--mode=list')
  assert (process.returncode, process.stderr) == (0, '')
  for name in ('configs/digits.py', 'digits', 'synthetic', *METHODS, *protocol_names()):
    assert name in process.stdout


def _assert_refused(process, *words):
  assert process.returncode == 2, (process.returncode, process.stdout[-500:], process.stderr[-1500:])
  assert process.stderr.count('\n') == 1, process.stderr
  assert 'Traceback' not in process.stderr
  for word in words:
    assert word in process.stderr


_MISTAKES = {
  'mistyped override': (('--config.train.epoch=3',), ('config.train.epoch', 'config.train.epochs')),
  'wrong type': (('--config.train.epochs=many',), ('config.train.epochs', 'whole number')),
  'rate beyond one': (('--config.inject.rate=1.5',), ('config.inject.rate', '1.5')),
  'rate of one': (('--config.inject.rate=1.0',), ('config.inject.rate',)),
  'unknown protocol': (("--config.protocols=('modality/zero',)",), ('modality/zero', 'modality/zeros')),
  'unknown method': (('--config.model.name=drem',), ('drem', 'dream')),
  'unknown control': (("--config.controls=('concat-dropout',)",), ('concat-dropout', 'concat+dropout')),
  'unknown data set': (('--config.data.name=digit',), ('digit', 'digits')),
  'unknown missingness': (('--config.train_missing.kind=modalities',), ('modalities', 'modality')),
  'another config': (('--config.optimizer.learning_rate=0.5',), ('another config', 'optimizer.learning_rate')),
}


# The first two as a user types them; the others through the same function in this process, which is much faster.
_TYPED = ('mistyped override', 'another config')


@pytest.mark.parametrize('name', _MISTAKES)
def test_mistake_is_one_line_and_overwrites_nothing(command, trained, name, root, monkeypatch, capfd):
  workdir, (overrides, words) = trained[0], _MISTAKES[name]
  before = _tree(workdir)
  arguments = (*command.quick, *overrides, f'--workdir={workdir}')
  if name in _TYPED:
    process = command(*arguments)
  else:
    monkeypatch.chdir(root)
    code = main.main(['main', *arguments])
    process = subprocess.CompletedProcess(arguments, code, *capfd.readouterr())
  _assert_refused(process, *words)
  assert _tree(workdir) == before


@pytest.mark.parametrize(
  'workdir', ['file', *(pytest.param(path, marks=pytest.mark.slow) for path in ('file/run', '/proc/run'))]
)
def test_workdir_that_cannot_be_made_is_refused(command, tmp_path, workdir):
  (tmp_path / 'file').write_text('mine')
  path = tmp_path / workdir
  _assert_refused(command(*command.quick, f'--workdir={path}'), str(path))
  assert (tmp_path / 'file').read_text() == 'mine'


@pytest.mark.parametrize('mode', ['train', 'study'])
def test_workdir_with_wildcards_is_refused_before_anything_is_read(tmp_path, capfd, mode):
  code = main.main(['main', '--config=configs/digits.py:quick', f'--mode={mode}', f'--workdir={tmp_path}/runs[1]/x'])
  assert code == 2
  assert f'{tmp_path}/runs[1]/x contains [, which' in capfd.readouterr().err
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_left_alone(command, copied):
  folder = run_folder(copied, 'dream') / 'checkpoints' / 'dream' / 'best'
  largest = max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  content = bytearray(largest.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 8] = bytes(b ^ 0xFF for b in content[middle : middle + 8])
  largest.write_bytes(content)
  before = _tree(copied)
  _assert_refused(command(*command.quick, '--mode=evaluate', f'--workdir={copied}'), str(folder), 'damaged')
  assert _tree(copied) == before


def test_nothing_trained_cannot_be_evaluated_or_reported(command, tmp_path):
  _assert_refused(command(*command.quick, '--mode=evaluate', f'--workdir={tmp_path / "none"}'), 'none', '--mode=train')
  _assert_refused(command('--mode=report', f'--workdir={tmp_path / "none"}'), 'none')
  assert not (tmp_path / 'none').exists()


def test_absent_data_say_how_to_get_them(command, tmp_path):
  process = command(
    '--config=configs/mosei.py', f'--config.data.tfds_dir={tmp_path / "tfds"}', f'--workdir={tmp_path / "run"}'
  )
  _assert_refused(process, 'aligned_50.pkl', 'manual_dir')
  assert not (tmp_path / 'run').exists()
