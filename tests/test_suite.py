"""A suite of small data sets: it goes on where it was, divides small data sets, and says what all say together."""

import json

import numpy as np
import pytest
import small_workdirs
from small_runs import small_dataset
from small_workdirs import results

from dream_jax import api
from dream_jax.data.folds import divided
from dream_jax.errors import UserError
from dream_jax.evaluation import across
from dream_jax.evaluation.intervals import holm
from dream_jax.experiments import experiment, suite, suite_results, workbench
from dream_jax.report import suite_page, text


@pytest.fixture(scope='module')
def quick():
  """'one' is small, 'two' is not; whatever else is named does not exist."""
  data = {
    'one': small_dataset('multiclass', names=('face', 'pose'), train=24, validation=8, test=12),
    'two': small_dataset('multiclass', names=('face', 'pose'), train=30, validation=8, test=12),
    'value': small_dataset('regression', names=('face', 'pose'), train=30, validation=8, test=12),
  }
  with small_workdirs.quick() as patch:
    patch.setattr(workbench, 'load_dataset', lambda name, **_: data[name])
    yield data


def _config(**overrides):
  return small_workdirs.config(
    **{
      'study__methods': ('late', 'majority'),
      'num_seeds': 4,
      'suite__data': ('one', 'two'),
      'suite__divisions': 2,
      'suite__divided_below': 45,
      **overrides,
    }
  )


@pytest.fixture(scope='module')
def made(quick, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('suite') / 'run'
  suite.study(_config(), str(workdir))
  return workdir


def test_what_a_suite_holds(made):
  found = results(made)
  assert {name: (d['divisions'], d['runs']) for name, d in found['data'].items()} == {'one': (2, 4), 'two': (1, 4)}
  assert sorted(path.name for path in (made / 'one').iterdir()) == ['division-1', 'division-2']
  assert set(found['methods']) == {'concat', 'late', 'majority'}
  assert set(found['mean_rank']) == {'concat', 'late'}
  assert sum(e['value'] for e in found['mean_rank'].values()) == pytest.approx(3)
  assert {(c['data'], c['b']) for c in found['comparisons']} == {
    (d, b) for d in ('one', 'two') for b in ('late', 'majority')
  }
  assert {c['verdict'] for c in found['comparisons']} <= set(across.VERDICTS)
  inside = json.loads((made / 'two' / 'results.json').read_text())
  (there,) = (c for c in found['comparisons'] if (c['data'], c['b'], c['protocol']) == ('two', 'late', 'complete'))
  (here,) = (c for c in inside['comparisons'] if (c['b'], c['protocol']) == ('late', 'complete'))
  assert (there['difference'], there['p_holm']) == (here['difference'], here['p_holm'])
  page = (made / 'report.html').read_text()
  assert 'Mean rank over data sets' in page
  assert 'division' in suite_page.as_text(json.loads((made / 'results.json').read_text()))


def test_the_comparison_over_divisions_is_that_of_their_results(made):
  each = [json.loads((made / 'one' / f'division-{k}' / 'results.json').read_text()) for k in (1, 2)]
  gaps = []
  for one in each:
    values = [
      np.array(one['methods'][m]['protocols']['complete']['metrics']['accuracy'][0]) for m in ('concat', 'late')
    ]
    gaps.append((values[0] - values[1]).mean())
  expected = across.over_divisions(gaps, each[0]['num_test'] / each[0]['num_train'])
  (found,) = (
    c for c in results(made)['comparisons'] if (c['data'], c['b'], c['protocol']) == ('one', 'late', 'complete')
  )
  assert found['difference'] == pytest.approx(expected.difference)
  assert found['ci95'] == pytest.approx(expected.ci95)


def test_another_data_set_makes_only_what_is_new(made, quick, tmp_path, capsys):
  capsys.readouterr()
  before = results(made)
  suite.study(_config(), str(made))
  assert 'compiled in' not in capsys.readouterr().out
  assert results(made) == before
  suite.study(_config(suite__data=('one',)), str(made))
  assert 'compiled in' not in capsys.readouterr().out
  assert list(results(made)['data']) == ['one']


def test_without_data_sets_it_is_a_study(quick, tmp_path, monkeypatch):
  called = []
  monkeypatch.setattr(experiment, 'study', lambda config, workdir: called.append(workdir))
  suite.study(_config(suite__data=()), str(tmp_path))
  assert called == [str(tmp_path)]


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'suite__data': ('one', 'value')}, 'one is measured by accuracy and value by'),
    ({'suite__folders': ('/x/one',)}, "names two data sets 'one'"),
    ({'data__division': 3}, 'a suite divides by config.suite.divisions'),
    ({'suite__options': {'three': {}}}, "options: 'three' is none of suite.data"),
  ],
)
def test_mistakes_are_told(quick, tmp_path, overrides, message):
  with pytest.raises(UserError, match=message):
    suite.study(_config(**overrides), str(tmp_path / 'w'))


def test_the_report_again_and_no_model_of_all(made, capsys):
  before = (made / 'report.html').read_text()
  (made / 'report.html').unlink()
  text.show(str(made))
  assert (made / 'report.html').read_text() == before
  assert 'Mean rank over data sets' in capsys.readouterr().out
  with pytest.raises(
    UserError, match=rf'holds a suite .*; expected the workdir of one of them, such as {made}/one/division-1'
  ):
    api.load(made)


def test_a_suite_and_a_study_do_not_mix(made, quick, tmp_path):
  with pytest.raises(UserError, match=r'holds a suite; go on with --mode=study and its config\.suite'):
    experiment.study(_config(suite__data=(), data__name='one'), str(made))
  experiment.study(_config(suite__data=(), data__name='one'), str(tmp_path))
  with pytest.raises(UserError, match='holds a study'):
    suite.study(_config(), str(tmp_path))


def test_a_division_keeps_sizes_and_classes_and_shares_nothing():
  whole = small_dataset('multiclass', train=40, validation=12, test=20)
  one, same, two = (divided(whole, number) for number in (1, 1, 2))
  assert {n: len(s) for n, s in one.splits.items()} == {n: len(s) for n, s in two.splits.items()}
  assert one.fingerprint == same.fingerprint != two.fingerprint != whole.fingerprint
  ids = np.concatenate([split.ids for split in one.splits.values()])
  assert sorted(ids) == sorted(np.concatenate([split.ids for split in whole.splits.values()]))
  assert len(set(ids)) == len(ids)
  shares = [np.bincount(s.label, minlength=whole.spec.num_outputs) / len(s) for s in one.splits.values()]
  assert np.ptp(shares, axis=0).max() < 0.15
  for name, split in one.splits.items():
    assert abs(len(split) - len(whole.splits[name])) <= whole.spec.num_outputs
    assert list(split.ids) == sorted(split.ids)


def test_groups_stay_together():
  whole = small_dataset('multiclass', train=40, validation=12, test=20)
  for split in whole.splits.values():
    split.extras['group'] = np.array([f'g{int(k) % 9}' for k in split.keys[:, 0]])
  for number in range(1, 6):
    homes = [set(split.extras['group']) for split in divided(whole, number).splits.values()]
    assert all(homes)
    assert sum(map(len, homes)) == len(set.union(*homes))
  for split in whole.splits.values():
    split.extras['group'] = np.array(['a', 'b'])[split.keys[:, 0] % 2]
  with pytest.raises(UserError, match='has 2 groups'):
    divided(whole, 1)


def _found(accuracy):
  """Results of one division as far as a suite reads them; `accuracy` holds method -> a value for each seed."""
  entry = {'title': 'x', 'uses_oracle': [], 'modality': None}
  methods = {m: {**entry, 'protocols': {'complete': {'metrics': {'accuracy': [v]}}}} for m, v in accuracy.items()}
  return {
    'primary_metric': 'accuracy', 'higher_is_better': True, 'reference': 'a', 'comparisons': [], 'wall_seconds': 1.0,
    'dataset': 'd', 'data_kind': 'real', 'modalities': ['x'], 'num_train': 8, 'num_validation': 2, 'num_test': 2,
    'methods': methods,
  }  # fmt: skip


def test_what_is_not_everywhere_is_left_out():
  one, two = (_found({name: [0.5, 0.6] for name in names}) for names in ('abc', 'ab'))
  assert set(suite_results.assemble({'one': [one], 'two': [two]}, 0.005, {})['methods']) == {'a', 'b'}


def test_comparisons_over_divisions_are_corrected_for_the_methods():
  gaps = {'b': [0.05, 0.06, 0.08], 'c': [0.02, 0.05, 0.03]}
  each = [_found({'a': [0.8, 0.9], **{m: [0.8 - v[k], 0.9 - v[k]] for m, v in gaps.items()}}) for k in range(3)]
  found = suite_results.assemble({'one': each}, 0.005, {})['comparisons']
  plain = [across.over_divisions(v, 2 / 8).p for v in gaps.values()]
  assert [c['p_holm'] for c in found] == pytest.approx(holm(plain))
  assert [c['p_holm'] for c in found] != pytest.approx(plain)
