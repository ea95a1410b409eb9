"""Spoiled inputs are read as what they were or refused in one line, whatever was done to them."""

import pytest

from faults import mutants
from faults.formats import FORMATS
from faults.tally import Tally


@pytest.mark.slow
@pytest.mark.parametrize('family', ['npz', 'parquet', 'toml', 'mmsa', 'iemocap', 'mosi', 'config'])
def test_mutants_are_read_or_refused(tmp_path, family):
  names = tuple(name for name in FORMATS if family in name)
  tally = Tally('mutants')
  mutants.run(tally, tmp_path, count=60 * len(names), seed=0, names=names, workers=1)
  assert not tally.failures, '\n'.join(f'{len(f)} {kind}: {f[0]}' for kind, f in mutants.kinds(tally).items())
