"""A spoiled file gives what an unspoiled one gives, or one line: never another result in silence."""

import pytest

from faults import damage
from faults.tally import Tally


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
  return damage.Bench(tmp_path_factory.mktemp('damage'))


def _read(bench, count, workdirs, readers, hows=tuple(damage.DAMAGES)):
  tally = Tally('damage')
  cases = [case for case in bench.cases(workdirs, readers) if case.how in hows]
  damage.run(bench, tally, cases[:count], seed=0, workers=1)
  assert not tally.failures, tally.table()


@pytest.mark.slow
def test_what_a_loaded_model_reads(bench):
  # What is cut off or gone is hard to miss.
  _read(bench, 50, ('finished',), ('load',), ('flip', 'swap'))


@pytest.mark.slow
def test_what_a_report_reads(bench):
  _read(bench, 10, ('finished',), ('report',))


@pytest.mark.slow
def test_what_training_and_evaluation_read(bench):
  _read(bench, 8, ('finished', 'half'), ('train', 'evaluate'))


@pytest.mark.slow
def test_prepared_data(bench):
  _read(bench, 12, ('prepared',), ('data',))


@pytest.mark.slow
def test_compiled_programs(bench):
  _read(bench, 4, ('compiled',), ('evaluate',))
