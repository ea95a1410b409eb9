"""Short of room, memory, rights or time, a command says so in one line, and goes on where it stopped."""

import pytest

from faults import kills, pressure
from faults.tally import Tally


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
  return kills.Bench(tmp_path_factory.mktemp('pressure'))


@pytest.mark.slow
@pytest.mark.parametrize('case', pressure.CASES)
def test_it_is_told_and_then_mended(bench, case):
  tally = Tally(case)
  pressure.run(bench, tally, (case,))
  assert not tally.failures, tally.table()
