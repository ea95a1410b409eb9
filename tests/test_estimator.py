"""`DreamClassifier`, `DreamRegressor` and `fit`: one small model of every kind of modality, asked in every way."""

import dataclasses
import functools
import importlib.util
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from small_runs import optax_promotes  # noqa: F401

import dream_jax
from dream_jax.data.prepare import Statistics
from dream_jax.errors import InputError
from dream_jax.estimator import base, fitting, store
from dream_jax.estimator.store import predictor
from dream_jax.evaluation.predict import LabelScale
from dream_jax.models.outputs import Outputs
from dream_jax.spec import DatasetSpec
from dream_jax.workdir.method_files import PredictorParts

pd = pytest.importorskip('pandas', reason="the tests need pip install '.[test]'")

_TINY = {'model.width': 4, 'model.hidden': 4, 'train.num_evals': 1, 'train.validation_draws': 1}
_FEW = {'n_seeds': 2, 'epochs': 4, 'config': _TINY, 'verbose': False}
_MODALITIES = {'labs': ['lab_*', 'ward'], 'note': 'note', 'ecg': 'ecg'}
_FELT = {'calm': 'quiet and slow today', 'glad': 'bright and happy today', 'tired': 'weak and heavy today'}


def _frame(n=96):
  """Three moods that every column says something about; every kind of gap."""
  rng = np.random.default_rng(0)
  mood = np.array(list(_FELT))[np.arange(n) % 3]
  shift = np.arange(n) % 3
  frame = pd.DataFrame({f'lab_{i}': rng.normal(3.0 * (shift == i), 1) for i in range(3)})
  frame = frame.mask(rng.random(frame.shape) < 0.05)
  frame['ward'] = np.where(shift == 1, 'north', 'south')
  frame['note'] = [None if rng.random() < 0.2 else f'{_FELT[m]} {rng.integers(9)}' for m in mood]
  frame['ecg'] = [rng.normal(s, 0.3, rng.integers(4, 9)).tolist() for s in shift]
  frame['mood'] = mood
  frame['patient'] = np.arange(n) // 2
  return frame


@pytest.fixture(scope='module')
def frame():
  return _frame()


@pytest.fixture(scope='module')
def model(frame):
  return dream_jax.fit(frame, target='mood', groups='patient', modalities=_MODALITIES, **{**_FEW, 'epochs': 30})


def test_it_learns_and_answers_in_the_words_of_the_labels(model, frame):
  assert isinstance(model, dream_jax.DreamClassifier)
  assert model.classes_.tolist() == ['calm', 'glad', 'tired']
  assert model.score(frame, frame['mood']) > 0.7
  p = model.predict_proba(frame)
  np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
  assert (model.classes_[p.argmax(1)] == model.predict(frame)).all()
  assert 0 <= model.validation_score_ <= 1
  assert model.n_features_in_ == 6


def test_whatever_is_missing_may_be_left_out(model, frame):
  some = frame.iloc[:7]
  blank = some.assign(note=None, ecg=[[] for _ in range(7)])
  expected = model.predict_proba(blank)
  for same in (
    some[['lab_0', 'lab_1', 'lab_2', 'ward']],
    blank.drop(columns='mood'),
    {name: some[name].tolist() for name in ('lab_0', 'lab_1', 'lab_2', 'ward')} | {'note': None},
    [{k: v for k, v in row.items() if k not in ('note', 'ecg')} for row in some.to_dict('records')],
  ):
    np.testing.assert_array_equal(model.predict_proba(same), expected)
  assert np.abs(model.predict_proba(some) - expected).max() > 1e-3
  assert np.isfinite(model.predict_proba([{'note': None}] * 2)).all()


def test_the_answer_is_the_mean_of_the_seeds(model, frame):
  inputs = model._reader.inputs(model._table(frame[:8], reset=False))
  made = model._model
  each = []
  for s in (0, 1):  # Twice the same seed: the compiled program is that of the model.
    params = jax.tree.map(lambda x, s=s: np.stack([x[s], x[s]]), made.params)
    each.append(predictor(dataclasses.replace(made, params=params, temperatures=[made.temperatures[s]] * 2))(inputs))
  both = model.outputs(frame[:8])
  for field in ('prediction', 'contributions', 'presence', 'unimodal_predictions'):
    a, b = (getattr(one, field) for one in each)
    assert np.abs(a - b).max() > 1e-4
    np.testing.assert_allclose((a + b) / 2, getattr(both, field), rtol=1e-4, atol=1e-5)


def test_contributions_and_explanations_by_name(model, frame):
  found, rows = model.contributions(frame[:5]), model.explain(frame[:5])
  assert list(found) == list(_MODALITIES)
  assert {len(v) for v in found.values()} == {5}
  answers, p = model.predict(frame[:5]), model.predict_proba(frame[:5])
  for i, row in enumerate(rows):
    assert row['decision'] == answers[i]
    assert row['confidence'] == pytest.approx(p[i].max())
    assert row['contributions']['note'] == pytest.approx(found['note'][i])
  json.dumps(rows)


def test_reprs_are_short_and_say_what_there_is(model, frame):
  said = repr(model)
  assert said.startswith('DreamClassifier, fitted on 96 rows, 3 classes: labs vector [')
  assert '2 seeds of dream' in said
  assert len(said) < 250
  assert repr(dream_jax.DreamClassifier(n_seeds=2)) == 'DreamClassifier(n_seeds=2)'
  out = repr(model.outputs(frame[:3]))
  assert 'prediction [3, 3]' in out
  assert 'contributions [3, 3]' in out
  assert 'latents' not in out


def test_the_same_seed_gives_the_same_answer_and_a_workdir_goes_on(model, frame, tmp_path):
  again = dream_jax.DreamClassifier(_MODALITIES, **{**_FEW, 'epochs': 30}, workdir=tmp_path)
  labels, members = frame['mood'], frame['patient']
  again.fit(frame.drop(columns=['mood', 'patient']), labels, groups=members)
  np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
  (run,) = (tmp_path / 'runs').iterdir()
  before = {p: p.stat().st_mtime_ns for p in run.rglob('*') if p.is_file() and 'best' in p.parts}
  third = clone(again).fit(frame.drop(columns=['mood', 'patient']), labels, groups=members)
  np.testing.assert_array_equal(third.predict_proba(frame), model.predict_proba(frame))
  assert before
  assert before == {p: p.stat().st_mtime_ns for p in before}  # Nothing was trained again.


def test_a_saved_model_is_the_same_and_holds_no_code(model, frame, tmp_path):
  model.save(tmp_path / 'm')
  again = dream_jax.DreamClassifier.load(tmp_path / 'm')
  np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(frame))
  assert repr(again) == repr(model)
  assert again.predict(frame[:2]).tolist() == model.predict(frame[:2]).tolist()
  assert again.get_params()['n_seeds'] == 2
  (arrays,) = (tmp_path / 'm').glob('*.npz')
  with np.load(arrays, allow_pickle=False) as held:
    assert all(held[name].dtype.kind != 'O' for name in held.files)
  with pytest.raises(InputError, match=r'dream_jax\.DreamClassifier\.load'):
    dream_jax.DreamRegressor.load(tmp_path / 'm')
  content = arrays.read_bytes()
  arrays.write_bytes(content[:-9] + b'\0' + content[-8:])
  with pytest.raises(InputError, match='damaged'):
    dream_jax.DreamClassifier.load(tmp_path / 'm')
  with pytest.raises(InputError, match='expected a folder that save'):
    dream_jax.DreamClassifier.load(tmp_path)


@pytest.mark.slow
def test_another_process_gives_the_same_bits(model, frame, tmp_path):
  model.save(tmp_path / 'm')
  frame.to_json(tmp_path / 'x.json')
  code = (
    'import sys, numpy as np, pandas as pd, dream_jax;'
    f'm = dream_jax.DreamClassifier.load({str(tmp_path / "m")!r});'
    f'np.save({str(tmp_path / "p.npy")!r}, m.predict_proba(pd.read_json({str(tmp_path / "x.json")!r})));'
    'assert not any(name.partition(".")[0] == "tensorflow" for name in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True, timeout=300)
  expected = model.predict_proba(pd.read_json(tmp_path / 'x.json'))
  np.testing.assert_array_equal(np.load(tmp_path / 'p.npy'), expected)


def test_few_sizes_are_compiled(model, frame):
  for rows in (1, 2, 8, 96):
    model.predict(frame[:rows])
  before = model._ensemble._forward._cache_size()
  for rows in (1, 1, 3, 7, 70, 90):
    assert len(model.predict(frame[-rows:])) == rows
  assert model._ensemble._forward._cache_size() == before


def test_a_regression_of_a_plain_array_fuses_nothing_and_says_so(tmp_path):
  rng = np.random.default_rng(0)
  X = rng.normal(size=(80, 3))
  y = 100 + 10 * X[:, 0]
  model = dream_jax.DreamRegressor(**{**_FEW, 'epochs': 60})
  with pytest.warns(UserWarning, match='nothing to fuse: concat is trained in place of dream'):
    model.fit(X, y)
  assert model.method_ == 'concat'
  assert model.score(X, y) > 0.5
  assert model.predict(X).shape == (80,)
  low, high = model.explain(X[:1])[0]['interval']
  assert low < model.predict(X[:1])[0] < high
  with pytest.raises(InputError, match='estimates no contributions'):
    model.contributions(X)
  with pytest.raises(InputError, match='X has 2 features, but DreamRegressor is expecting 3 features'):
    model.predict(X[:, :2])
  model.save(tmp_path)
  np.testing.assert_array_equal(dream_jax.DreamRegressor.load(tmp_path).predict(X), model.predict(X))


@pytest.mark.parametrize(
  ('options', 'said'),
  [
    ({'method': 'drem'}, "unknown method 'drem'; did you mean dream"),
    ({'method': 'majority'}, 'no model for use'),
    ({'method': 'momke'}, 'needs the mask'),
    ({'n_seeds': 0}, 'n_seeds is 0; expected a whole number from 1'),
    ({'validation_fraction': 1.5}, 'between 0 and 1'),
    ({'config': {'model.widht': 3}}, r'model\.widht does not exist; did you mean config\.model\.width'),
    ({'config': {'model.width': -3}}, r'model\.width is -3'),
    ({'config': {'num_seeds': 3}}, 'as an argument'),
    ({'epochs': 2.5}, 'epochs is 2.5'),
    ({'modalities': {'id': ['lab_0'], 'b': ['lab_1']}}, "called 'id'"),
  ],
)
def test_mistakes_are_refused_before_training(options, said, frame):
  made = dream_jax.DreamClassifier(**{'modalities': _MODALITIES, **_FEW, **options})
  with pytest.raises(ValueError, match=said):
    made.fit(frame.drop(columns=['mood', 'patient']), frame['mood'])


def test_mistakes_in_a_target_are_refused(frame):
  with pytest.raises(InputError, match="no column 'moood'; did you mean mood"):
    dream_jax.fit(frame, target='moood')
  with pytest.raises(InputError, match="say task='classification'"):
    dream_jax.fit(frame, target='patient')
  with pytest.raises(InputError, match='row 3'):
    dream_jax.fit(frame.assign(mood=frame['mood'].where(frame.index != 3)), target='mood')
  with pytest.raises(InputError, match="'mood' is no column"):
    dream_jax.fit(frame, target='mood', modalities={'a': 'mood', 'b': 'lab_*'})


def test_parameters_are_those_of_scikit_learn():
  made = dream_jax.DreamClassifier(_MODALITIES, n_seeds=3)
  copy = clone(made)
  assert copy.get_params() == made.get_params()
  assert copy.set_params(epochs=3).epochs == 3
  with pytest.raises(NotFittedError):
    made.predict(np.zeros((2, 2)))
  with pytest.raises(NotFittedError):
    made.save('x')


def test_without_scikit_learn_a_base_of_our_own_gives_the_parameters(monkeypatch):
  monkeypatch.setitem(sys.modules, 'sklearn.base', None)
  spec = importlib.util.spec_from_file_location('base_alone', base.__file__)
  assert spec is not None
  assert spec.loader is not None
  alone = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(alone)

  class Small(alone.BaseEstimator):
    def __init__(self, a=1, *, b=2):
      self.a, self.b = a, b

  made = Small(b=3)
  assert made.get_params() == {'a': 1, 'b': 3}
  assert repr(made.set_params(a=5)) == 'Small(a=5, b=3)'
  with pytest.raises(ValueError, match="'c'"):
    made.set_params(c=1)
  assert issubclass(alone.NotFittedError, ValueError)


# What we do otherwise, and why.
_OTHERWISE = {
  'check_dataframe_column_names_consistency': 'columns are found by name: absent ones are missing, others are not read',
  'check_dtype_object': 'a cell that is a dict is a wrong value here, not a TypeError',
  'check_supervised_y_2d': 'labels [n, 1] are what they seem; there is nothing to warn of',
}


def _nearest(model, inputs):
  """The label of the nearest training row, as `Outputs`."""
  x, y, classes = model.params['x'], model.params['y'], model.params['classes']
  given = _flat(inputs)
  near = np.array([((x - row) ** 2).sum(1).argmin() for row in given])
  made = np.eye(classes)[y[near]] if classes > 2 else y[near, None]
  return Outputs(made.astype(np.float64))


def _flat(inputs):
  return np.concatenate([x.reshape(len(x), -1) for x in inputs.values()], axis=1)


@pytest.fixture
def without_engine(monkeypatch):
  """The estimators with a nearest neighbour where they train: the engine is tested elsewhere."""

  def train(config, recipe, method, modalities, features, label, validation, *, num_classes, **_):
    spec = DatasetSpec('table', modalities, 'regression', 1, 'real')
    parts = PredictorParts(spec, Statistics({}, {}), LabelScale())
    taken = np.asarray(features['x'])
    params = {'x': _flat(features), 'y': label, 'classes': num_classes}
    model = fitting.Model(method.name, {}, parts, params, [1.0], None, np.zeros((0, 1)))
    assert len(taken) == len(label)
    chosen = {name: x[validation] for name, x in features.items()}
    return dataclasses.replace(model, validation=np.asarray(_nearest(model, chosen).prediction))

  monkeypatch.setattr(fitting, 'train', train)
  monkeypatch.setattr(store, 'predictor', lambda model: functools.partial(_nearest, model))


def _failed(cls, **options):
  made = getattr(dream_jax, cls)(**options)
  found = estimator_checks.check_estimator(made, expected_failed_checks=_OTHERWISE, on_fail=None)
  assert len(found) > 40
  return {c['check_name']: repr(c['exception'])[:300] for c in found if c['status'] == 'failed'}


@pytest.mark.filterwarnings('ignore:there is one modality', 'ignore::sklearn.exceptions.SkipTestWarning')
@pytest.mark.parametrize('cls', ['DreamClassifier', 'DreamRegressor'])
def test_checks_of_scikit_learn(cls, without_engine):
  assert not _failed(cls, verbose=False)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:there is one modality', 'ignore::sklearn.exceptions.SkipTestWarning')
@pytest.mark.parametrize('cls', ['DreamClassifier', 'DreamRegressor'])
def test_checks_of_scikit_learn_with_the_engine(cls):
  assert not _failed(cls, **{**_FEW, 'n_seeds': 1, 'epochs': 60, 'config': {**_TINY, 'model.width': 16}})
