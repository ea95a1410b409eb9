"""Metrics, statistics, calibration and Shapley values against slow definitions, on whatever hypothesis thinks of."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special, stats
from sklearn import metrics as sk

from dream_jax.evaluation import calibration, intervals, metrics
from dream_jax.models import coalitions
from dream_jax.spec import DatasetSpec, ModalitySpec

QUICK = settings(derandomize=True, deadline=None, max_examples=60, database=None)
MODALITIES = (ModalitySpec('a', 'vector', (2,)), ModalitySpec('b', 'vector', (2,)))
# Few values, so that ties, constants and zeros come up, and any others.
VALUES = st.one_of(st.sampled_from((-3.0, -0.5, 0.0, 0.5, 1.0, 3.0)), st.floats(-5, 5, width=32))


def spec(task, num_outputs=1, label_range=(0.0, 0.0)):
  return DatasetSpec('s', MODALITIES, task, num_outputs, 'real', label_range=label_range)


def vectors(size, values=VALUES, dtype=np.float64):
  return arrays.arrays(dtype, size, elements=values)


@st.composite
def classified(draw, least=1):
  """(number of classes, logits [n, C], labels [n])."""
  classes, n = draw(st.integers(2, 4)), draw(st.integers(least, 12))
  labels = draw(arrays.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
  return classes, draw(vectors((n, classes))), labels


@QUICK
@given(classified())
def test_classification_is_that_of_scikit_learn(case):
  classes, logits, label = case
  found = metrics.compute(spec('multiclass', classes), logits, label)
  decided = logits.argmax(1)
  assert found['accuracy'] == pytest.approx(sk.accuracy_score(label, decided))
  assert found['f1_weighted'] == pytest.approx(sk.f1_score(label, decided, average='weighted', zero_division=0))
  occurring = sorted(set(label.tolist()))
  expected = sk.recall_score(label, decided, labels=occurring, average='macro', zero_division=0)
  assert found['uar'] == pytest.approx(expected)
  assert metrics.sample_scores(spec('multiclass', classes), logits, label).mean() == pytest.approx(found['accuracy'])


@QUICK
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(vectors(n), arrays.arrays(bool, n))))
def test_the_area_under_the_curve_counts_pairs(case):
  score, label = case
  pairs = [(p > q) + 0.5 * (p == q) for p in score[label] for q in score[~label]]
  found = metrics.auroc(score, label.astype(int))
  assert math.isnan(found) if not pairs else found == pytest.approx(np.mean(pairs))


@QUICK
@given(st.integers(1, 10).flatmap(lambda n: st.tuples(vectors((n, 3)), arrays.arrays(bool, (n, 3)))))
def test_multilabel_is_that_of_scikit_learn(case):
  logits, label = case
  found = metrics.compute(spec('multilabel', 3), logits, label.astype(np.float32))
  for average in ('micro', 'macro', 'weighted', 'samples'):
    expected = sk.f1_score(label, logits > 0, average=average, zero_division=0)
    assert found[f'f1_{average}'] == pytest.approx(expected), average
  assert found['subset_accuracy'] == pytest.approx(sk.accuracy_score(label, logits > 0))
  occurring = np.flatnonzero(label.any(0))
  expected = [sk.average_precision_score(label[:, c], logits[:, c]) for c in occurring]
  assert math.isnan(found['map']) if not expected else found['map'] == pytest.approx(np.mean(expected))


@QUICK
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(vectors((n, 1)), vectors(n))))
def test_regression_in_ranges_and_by_the_definition(case):
  prediction, label = case
  label = label.clip(-3, 3)
  found = metrics.compute(spec('regression', label_range=(-3.0, 3.0)), prediction, label)
  assert found['mae'] == pytest.approx(np.abs(prediction[:, 0] - label).mean(), abs=1e-6)
  assert -1 <= found['corr'] <= 1
  for name, value in found.items():
    if name not in ('mae', 'corr'):
      assert math.isnan(value) or 0 <= value <= 1, name
  kept = label != 0
  if kept.any():
    assert found['acc2_non0'] == pytest.approx(((prediction[:, 0] > 0) == (label > 0))[kept].mean())


@QUICK
@given(classified(), st.data())
def test_the_order_of_samples_changes_nothing(case, data):
  classes, logits, label = case
  order = data.draw(st.permutations(range(len(label))))
  one = metrics.compute(spec('multiclass', classes), logits, label)
  other = metrics.compute(spec('multiclass', classes), logits[order], label[order])
  assert one == pytest.approx(other, nan_ok=True)


@QUICK
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12))
def test_the_interval_over_seeds_is_students(values):
  found = intervals.summarise(values)
  assert found['mean'] == pytest.approx(np.mean(values), abs=1e-6)
  error = stats.sem(values)
  if error == 0:
    assert found['ci95'] == pytest.approx([found['mean']] * 2)
  else:
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
    assert found['ci95'] == pytest.approx([low, high], rel=1e-6, abs=1e-6)


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_steps_down(p_values):
  found = intervals.holm(p_values)
  order = sorted(range(len(p_values)), key=lambda i: p_values[i])
  expected, running = [0.0] * len(p_values), 0.0
  for rank, i in enumerate(order):
    running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
    expected[i] = running
  assert found == pytest.approx(expected)
  assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))


@settings(QUICK, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 9), st.data())
def test_comparisons_are_antisymmetric_and_hold_their_difference(seeds, n, data):
  a, b = (data.draw(vectors((seeds, n))) for _ in range(2))
  one, other = (intervals.paired_comparison(x, y, num_resamples=200) for x, y in ((a, b), (b, a)))
  assert one.difference == pytest.approx(-other.difference)
  assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=1e-6)
  assert one.p == pytest.approx(other.p)
  assert one.ci95[0] <= one.ci95[1]
  assert 0 < one.p <= 1
  shifted = intervals.paired_comparison(a + 1, b, num_resamples=200)
  assert shifted.difference == pytest.approx(one.difference + 1, abs=1e-6)


@QUICK
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(vectors(n, st.floats(0.5, 1)), arrays.arrays(bool, n))))
def test_calibration_error_is_that_of_a_loop(case):
  sure, right = case
  expected = 0.0
  for i in range(15):
    inside = (sure >= i / 15) & ((sure < (i + 1) / 15) | (i == 14))
    # A confidence at the edge of two bins falls where floating point puts it.
    assume(not (np.abs(sure * 15 - np.round(sure * 15)) < 1e-9)[sure < 1].any())
    if inside.any():
      expected += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
  found = calibration.expected_calibration_error(sure, right)
  assert found == pytest.approx(expected)
  assert 0 <= found <= 1


@settings(QUICK, max_examples=30)
@given(classified(least=2))
def test_a_temperature_is_the_best_on_a_grid_or_none(case):
  classes, logits, label = case
  made = calibration.fit(spec('multiclass', classes), logits, label)

  def loss(temperature):
    p = np.exp(logits / temperature - special.logsumexp(logits / temperature, axis=1, keepdims=True))
    return -np.log(p[np.arange(len(label)), label]).mean()

  assert 0 < made.temperature < math.inf
  if made.temperature != 1:
    best = min(loss(t) for t in np.exp(np.linspace(-3, 3, 61)))
    assert loss(made.temperature) <= best + 1e-3 * max(1.0, abs(best))
  found = calibration.measure(spec('multiclass', classes), made, logits, label)
  assert found['ece'] <= found['ece_raw']
  decided = (logits / made.temperature).argmax(1)
  assert (decided == logits.argmax(1)).all() or np.ptp(np.sort(logits, axis=1)[:, -2:], axis=1).min() < 1e-9


@QUICK
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(vectors((n, 1)), vectors(n))))
def test_the_margin_is_the_smallest_that_holds_its_share(case):
  prediction, label = case
  margin = calibration.fit(spec('regression'), prediction, label).margin
  error = np.abs(prediction[:, 0] - label)
  need = math.ceil((len(error) + 1) * 0.9)
  if need > len(error):
    assert margin == math.inf
  else:
    assert (error <= margin).sum() >= need
    assert (error < margin).sum() < need


def _by_orders(worth, m):
  """Shapley values as the mean over all orders of arrival; `worth`: frozenset -> value."""
  total = np.zeros(m)
  for order in itertools.permutations(range(m)):
    for i, who in enumerate(order):
      total[who] += worth[frozenset(order[: i + 1])] - worth[frozenset(order[:i])]
  return total / math.factorial(m)


@settings(QUICK, max_examples=30)
@given(st.integers(1, 5), st.data())
def test_shapley_values_are_the_mean_over_orders(m, data):
  rows = coalitions.coalition_matrix(m)
  values = data.draw(vectors(len(rows), st.floats(-4, 4, width=32), np.float32))
  empty = np.float32(data.draw(st.floats(-4, 4, width=32)))
  worth = {frozenset(np.flatnonzero(row).tolist()): float(v) for row, v in zip(rows, values, strict=True)}
  worth[frozenset()] = float(empty)
  assert len(worth) == 2**m
  found = np.asarray(coalitions.shapley_values(jnp.asarray(values), jnp.asarray(empty), m))
  np.testing.assert_allclose(found, _by_orders(worth, m), atol=1e-4)
  assert found.sum() == pytest.approx(float(values[-1] - empty), abs=1e-4)
