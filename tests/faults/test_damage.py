"""A spoiled file gives what an unspoiled one gives, or one line: never another result in silence."""

import pytest

from faults import damage
from faults.tally import Tally


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
  return damage.Bench(tmp_path_factory.mktemp('damage'))


def _read(bench, count, workdirs, readers):
  tally = Tally('damage')
  damage.run(bench, tally, bench.cases(workdirs, readers)[:count], seed=0, workers=1)
  assert not tally.failures, tally.table()


@pytest.mark.slow
def test_what_reports_and_loaded_models_read(bench):
  _read(bench, 30, ('finished',), ('report', 'load'))


@pytest.mark.slow
def test_what_training_and_evaluation_read(bench):
  _read(bench, 6, ('finished', 'half'), ('train', 'evaluate'))


@pytest.mark.slow
def test_prepared_data(bench):
  _read(bench, 12, ('prepared',), ('data',))


@pytest.mark.slow
def test_compiled_programs(bench):
  _read(bench, 4, ('compiled',), ('evaluate',))
