"""Metrics against scikit-learn, SciPy, recorded answers of MMSA itself and a plain transcription of its regression."""

import json
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from dream_jax.evaluation import metrics
from dream_jax.spec import DatasetSpec, ModalitySpec

MODALITIES = (ModalitySpec('a', 'vector', (2,)), ModalitySpec('b', 'vector', (2,)))
NAN = float('nan')

# What MMSA's own code answers; benchmarks/mmsa_metrics.py writes it.
MMSA_CASES = json.loads((pathlib.Path(__file__).parent / 'golden' / 'mmsa_metrics.json').read_text())['cases']
# Our name of each metric of MMSA, by task; None: we do not compute it.
MMSA_NAMES = {
  'regression': {
    'MAE': 'mae',
    'Corr': 'corr',
    'Mult_acc_7': 'acc7',
    'Mult_acc_5': 'acc5',
    'Mult_acc_3': 'acc3',
    'Mult_acc_2': 'acc2',
    'F1_score': 'f1',
    'Has0_acc_2': 'acc2_has0',
    'Has0_F1_score': 'f1_has0',
    'Non0_acc_2': 'acc2_non0',
    'Non0_F1_score': 'f1_non0',
  },
  'classification': {
    'Acc_3': 'accuracy',
    'F1_score_3': 'f1_weighted',
    'Has0_acc_2': None,
    'Has0_F1_score': None,
    'Non0_acc_2': None,
    'Non0_F1_score': None,
  },
}
MMSA_SPECS = {
  ('regression', 'MOSI'): ('regression', 1, (-3.0, 3.0)),
  ('regression', 'MOSEI'): ('regression', 1, (-3.0, 3.0)),
  ('regression', 'SIMS'): ('regression', 1, (-1.0, 1.0)),
  ('classification', 'MOSI'): ('multiclass', 3),
  ('classification', 'MOSEI'): ('multiclass', 3),
  ('classification', 'SIMS'): ('multiclass', 3),
}
# MMSA's correlation of a constant, or of one sample, is NaN; ours is 0.
CONSTANT = {
  name: {'corr': 0.0}
  for name in (
    'one sample',
    *(f'constant prediction {value}' for value in (0.0, 0.1, -0.7, 0.3, 2.5)),
    'constant label 0.4',
    'constant prediction and label',
  )
}
SENTIMENT_INSTEAD = CONSTANT | {
  # Without a label beside zero MMSA raises; only its second convention is undefined.
  'all labels zero': {
    'mae': 0.5,
    'corr': 0.0,
    'acc7': 0.75,
    'acc5': 0.75,
    'acc2_has0': 0.75,
    'f1_has0': 6 / 7,
    'acc2_non0': NAN,
    'f1_non0': NAN,
  },
  # MMSA adds in float32 and overflows.
  'sum beyond float32': {'mae': 2.25e38},
  # MMSA counts NaN as a negative decision; a diverged model has no metrics.
  'NaN prediction': dict.fromkeys(('acc7', 'acc5', 'acc2_has0', 'f1_has0', 'acc2_non0', 'f1_non0'), NAN),
}
SIMS_INSTEAD = CONSTANT | {
  # Constant, the latter two once clipped.
  'all labels zero': {'corr': 0.0},
  'far from zero': {'corr': 0.0},
  'only infinite predictions': {'corr': 0.0},
  # MMSA raises.
  'NaN prediction': dict.fromkeys(('mae', 'corr', 'acc2', 'acc3', 'acc5', 'f1'), NAN),
}
CLASSES_INSTEAD = {
  # MMSA raises, for its two-class metrics.
  'all labels neutral': {'accuracy': 0.75, 'f1_weighted': 6 / 7},
  # MMSA takes NaN for the highest score.
  'NaN score': {'accuracy': NAN, 'f1_weighted': NAN},
}
# Where MMSA raises or has no sensible number: what we answer, by data set and case.
INSTEAD_OF_MMSA = {
  ('regression', 'MOSI'): SENTIMENT_INSTEAD,
  ('regression', 'MOSEI'): SENTIMENT_INSTEAD,
  ('regression', 'SIMS'): SIMS_INSTEAD,
  ('classification', 'MOSI'): CLASSES_INSTEAD,
  ('classification', 'MOSEI'): CLASSES_INSTEAD,
  ('classification', 'SIMS'): CLASSES_INSTEAD,
}


def make_spec(task, num_outputs=1, label_range=(0.0, 0.0)):
  return DatasetSpec('fake', MODALITIES, task, num_outputs, 'synthetic', label_range=label_range)


def quiet(function, *args, **kwargs):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return function(*args, **kwargs)


def sentiment_reference(pred, truth):
  """MMSA's MOSI/MOSEI regression metrics, line by line on scikit-learn, without the rounding to four digits."""
  non_zeros = np.array([i for i, e in enumerate(truth) if e != 0])
  seven = [np.round(np.clip(x, -3.0, 3.0)) for x in (pred, truth)]
  five = [np.round(np.clip(x, -2.0, 2.0)) for x in (pred, truth)]
  return {
    'mae': np.mean(np.absolute(pred - truth)),
    'corr': np.corrcoef(pred, truth)[0][1],
    'acc7': np.sum(seven[0] == seven[1]) / len(truth),
    'acc5': np.sum(five[0] == five[1]) / len(truth),
    'acc2_has0': sk.accuracy_score(truth >= 0, pred >= 0),
    'f1_has0': sk.f1_score(truth >= 0, pred >= 0, average='weighted'),
    'acc2_non0': sk.accuracy_score(truth[non_zeros] > 0, pred[non_zeros] > 0),
    'f1_non0': sk.f1_score(truth[non_zeros] > 0, pred[non_zeros] > 0, average='weighted'),
  }


def sims_reference(pred, truth):
  """MMSA's CH-SIMS metrics: clip first, then classes of half-open intervals."""
  pred, truth = np.clip(pred, -1.0, 1.0), np.clip(truth, -1.0, 1.0)
  result = {'mae': np.mean(np.absolute(pred - truth)), 'corr': np.corrcoef(pred, truth)[0][1]}
  for k, edges in {
    2: [-1.01, 0.0, 1.01],
    3: [-1.01, -0.1, 0.1, 1.01],
    5: [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01],
  }.items():
    classes = []
    for values in (pred, truth):
      out = values.copy()
      for i in range(k):
        out[np.logical_and(values > edges[i], values <= edges[i + 1])] = i
      classes.append(np.round(out))
    result[f'acc{k}'] = np.sum(classes[0] == classes[1]) / len(truth)
    if k == 2:
      result['f1'] = sk.f1_score(classes[1], classes[0], average='weighted')
  return result


def assert_same(found, expected, tol=1e-6):
  assert set(found) == set(expected)
  for name, value in expected.items():
    assert found[name] == pytest.approx(value, abs=tol, nan_ok=True), name
    assert isinstance(found[name], float)


def rounded(value):
  """Equal to a number that MMSA rounded to four digits, its mean in float32."""
  return pytest.approx(value, abs=0.51e-4, rel=1e-6, nan_ok=True)


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning:numpy')  # The span of infinite predictions.
@pytest.mark.parametrize(
  ('dataset', 'case'),
  [
    pytest.param(dataset, case, id=f'{case["task"]}-{dataset}-{case["name"]}')
    for case in MMSA_CASES
    for dataset in case['mmsa']
  ],
)
def test_metrics_equal_mmsa(dataset, case):
  task = case['task'], dataset
  # Beside the recorded float32, in float64: MMSA's tensors would round it away, and so must we.
  prediction, label = np.array(case['prediction']) * (1 + 1e-12), np.array(case['label'])
  if task[0] == 'regression':
    label = label * (1 + 1e-12)
  found = metrics.compute(make_spec(*MMSA_SPECS[task]), prediction.reshape(len(label), -1), label)
  found.pop('uar', None)
  answer = case['mmsa'][dataset]
  if isinstance(answer, str):  # The error that it raised.
    answer = {}
  theirs = {MMSA_NAMES[task[0]][name]: value for name, value in answer.items()}
  theirs.pop(None, None)
  instead = INSTEAD_OF_MMSA[task].get(case['name'], {})
  assert set(theirs | instead) == set(found)
  for name, value in (theirs | instead).items():
    assert found[name] == rounded(value), name
  for name in set(theirs) & set(instead):
    assert theirs[name] != rounded(instead[name]), f'{name} does not differ from MMSA'


def test_mmsa_has_answered_for_every_data_set_and_metric():
  asked, answered = {}, {}
  for case in MMSA_CASES:
    for dataset, answer in case['mmsa'].items():
      asked.setdefault((case['task'], dataset), set()).add(case['name'])
      answered.setdefault(case['task'], set()).update(() if isinstance(answer, str) else answer)
  assert set(asked) == set(MMSA_SPECS)
  assert answered == {task: set(names) for task, names in MMSA_NAMES.items()}
  for task, cases in INSTEAD_OF_MMSA.items():
    assert set(cases) < asked[task]


@pytest.mark.parametrize('case', range(6))
def test_sentiment_regression_equals_the_reference(case):
  rng = np.random.default_rng(case)
  # Halves, zeros and values beyond the range: where rounding, conventions and clipping matter.
  truth = rng.choice(np.r_[np.arange(-3, 3.1, 1 / 3), 0.0, 0.0, 0.5, -0.5, 1.5, 2.5], 301).astype(np.float32)
  pred = (truth + rng.normal(0, 1.5, 301)).astype(np.float32)
  pred[::3] = np.round(2 * pred[::3]) / 2
  if case == 4:
    pred = np.abs(pred)  # one predicted class only
  if case == 5:
    truth = np.abs(truth) + 0.25  # one true class only
  found = metrics.compute(make_spec('regression', label_range=(-3.0, 3.0)), pred[:, None], truth)
  assert_same(found, sentiment_reference(pred, truth))


def test_f1_is_weighted_by_the_labels_and_not_by_the_predictions():
  truth = np.array([1, 1, 1, 1, 1, 1, 1, -1], np.float32)
  pred = np.array([1, 1, -1, -1, -1, -1, -1, -1], np.float32)
  found = metrics.compute(make_spec('regression', label_range=(-3.0, 3.0)), pred[:, None], truth)
  right = sk.f1_score(truth > 0, pred > 0, average='weighted')
  swapped = sk.f1_score(pred > 0, truth > 0, average='weighted')
  assert found['f1_non0'] == pytest.approx(right)
  assert abs(right - swapped) > 0.05


@pytest.mark.parametrize('case', range(4))
def test_sims_regression_equals_the_reference(case):
  rng = np.random.default_rng(case)
  truth = rng.choice(np.array([-1, -0.8, -0.7, -0.6, -0.4, -0.2, -0.1, 0, 0.1, 0.2, 0.7, 1.0]), 200).astype(np.float32)
  pred = (truth + rng.choice([0, 0.1, -0.1, 0.7, -0.9, 1.3], 200)).astype(np.float32)
  spec = make_spec('regression', label_range=(-1.0, 1.0))
  assert_same(metrics.compute(spec, pred[:, None], truth), sims_reference(pred, truth))
  scores = metrics.sample_scores(spec, pred[:, None], truth)
  assert scores.mean() == pytest.approx(metrics.compute(spec, pred[:, None], truth)['mae'], abs=1e-6)


def test_constant_prediction_has_correlation_zero():
  truth = np.linspace(-3, 3, 50, dtype=np.float32)
  for constant in (0.0, 0.1, 1e6):
    pred = np.full((50, 1), constant, np.float32)
    assert metrics.compute(make_spec('regression', label_range=(-3.0, 3.0)), pred, truth)['corr'] == 0.0


def test_other_label_ranges_get_only_error_and_correlation():
  found = metrics.compute(make_spec('regression', label_range=(0.0, 10.0)), np.arange(4.0)[:, None], np.arange(4.0) + 1)
  assert_same(found, {'mae': 1.0, 'corr': 1.0})


def test_no_label_beside_zero_leaves_the_second_convention_undefined():
  found = metrics.compute(make_spec('regression', label_range=(-3.0, 3.0)), np.ones((3, 1)), np.zeros(3))
  assert np.isnan(found['acc2_non0'])
  assert np.isnan(found['f1_non0'])
  assert found['acc2_has0'] == 1.0


@pytest.mark.parametrize('labels', [range(5), (0, 1, 3), (4,)])
def test_multiclass_equals_scikit_learn(labels):
  rng = np.random.default_rng(len(labels))
  truth = rng.choice(list(labels), 120)
  logits = rng.normal(size=(120, 5)).astype(np.float32)
  logits[::4, 2] = -np.inf  # log-probabilities may hold minus infinity
  logits[np.arange(0, 120, 2), truth[::2]] += 3
  logits[:10] = 0.0  # ties go to the first class
  decided = logits.argmax(1)
  spec = make_spec('multiclass', 5)
  found = metrics.compute(spec, logits, truth)
  expected = {
    'accuracy': sk.accuracy_score(truth, decided),
    'f1_weighted': quiet(sk.f1_score, truth, decided, average='weighted', zero_division=0),
    'uar': quiet(sk.balanced_accuracy_score, truth, decided),
  }
  assert_same(found, expected)
  assert metrics.sample_scores(spec, logits, truth).mean() == pytest.approx(found['accuracy'])


@pytest.mark.parametrize('labels', [(0, 1), (1,)])
def test_binary_equals_scikit_learn(labels):
  rng = np.random.default_rng(7)
  truth = rng.choice(labels, 90)
  logit = np.round(rng.normal(size=(90, 1)) + truth[:, None], 1).astype(np.float32)
  decided = (logit[:, 0] > 0).astype(int)
  found = metrics.compute(make_spec('binary'), logit, truth)
  expected = {
    'accuracy': sk.accuracy_score(truth, decided),
    'f1_weighted': sk.f1_score(truth, decided, average='weighted'),
    'uar': quiet(sk.balanced_accuracy_score, truth, decided),
    'auroc': sk.roc_auc_score(truth, logit[:, 0]) if len(labels) == 2 else float('nan'),
  }
  assert_same(found, expected)


def test_multilabel_equals_scikit_learn():
  rng = np.random.default_rng(3)
  truth = (rng.random((80, 6)) < 0.3).astype(np.float32)
  truth[:, 4] = 0  # a label that never occurs
  truth[:5] = 0  # samples without labels
  logits = np.round(rng.normal(size=(80, 6)) + truth - 0.5, 1).astype(np.float32)
  logits[:3] = -1.0
  decided = logits > 0
  occurs = truth.any(0)
  spec = make_spec('multilabel', 6)
  f1 = {a: sk.f1_score(truth, decided, average=a, zero_division=0) for a in ('samples', 'micro', 'macro', 'weighted')}
  expected = {f'f1_{a}': value for a, value in f1.items()}
  expected['subset_accuracy'] = sk.accuracy_score(truth, decided)
  expected['map'] = sk.average_precision_score(truth[:, occurs], logits[:, occurs], average='macro')
  found = metrics.compute(spec, logits, truth)
  assert_same(found, expected)
  assert metrics.sample_scores(spec, logits, truth).mean() == pytest.approx(found['f1_samples'])


@pytest.mark.parametrize(
  ('task', 'num_outputs'), [('regression', 1), ('binary', 1), ('multiclass', 3), ('multilabel', 3)]
)
def test_a_diverged_prediction_makes_every_metric_nan(task, num_outputs):
  spec = make_spec(task, num_outputs, (-3.0, 3.0))
  label = np.zeros((4, 3)) if task == 'multilabel' else np.zeros(4)
  prediction = np.zeros((4, num_outputs))
  names = set(metrics.compute(spec, prediction, label))
  prediction[1, 0] = np.nan
  found = metrics.compute(spec, prediction, label)
  assert set(found) == names
  assert all(np.isnan(v) for v in found.values())
  assert np.isnan(metrics.sample_scores(spec, prediction, label)).tolist() == [False, True, False, False]


def test_primary_metric_is_computed_and_knows_its_direction():
  for task, outputs, better in [
    ('regression', 1, False),
    ('binary', 1, True),
    ('multiclass', 3, True),
    ('multilabel', 3, True),
  ]:
    spec = make_spec(task, outputs, (-3.0, 3.0))
    name, higher = metrics.primary_metric(spec)
    label = np.zeros((4, 3)) if task == 'multilabel' else np.arange(4) % 2
    assert name in metrics.compute(spec, np.ones((4, outputs)), label)
    assert higher is better


def test_wrong_shapes_are_named():
  with pytest.raises(ValueError, match=r'\(4, 2\).*\(4,\)'):
    metrics.compute(make_spec('multiclass', 3), np.zeros((4, 2)), np.zeros(4))
  with pytest.raises(ValueError, match='no sample'):
    metrics.compute(make_spec('binary'), np.zeros((0, 1)), np.zeros(0))


@pytest.mark.parametrize('digits', [0, 1, 8])
def test_rank_measures_equal_references_with_ties(digits):
  rng = np.random.default_rng(digits)
  a, b = np.round(rng.normal(size=200), digits), np.round(rng.normal(size=200), digits)
  label = rng.random(200) < 0.2
  assert metrics.spearman(a, a + b) == pytest.approx(stats.spearmanr(a, a + b).statistic)
  assert metrics.auroc(a + label, label) == pytest.approx(sk.roc_auc_score(label, a + label))


def test_rank_measures_of_constants():
  assert metrics.spearman(np.ones(5), np.arange(5)) == 0.0
  assert metrics.auroc(np.ones(5), [0, 1, 0, 1, 1]) == 0.5
  assert np.isnan(metrics.auroc(np.arange(3), np.ones(3)))


def test_auilc_is_the_area_over_the_span():
  assert metrics.auilc([0.0, 0.1, 0.7], [0.9, 0.8, 0.2]) == pytest.approx((0.085 + 0.5 * 0.6) / 0.7)
  assert metrics.auilc([0.2, 0.5], [0.6, 0.6]) == pytest.approx(0.6)
  assert metrics.auilc([0.3], [0.4]) == 0.4
  with pytest.raises(ValueError, match='increase'):
    metrics.auilc([0.1, 0.1], [1, 1])


def test_metrics_and_statistics_load_without_jax():
  code = (
    'import sys, dream_jax.evaluation.metrics, dream_jax.evaluation.intervals; '
    'sys.exit(bool({"jax", "tensorflow"} & set(sys.modules)))'
  )
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
