"""Killed at any moment, a command given again ends as if nothing had happened."""

import pytest

from faults import kills
from faults.tally import Tally

# Thirty together; `benchmarks/soak.py` makes thousands.
_KILLS = {'prepare': 5, 'train': 9, 'study': 6, 'evaluate': 5, 'report': 5}


@pytest.fixture(scope='module')
def bench(tmp_path_factory):
  return kills.Bench(tmp_path_factory.mktemp('kills'))


def _struck(bench, draws, count):
  tally = Tally('kills')
  kills.run(bench, tally, draws, kills=count, workers=1)
  assert not tally.failures, tally.table()
  assert sum(tally.counts['signals'].values()) == count, tally.table()


def test_a_report_survives(bench):
  _struck(bench, kills.Draws(1, scenario='report', models=('concat',), real=0), 2)


@pytest.mark.slow
@pytest.mark.parametrize('scenario', _KILLS)
def test_every_command_ends_as_if_undisturbed(bench, scenario):
  _struck(bench, kills.Draws(0, scenario=scenario, models=('concat',), real=0), _KILLS[scenario])


@pytest.mark.slow
def test_a_process_with_its_imports_survives(bench):
  _struck(bench, kills.Draws(2, scenario='train', models=('concat',), real=1), 2)


@pytest.mark.slow
def test_two_processes_survive_together(bench):
  _struck(bench, kills.Draws(3, processes=2, scenario='train', models=('concat',)), 2)
