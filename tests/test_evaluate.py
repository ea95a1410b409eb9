"""Evaluation reads every sample once and says what scikit-learn says, however the batches and devices are cut."""

import functools

import jax
import numpy as np
import pytest
import sklearn.metrics as sk
from jax.sharding import AxisType, Mesh
from scipy import stats
from small_runs import FAST_COMPILE, small_prepared, small_recipe

from dream_jax.data.pipeline import eval_batches
from dream_jax.evaluation import calibration
from dream_jax.evaluation.evaluate import ConstantPredictor, evaluate_method
from dream_jax.evaluation.predict import EvalInputs, Predictor, Seen, label_scale
from dream_jax.missingness.missing import Missing
from dream_jax.missingness.protocols import conditions
from dream_jax.models.registry import build, find_method
from dream_jax.parallel.mesh import make_mesh
from dream_jax.spec import TASKS

_NAMES = ('audio', 'face', 'pose')
_PROTOCOLS = ('modality/noise', 'subset/swap')
_SEEDS = 2


@functools.cache
def _prepared(task):
  return small_prepared(task, _NAMES, train=20, validation=6, test=23)


@functools.cache
def _model_and_params(name, task):
  prepared = _prepared(task)
  model = build(find_method(name), prepared.spec, small_recipe().model)
  sample = {k: x[:2] for k, x in prepared.splits['train'].features.items()}
  shapes = jax.eval_shape(lambda key: model.init({'params': key}, sample, train=False)['params'], jax.random.key(0))
  rng = np.random.default_rng(5)
  return model, jax.tree.map(lambda p: rng.normal(scale=0.5, size=(_SEEDS, *p.shape)).astype(p.dtype), shapes)


def _predictor(name, task, batch_size, mesh):
  model, params = _model_and_params(name, task)
  abstract = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
  inputs = EvalInputs(_prepared(task), mesh, batch_size=batch_size)
  batch = next(inputs.batches('test', Missing(), 0))[0]
  return Predictor(model, mesh, abstract, batch, compiler_options=FAST_COMPILE), params, inputs


def _inputs(prepared):
  return EvalInputs(prepared, _one_device(), batch_size=256)


def _one_device():
  return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ('seed', 'data'), axis_types=(AxisType.Auto, AxisType.Auto))


def _rows(name, task, batch_size, mesh, protocols=_PROTOCOLS):
  predictor, params, inputs = _predictor(name, task, batch_size, mesh)
  return evaluate_method(find_method(name), predictor, params, inputs, protocols, seed=3)


def _numbers(rows):
  tree = [(r.name, r.protocols, r.contribution, r.sample_scores) for r in rows]
  leaves, structure = jax.tree.flatten_with_path(tree, is_leaf=lambda x: x is None)
  numbers = [(jax.tree_util.keystr(path), x) for path, x in leaves if not isinstance(x, str)]
  return numbers, [x for _, x in leaves if isinstance(x, str)], structure


@pytest.fixture(scope='module')
def reference():
  return _rows('dream', 'multiclass', 256, make_mesh(1, -1))


@pytest.mark.parametrize(('batch_size', 'devices'), [(7, 8), (7, 1), (256, 1)])
def test_metrics_do_not_depend_on_batches_or_devices(reference, batch_size, devices):
  assert jax.device_count() == 8
  rows = _rows('dream', 'multiclass', batch_size, make_mesh(2, -1) if devices == 8 else _one_device())
  (got, names, structure), (wanted, wanted_names, wanted_structure) = _numbers(rows), _numbers(reference)
  assert (names, structure) == (wanted_names, wanted_structure)
  assert len(got) > 100
  for (place, a), (_, b) in zip(got, wanted, strict=True):
    if a is None or b is None:
      assert a is b
    else:
      # Of two presences that rounding alone tells apart, either may be the larger one.
      close = 5e-4 if 'AUROC' in place or 'auroc' in place else 1e-6
      np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=close, atol=close)


def test_every_sample_is_predicted_once_and_in_its_place():
  predictor, params, inputs = _predictor('concat', 'multiclass', 7, make_mesh(1, -1))
  model, _ = _model_and_params('concat', 'multiclass')
  prepared, missing = _prepared('multiclass'), Missing('modality', 0.5, fills=('swap',))
  split = prepared.splits['test']
  assert len(split) % inputs.batch_size
  got = predictor.split(params, inputs, 'test', missing=missing, seed=3)
  whole = next(eval_batches(split, prepared, missing=missing, seed=3, batch_size=len(split)))
  seen = [b['index'][b['weight'] > 0] for b in eval_batches(split, prepared, missing=missing, seed=3, batch_size=8)]
  np.testing.assert_array_equal(np.concatenate(seen), np.arange(len(split)))
  for s in range(_SEEDS):
    out = model.apply({'params': jax.tree.map(lambda p, s=s: p[s], params)}, whole['inputs'], train=False)
    np.testing.assert_allclose(got['prediction'][s], out.prediction, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(got['kept'], whole['kept'])
  assert got['prediction'].shape == (_SEEDS, len(split), 3)


def test_regression_is_predicted_in_the_units_of_the_labels():
  predictor, params, inputs = _predictor('late+dropout', 'regression', 256, _one_device())
  model, _ = _model_and_params('late+dropout', 'regression')
  prepared = _prepared('regression')
  split, scale = prepared.splits['test'], label_scale(prepared)
  assert abs(scale.mean) > 1
  got = predictor.split(params, inputs, 'test', missing=Missing(), seed=3)
  out = model.apply({'params': jax.tree.map(lambda p: p[1], params)}, split.features, train=False)
  for field in ('prediction', 'unimodal_predictions'):
    np.testing.assert_allclose(got[field][1], getattr(out, field) * scale.std + scale.mean, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(scale.restore(scale.standardise(split.label)), split.label, rtol=1e-5)


class _Scripted:
  """Stands in for a Predictor: random outputs, remembered, so that their metrics can be computed another way."""

  def __init__(self, spec, unimodal=False):
    self._spec, self._unimodal, self._rng = spec, unimodal, np.random.default_rng(0)
    self.given, self.validation, self.read = [], [], []

  def split(self, params, inputs, split, *, missing, seed, **_):
    del params
    n = len(inputs.prepared.splits[split])
    m, c = self._spec.num_modalities, self._spec.num_outputs
    lead = (_SEEDS, n, m) if self._unimodal else (_SEEDS, n)
    prediction = self._rng.normal(size=(*lead, c)).astype(np.float32)
    if self._unimodal:
      outputs = {'prediction': prediction.mean(2), 'unimodal_predictions': prediction}
    else:
      outputs = {'prediction': prediction}
      for part in ('contributions', 'presence', 'gates', 'soft_mask'):
        outputs[part] = self._rng.uniform(size=(_SEEDS, n, m)).astype(np.float32)
    rate = missing.rate if missing.kind == 'modality' else 0.4
    outputs['kept'] = (self._rng.uniform(size=(n, m)) >= (0 if missing.kind == 'none' else rate)).astype(np.float32)
    if split == 'test':
      self.given.append(outputs)
    else:  # Confidence is fitted on it.
      self.validation.append(outputs)
      self.read.append((split, missing, seed))
    return outputs


def _by_sklearn(task, prediction, label):
  if task == 'regression':
    return {'mae': sk.mean_absolute_error(label, prediction[:, 0]), 'corr': stats.pearsonr(label, prediction[:, 0])[0]}
  if task == 'multilabel':
    decided = prediction > 0
    averages = {
      f'f1_{a}': sk.f1_score(label, decided, average=a, zero_division=0) for a in ('samples', 'micro', 'macro')
    }
    return {**averages, 'subset_accuracy': sk.accuracy_score(label, decided)}
  decided = prediction[:, 0] > 0 if task == 'binary' else prediction.argmax(1)
  found = {
    'accuracy': sk.accuracy_score(label, decided),
    'f1_weighted': sk.f1_score(label, decided, average='weighted', zero_division=0),
    'uar': sk.balanced_accuracy_score(label, decided),
  }
  return {**found, 'auroc': sk.roc_auc_score(label, prediction[:, 0])} if task == 'binary' else found


@pytest.mark.parametrize('task', TASKS)
def test_metrics_of_every_condition_and_seed_are_those_of_scikit_learn(task):
  prepared = _prepared(task)
  scripted, label = _Scripted(prepared.spec), prepared.splits['test'].label
  (row,) = evaluate_method(find_method('dream'), scripted, None, _inputs(prepared), _PROTOCOLS, seed=3)
  assert list(row.protocols) == ['complete', *_PROTOCOLS]
  given = iter(scripted.given)
  for protocol, entry in row.protocols.items():
    wanted = conditions(protocol, prepared.spec)
    assert entry['conditions'] == [{'name': c.name, 'rate': c.rate} for c in wanted]
    of_rates = []
    for q in range(len(wanted)):
      outputs = next(given)
      for s in range(_SEEDS):
        for metric, value in _by_sklearn(task, outputs['prediction'][s], label).items():
          np.testing.assert_allclose(entry['metrics'][metric][q][s], value, rtol=1e-5, atol=1e-6, err_msg=metric)
      of_rates.append({k: v[q] for k, v in entry['metrics'].items()})
    for metric, summary in entry['summary'].items():
      values = np.array([r[metric] for r in of_rates])
      np.testing.assert_allclose(summary['mean'], values.mean(), rtol=1e-9)
      if protocol == 'modality/noise':
        rates = [c.rate for c in wanted]
        area = np.trapezoid(values.mean(1), rates)
        # The area, or the area over the width of the axis: both are in use, so only the shape is held here.
        assert min(abs(summary['auilc'] - area), abs(summary['auilc'] - area / (rates[-1] - rates[0]))) < 1e-6
  assert next(given, None) is None


@pytest.mark.parametrize('task', ['multiclass', 'multilabel'])
def test_single_modalities_fill_a_row_each(task):
  prepared = _prepared(task)
  scripted, label = _Scripted(prepared.spec, unimodal=True), prepared.splits['test'].label
  rows = evaluate_method(find_method('unimodal'), scripted, None, _inputs(prepared), (), seed=3)
  assert [row.name for row in rows] == [f'unimodal/{name}' for name in _NAMES]
  assert [row.modality for row in rows] == list(_NAMES)
  for m, row in enumerate(rows):
    for s in range(_SEEDS):
      for metric, value in _by_sklearn(task, scripted.given[0]['unimodal_predictions'][s][:, m], label).items():
        np.testing.assert_allclose(row.protocols['complete']['metrics'][metric][0][s], value, rtol=1e-6)


@pytest.mark.parametrize(('name', 'task'), [*(('dream', task) for task in TASKS), ('unimodal', 'multiclass')])
def test_confidence_is_fitted_on_all_draws_of_validation_and_measured_on_test(name, task):
  prepared, single, missing = _prepared(task), name == 'unimodal', Missing('modality', 0.3)
  spec, scripted = prepared.spec, _Scripted(prepared.spec, unimodal=single)
  rows = evaluate_method(
    find_method(name), scripted, None, _inputs(prepared), ('modality/noise',), seed=3, trained_under=missing, draws=3
  )
  assert scripted.read == [('validation', missing, seed) for seed in (3, 4, 5)]
  truth = np.concatenate([prepared.splits['validation'].label] * 3)
  for m, row in enumerate(rows):
    fitted, measured = (
      [o['unimodal_predictions'][:, :, m] if single else o['prediction'] for o in given]
      for given in (scripted.validation, scripted.given)
    )
    wanted = tuple(calibration.fit(spec, p, truth) for p in np.concatenate(fitted, axis=1))
    assert row.calibration == wanted
    assert len(set(wanted)) == _SEEDS  # So that one seed's number for another would show.
    metrics = [entry['metrics'] for entry in row.protocols.values()]
    for s in range(_SEEDS):
      each = [calibration.measure(spec, wanted[s], p[s], prepared.splits['test'].label) for p in measured]
      for metric in each[0]:
        values = [by_seed[s] for found in metrics for by_seed in found[metric]]
        np.testing.assert_allclose(values, [e[metric] for e in each], rtol=1e-9, err_msg=metric)


def test_recognition_is_scored_over_all_slots_of_a_protocol():
  prepared = _prepared('multiclass')
  scripted = _Scripted(prepared.spec)
  (row,) = evaluate_method(find_method('dream'), scripted, None, _inputs(prepared), _PROTOCOLS, seed=3)
  given = iter(scripted.given)
  for protocol in ('complete', *_PROTOCOLS):
    found, here = [], conditions(protocol, prepared.spec)
    for q, condition in enumerate(here):
      outputs = next(given)
      kept = outputs['kept'] >= 0.5
      if 0 < kept.sum() < kept.size:
        each = [sk.roc_auc_score(kept.ravel(), p.ravel()) for p in outputs['presence']]
        np.testing.assert_allclose(row.contribution[protocol]['recognition_auroc'][q], np.mean(each), rtol=1e-6)
      else:
        assert row.contribution[protocol]['recognition_auroc'][q] is None
      np.testing.assert_allclose(
        row.contribution[protocol]['contributions'][q], outputs['contributions'].mean((0, 1)), rtol=1e-5
      )
      for m in range(kept.shape[1]):
        where, mean = kept[:, m], outputs['contributions'].mean(0)[:, m]
        value = row.contribution[protocol]['contributions_kept'][q][m]
        np.testing.assert_allclose(value, mean[where].mean(), rtol=1e-5)
      if condition.missing.kind != 'none' and condition.rate != 0:
        found.append((kept, outputs['presence']))
    if protocol == 'complete':
      continue
    truth = np.concatenate([k.ravel() for k, _ in found])
    pooled = [sk.roc_auc_score(truth, np.concatenate([p[s].ravel() for _, p in found])) for s in range(_SEEDS)]
    np.testing.assert_allclose(
      row.contribution['scores'][f'recognition AUROC, {protocol}']['mean'], np.mean(pooled), rtol=1e-6
    )


def test_scores_of_samples_average_to_the_primary_metric(reference):
  for protocol, entry in reference[0].protocols.items():
    scores = reference[0].sample_scores[protocol]
    assert scores.shape == (_SEEDS, 23)
    np.testing.assert_allclose(scores.mean(1), np.mean(entry['metrics']['accuracy'], axis=0), rtol=1e-9)


@pytest.mark.parametrize('task', TASKS)
def test_constant_prediction_is_the_majority_or_the_mean(task):
  prepared = _prepared(task)
  train, test = prepared.splits['train'].label, prepared.splits['test'].label
  constant = ConstantPredictor(prepared, _SEEDS)
  prediction = constant.split(None, _inputs(prepared), 'test', missing=Missing(), seed=0)['prediction']
  assert prediction.shape == (_SEEDS, len(test), prepared.spec.num_outputs)
  assert (prediction == prediction[:1, :1]).all()
  (row,) = evaluate_method(find_method('majority'), constant, None, _inputs(prepared), ('modality/zeros',), seed=3)
  assert row.contribution is None
  metrics = row.protocols['modality/zeros']['metrics']
  if task == 'regression':
    np.testing.assert_allclose(metrics['mae'], np.abs(test - train.mean()).mean(), rtol=1e-5)
  elif task == 'multilabel':
    decided = np.broadcast_to(train.mean(0) > 0.5, test.shape)
    np.testing.assert_allclose(metrics['f1_samples'], sk.f1_score(test, decided, average='samples', zero_division=0))
  else:
    np.testing.assert_allclose(metrics['accuracy'], (test == np.bincount(train).argmax()).mean())
  if task == 'multiclass':
    np.testing.assert_allclose(np.exp(prediction[0, 0]), np.bincount(train, minlength=3) / len(train), rtol=1e-5)


@pytest.mark.parametrize('name', ['dream', 'late+dropout'])
def test_equal_inputs_are_predicted_once_and_nothing_else_changes(name):
  predictor, params, inputs = _predictor(name, 'multiclass', 8, _one_device())
  protocols = ('complete', 'modality/zeros', 'subset/zeros', 'imbalanced/zeros', 'frames/swap')
  wanted = [c.missing for p in protocols for c in conditions(p, inputs.prepared.spec)]
  plain = [predictor.split(params, inputs, 'test', missing=m, seed=3) for m in wanted]
  seen, forward, rows = Seen(), predictor._forward, []

  def count(params, batch):
    rows.append(len(next(iter(batch.values()))))
    return forward(params, batch)

  predictor._forward = count
  for missing, expected in zip(wanted, plain, strict=True):
    got = predictor.split(params, inputs, 'test', missing=missing, seed=3, seen=seen)
    assert got.keys() == expected.keys()
    for key, value in expected.items():
      np.testing.assert_allclose(got[key], value, rtol=1e-5, atol=1e-6)
  assert 23 <= sum(rows) < 0.6 * 23 * len(wanted)
  # What was met before is not predicted again, in any order.
  del rows[:]
  for missing in reversed(wanted):
    predictor.split(params, inputs, 'test', missing=missing, seed=3, seen=seen)
  assert rows == []


def test_numbers_tell_inputs_apart_by_content_and_by_what_an_oracle_is_told():
  inputs = _inputs(_prepared('multiclass'))
  conditions_met = (Missing(), *(Missing('modality', r, fills=('noise',)) for r in (0.3, 0.6)), Missing('frames', 0.5))
  content, told = {}, {}
  for missing in conditions_met:
    numbers, kept = inputs.numbers('test', missing, 3)
    whole = next(eval_batches(inputs.prepared.splits['test'], inputs.prepared, missing=missing, seed=3, batch_size=23))
    np.testing.assert_array_equal(kept, whole['kept'])
    for i, number in enumerate(numbers):
      mine = b''.join(x[i].tobytes() for x in whole['inputs'].values())
      assert content.setdefault(number, mine) == mine
      assert told.setdefault(number, kept[i].tobytes()) == kept[i].tobytes()
  assert len(set(content.values())) == len(content)
  assert 23 < len(content) < 23 * len(conditions_met)


def test_a_full_memory_predicts_as_without_one(monkeypatch):
  predictor, params, inputs = _predictor('concat', 'multiclass', 8, _one_device())
  seen = Seen()
  for missing in (Missing(), Missing('modality', 0.5)):
    expected = predictor.split(params, inputs, 'test', missing=missing, seed=3)
    got = predictor.split(params, inputs, 'test', missing=missing, seed=3, seen=seen)
    np.testing.assert_allclose(got['prediction'], expected['prediction'], rtol=1e-5, atol=1e-6)
    monkeypatch.setattr('dream_jax.evaluation.predict._SEEN_BYTES', 0)
    assert seen.full
