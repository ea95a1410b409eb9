"""Confidence: fitted where it can be checked by hand, measured as its definition says, told to the user."""

import math
from unittest import mock

import numpy as np
import pytest
from scipy import special
from small_runs import small_spec

from dream_jax.evaluation import calibration
from dream_jax.evaluation.calibration import Calibration, confidence, expected_calibration_error, fit, measure

_N = 4000


def _sample(task, factor, n=_N):
  """(spec, logits that are `factor` times too large, labels drawn from the right ones)."""
  spec, rng = small_spec(task), np.random.default_rng(3)
  logits = 1.5 * rng.normal(size=(n, spec.num_outputs))
  if task == 'multiclass':
    label = np.array([rng.choice(spec.num_outputs, p=p) for p in special.softmax(logits, axis=1)])
  else:
    label = (rng.uniform(size=logits.shape) < special.expit(logits)).astype(np.float32)
    label = label[:, 0].astype(np.int32) if task == 'binary' else label
  return spec, factor * logits, label


def _loss(task, temperature, logits, label):
  """Negative log likelihood."""
  if task == 'multiclass':
    p = special.softmax(logits / temperature, axis=1)[np.arange(len(label)), label]
  else:
    p = special.expit(logits / temperature)
    p = np.where(label.reshape(p.shape) == 1, p, 1 - p)
  return -np.log(np.maximum(p, 1e-300)).mean()


@pytest.mark.parametrize('task', ['multiclass', 'binary', 'multilabel'])
@pytest.mark.parametrize('factor', [0.4, 1.0, 3.0])
def test_temperature_undoes_what_the_logits_were_multiplied_with(task, factor):
  spec, logits, label = _sample(task, factor)
  found = fit(spec, logits, label)
  np.testing.assert_allclose(found.temperature, factor, rtol=0.12)
  assert found.margin is None
  scores = measure(spec, found, logits, label)
  assert scores['ece'] < 0.03
  if factor != 1.0:
    assert scores['ece_raw'] > 2.5 * scores['ece']


@pytest.mark.parametrize('task', ['multiclass', 'binary', 'multilabel'])
def test_temperature_minimises_the_negative_log_likelihood(task):
  spec, logits, label = _sample(task, 2.0, n=300)
  found = fit(spec, logits, label).temperature
  grid = np.exp(np.linspace(-2, 2, 401))
  assert _loss(task, found, logits, label) <= min(_loss(task, t, logits, label) for t in grid) + 1e-9


@pytest.mark.parametrize('task', ['multiclass', 'binary', 'multilabel'])
def test_no_temperature_is_kept_that_makes_its_own_samples_worse(task):
  """Of few samples the likelihood and the calibration error often disagree."""
  kept = 0
  for seed in range(150):
    spec, rng = small_spec(task), np.random.default_rng(seed)
    logits = rng.choice((0.5, 1.0, 2.0)) * rng.normal(size=(rng.integers(5, 40), spec.num_outputs))
    label = rng.integers(0, spec.num_outputs, len(logits))
    if task != 'multiclass':
      label = rng.integers(0, 2, logits.shape if task == 'multilabel' else len(logits))
    found = fit(spec, logits, label)
    scores = measure(spec, found, logits, label)
    assert scores['ece'] <= scores['ece_raw']
    assert _loss(task, found.temperature, logits, label) <= _loss(task, 1.0, logits, label) + 1e-12
    kept += found.temperature != 1.0
  assert 20 < kept < 150


def test_a_minimum_that_is_worse_than_none_is_not_kept(monkeypatch):
  spec, logits, label = _sample('multiclass', 1.0, n=300)
  monkeypatch.setattr(calibration.optimize, 'minimize_scalar', lambda *_, **__: mock.Mock(x=2.0))
  assert fit(spec, logits, label) == Calibration()


def test_calibration_error_by_hand():
  # Two bins: .62 and .62 with one right (gap .12 each), .95 twice right (gap .05 each).
  sure, right = np.array([0.62, 0.62, 0.95, 0.95]), np.array([True, False, True, True])
  np.testing.assert_allclose(expected_calibration_error(sure, right), (2 * 0.12 + 2 * 0.05) / 4)
  assert expected_calibration_error(np.ones(5), np.ones(5, bool)) == 0.0
  np.testing.assert_allclose(expected_calibration_error(np.ones(5), np.zeros(5, bool)), 1.0)


def test_calibration_error_equals_a_loop_over_bins():
  spec, logits, label = _sample('multiclass', 2.0, n=500)
  sure, right = confidence(spec, logits, label)
  expected = 0.0
  for low in np.arange(15) / 15:
    inside = (sure >= low) & (sure < low + 1 / 15)
    if inside.any():
      expected += inside.mean() * abs(sure[inside].mean() - right[inside].mean())
  np.testing.assert_allclose(expected_calibration_error(sure, right), expected, rtol=1e-9)


def test_interval_of_a_regression_holds_its_share_of_new_samples():
  spec, rng = small_spec('regression'), np.random.default_rng(0)
  covered = []
  for _ in range(200):
    error = rng.standard_t(3, size=(2, 100))
    found = fit(spec, np.zeros((100, 1)), error[0])
    assert found.temperature == 1.0
    covered.append(np.mean(np.abs(error[1]) <= found.margin))
  assert abs(np.mean(covered) - 0.9) < 0.01
  # (n + 1) 0.9 = 90.9: the 91st smallest of a hundred errors.
  np.testing.assert_allclose(fit(spec, np.zeros((100, 1)), np.arange(1.0, 101.0)).margin, 91.0)
  scores = measure(spec, Calibration(margin=1.0), np.zeros((4, 1)), np.array([0.0, 0.5, 2.0, 3.0]))
  np.testing.assert_allclose(scores['coverage_gap'], 0.4)


def test_too_few_samples_promise_nothing():
  assert fit(small_spec('regression'), np.zeros((5, 1)), np.arange(5.0)).margin == math.inf


@pytest.mark.parametrize('task', ['multiclass', 'regression'])
def test_a_model_that_diverged_has_no_confidence(task):
  spec = small_spec(task)
  bad = np.full((10, spec.num_outputs), np.nan)
  label = np.zeros(10, np.int32)
  scores = measure(spec, fit(spec, bad, label), bad, label)
  assert all(math.isnan(v) for v in scores.values())
