"""What a finished workdir takes without training again: another control, other protocols."""

import json

import pytest
import small_workdirs
from run_places import run_folder
from small_workdirs import config, results

from dream_jax.errors import UserError
from dream_jax.experiments import experiment


@pytest.fixture(scope='module')
def quick():
  with small_workdirs.quick():
    yield


def test_another_control_trains_that_one_alone(quick, tmp_path, capsys):
  run, whole = tmp_path / 'run', tmp_path / 'whole'
  experiment.train(config(), str(run))
  capsys.readouterr()
  grown = config(controls=('majority', 'late'))
  experiment.train(grown, str(run))
  told = capsys.readouterr().out
  assert '[1/3] concat: finished before\n' in told
  assert '[2/3] majority: finished before\n' in told
  assert '[3/3] late: compiled in' in told
  experiment.train(grown, str(whole))
  assert results(run) == results(whole)
  experiment.train(config(), str(run))  # Fewer again: what is not asked for is not shown, and nothing is removed.
  assert set(json.loads((run / 'results.json').read_text())['methods']) == {'concat', 'majority'}
  assert (run_folder(run, 'late') / 'methods' / 'late.json').exists()


def test_other_protocols_are_evaluated_and_nothing_is_trained(quick, tmp_path, capsys):
  run = tmp_path / 'run'
  experiment.train(config(protocols=('modality/zeros',)), str(run))
  first = results(run)
  experiment.evaluate(config(protocols=('modality/noise',)), str(run))
  assert set(results(run)['methods']['concat']['protocols']) == {'complete', 'modality/noise'}
  capsys.readouterr()
  experiment.train(config(protocols=('modality/zeros',)), str(run))
  assert 'compiled in' not in capsys.readouterr().out
  assert results(run) == first
  experiment.train(config(protocols=('modality/noise', 'modality/zeros')), str(run))
  assert list(results(run)['methods']['concat']['protocols']) == ['complete', 'modality/noise', 'modality/zeros']


def test_anything_else_is_another_run(quick, tmp_path):
  run = tmp_path / 'run'
  experiment.train(config(), str(run))
  with pytest.raises(UserError, match=r'made with another config: config\.seed'):
    experiment.train(config(seed=3), str(run))
