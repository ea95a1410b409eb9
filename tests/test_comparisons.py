"""Comparisons pair rows by sample, name them as asked, and correct over the opponents of one protocol at a time."""

import numpy as np
import pytest

from dream_jax.evaluation import intervals
from dream_jax.evaluation.comparisons import compare
from dream_jax.evaluation.evaluate import Row


def _row(name, **scores):
  return Row(name, name, {}, None, {protocol.replace('_', '/'): values for protocol, values in scores.items()})


@pytest.fixture(scope='module')
def rows():
  rng = np.random.default_rng(0)
  base = rng.random((5, 60))

  def near(scale):
    return base + rng.normal(0, scale, base.shape)

  made = [
    _row('mine', complete=base, modality_zeros=base),
    _row('worse', complete=near(0.05) - 0.02, modality_zeros=base - 0.5),
    _row('same', complete=near(0.05), modality_zeros=near(0.01)),
    _row('partial', complete=near(0.02)),
    _row('diverged', complete=np.full_like(base, np.nan), modality_zeros=base),
  ]
  return {row.name: row for row in made}


def test_every_other_row_is_compared_under_what_both_have(rows):
  found = compare('mine', rows, 'accuracy', key=lambda name: f'{name}@here', regime='here')
  pairs = [(c['b'], c['protocol']) for c in found]
  assert len(pairs) == len(set(pairs)) == 7
  assert ('partial@here', 'modality/zeros') not in pairs
  assert {(c['a'], c['regime'], c['metric']) for c in found} == {('mine@here', 'here', 'accuracy')}
  by = {(c['b'], c['protocol']): c for c in found}
  expected = intervals.paired_comparison(
    rows['mine'].sample_scores['complete'], rows['worse'].sample_scores['complete']
  )
  mine = by['worse@here', 'complete']
  assert (mine['difference'], mine['ci95'], mine['p']) == tuple(expected)
  assert mine['difference'] > 0


def test_the_correction_is_over_the_opponents_of_one_protocol(rows):
  found = compare('mine', rows, 'accuracy')
  for protocol in ('complete', 'modality/zeros'):
    family = [c for c in found if c['protocol'] == protocol and np.isfinite(c['p'])]
    assert [c['p_holm'] for c in family] == intervals.holm([c['p'] for c in family])
    assert len(family) == 3
  (diverged,) = [c for c in found if c['b'] == 'diverged' and c['protocol'] == 'complete']
  assert 'p_holm' not in diverged


def test_without_the_reference_there_is_nothing_to_compare(rows):
  assert compare('absent', rows, 'accuracy') == []
