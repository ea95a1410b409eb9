"""Evidence against brute force: every sum and integral over the target is done the long way here."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from jax import jit

from dream_jax.models import evidence
from dream_jax.spec import DatasetSpec, ModalitySpec

_OUTPUTS = {'multiclass': 4, 'multilabel': 3, 'binary': 1, 'regression': 1}
_GRID = np.linspace(-12.0, 12.0, 40001)


def _spec(task):
  modalities = (ModalitySpec('a', 'vector', (2,)), ModalitySpec('b', 'vector', (2,)))
  return DatasetSpec('any', modalities, task, _OUTPUTS[task], 'synthetic')


def _drawn(spec, shape=(5,), seed=0):
  rng = np.random.default_rng(seed)
  k = evidence.num_natural(spec)
  prior = rng.normal(size=k).astype(np.float32)
  raw = rng.normal(scale=1.5, size=(*shape, k)).astype(np.float32)
  return jnp.asarray(prior), evidence.from_raw(spec, jnp.asarray(raw))


def _softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def _joint(spec, prior, eta):
  """p(y) exp(eta . T(y)) for every value y of the target, and the values."""
  prior, eta = np.asarray(prior, np.float64), np.asarray(eta, np.float64)
  if spec.task == 'multiclass':
    return _softmax(prior) * np.exp(eta), np.arange(len(prior))
  if spec.task == 'regression':  # T(y) = (y, -y^2 / 2)
    density = np.exp(-0.5 * _GRID**2) / np.sqrt(2 * np.pi)
    return density * np.exp(eta[0] * _GRID - 0.5 * eta[1] * _GRID**2), _GRID
  values = np.array(list(itertools.product((0, 1), repeat=len(prior))))
  p = 1 / (1 + np.exp(-prior))
  of_values = np.where(values == 1, p, 1 - p).prod(-1)
  return of_values * np.exp(values @ eta), values


def _integral(spec, joint):
  return np.trapezoid(joint, _GRID) if spec.task == 'regression' else joint.sum()


@pytest.mark.parametrize('task', _OUTPUTS)
def test_log_partition_is_the_sum_over_the_target(task):
  spec = _spec(task)
  prior, eta = _drawn(spec)
  wanted = [np.log(_integral(spec, _joint(spec, prior, e)[0])) for e in eta]
  np.testing.assert_allclose(evidence.log_partition(spec, prior, eta), wanted, rtol=1e-4, atol=1e-5)
  # No evidence changes nothing.
  np.testing.assert_allclose(evidence.log_partition(spec, prior, jnp.zeros_like(eta)), 0.0, atol=1e-6)


@pytest.mark.parametrize('task', _OUTPUTS)
def test_prediction_is_the_posterior_of_the_target(task):
  spec = _spec(task)
  prior, eta = _drawn(spec, seed=1)
  predicted = np.asarray(evidence.predict(spec, prior, eta))
  assert predicted.shape == (5, spec.num_outputs)
  for row, e in zip(predicted, eta, strict=True):
    joint, values = _joint(spec, prior, e)
    if task == 'multiclass':
      np.testing.assert_allclose(np.exp(row), joint / joint.sum(), rtol=1e-5)
    elif task == 'regression':
      mean = np.trapezoid(joint * values, _GRID) / np.trapezoid(joint, _GRID)
      np.testing.assert_allclose(row[0], mean, rtol=1e-4, atol=1e-5)
    else:
      marginal = (joint[:, None] * values).sum(0) / joint.sum()
      np.testing.assert_allclose(1 / (1 + np.exp(-row)), marginal, rtol=1e-4)


@pytest.mark.parametrize('task', _OUTPUTS)
def test_evidence_of_a_coalition_is_a_sum_and_log_partition_scores_its_agreement(task):
  """log sum_y p(y) prod_m p(y | x_m) / p(y), the Bayes factor of "they speak about one target", from A alone."""
  spec = _spec(task)
  prior, eta = _drawn(spec, shape=(2,), seed=2)

  def a(e):
    return float(evidence.log_partition(spec, prior, e))

  factor = a(eta[0] + eta[1]) - a(eta[0]) - a(eta[1])
  joints = [_joint(spec, prior, e)[0] for e in eta]
  of_prior = _joint(spec, prior, np.zeros_like(eta[0]))[0]
  posteriors = [j / _integral(spec, j) for j in joints]
  np.testing.assert_allclose(
    factor, np.log(_integral(spec, posteriors[0] * posteriors[1] / np.maximum(of_prior, 1e-300))), rtol=1e-3, atol=1e-4
  )


@pytest.mark.parametrize('task', _OUTPUTS)
def test_mixture_averages_probabilities_or_means(task):
  spec = _spec(task)
  rng = np.random.default_rng(3)
  prediction = rng.normal(size=(5, 7, spec.num_outputs)).astype(np.float32)
  weight = _softmax(rng.normal(size=(5, 7)).astype(np.float32))
  got = np.asarray(evidence.mixture(spec, jnp.log(jnp.asarray(weight)), jnp.asarray(prediction)))
  if task == 'regression':
    wanted = (weight[..., None] * prediction).sum(1)
  elif task == 'multiclass':
    wanted = np.log((weight[..., None] * _softmax(prediction)).sum(1))
  else:
    p = (weight[..., None] / (1 + np.exp(-prediction))).sum(1)
    wanted = np.log(p / (1 - p))
  np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
  # A coalition of weight zero says nothing, however extreme its prediction.
  one = jnp.full((5, 7), -1e9).at[:, 2].set(0.0)
  got = evidence.mixture(spec, one, jnp.asarray(prediction))
  alone = _softmax(prediction[:, 2]) if task == 'multiclass' else prediction[:, 2]
  np.testing.assert_allclose(np.exp(got) if task == 'multiclass' else got, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('task', _OUTPUTS)
def test_score_is_the_log_likelihood_or_minus_the_huber_distance(task):
  spec = _spec(task)
  rng = np.random.default_rng(4)
  prediction = rng.normal(scale=2, size=(6, spec.num_outputs)).astype(np.float32)
  if task == 'multiclass':
    label = rng.integers(0, spec.num_outputs, 6).astype(np.int32)
    wanted = np.log(_softmax(prediction))[np.arange(6), label]
  elif task == 'regression':
    label = np.append(prediction[:4, 0] + np.float32([0.0, 0.2, -0.49, 0.75]), [3, -2]).astype(np.float32)
    error = np.abs(prediction[:, 0] - label)
    wanted = -np.where(error < 0.5, error**2, error - 0.25)
    assert (error < 0.5).sum() >= 3
    assert (error > 0.5).any()
  else:
    label = rng.integers(0, 2, (6, spec.num_outputs))
    p = 1 / (1 + np.exp(-prediction))
    wanted = np.log(np.where(label == 1, p, 1 - p)).sum(-1)
    label = label.astype(np.float32) if task == 'multilabel' else label[:, 0].astype(np.int32)
  got = jit(lambda p, y: evidence.score(spec, p, y))(prediction, label)
  np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_precision_is_never_negative_and_raw_numbers_are_mean_and_spread():
  spec = _spec('regression')
  raw = jnp.asarray([[2.0, -200.0], [2.0, 0.0], [-3.0, 50.0]])
  eta = np.asarray(evidence.from_raw(spec, raw))
  assert (eta[:, 1] >= 0).all()
  # Raw mean 2 at no precision is no evidence; at high precision the prediction is the raw mean.
  predicted = np.asarray(evidence.predict(spec, jnp.zeros(2), jnp.asarray(eta)))[:, 0]
  np.testing.assert_allclose(predicted[0], 0.0, atol=1e-6)
  np.testing.assert_allclose(predicted[2], -3.0 * 50 / 51, rtol=1e-5)


@pytest.mark.parametrize('task', _OUTPUTS)
def test_certainty_is_what_entropy_lost(task):
  spec = _spec(task)
  prior, eta = _drawn(spec, seed=6)
  prediction = evidence.predict(spec, prior, eta)
  got = np.asarray(evidence.certainty(spec, prediction, eta))
  for value, e in zip(got, eta, strict=True):
    joint, values = _joint(spec, prior, e)
    p = joint / _integral(spec, joint)
    if task == 'regression':
      entropy = -np.trapezoid(p * np.log(np.maximum(p, 1e-300)), _GRID)
      wanted = 0.5 * np.log(2 * np.pi * np.e) - entropy  # against the standard normal prior
    elif task == 'multiclass':
      wanted = 1 + (p * np.log(p)).sum() / np.log(len(p))
    else:
      q = (p[:, None] * values).sum(0)
      wanted = 1 + (q * np.log(q) + (1 - q) * np.log(1 - q)).mean() / np.log(2)
    np.testing.assert_allclose(value, wanted, rtol=1e-3, atol=1e-4)
  assert (got >= -1e-6).all()


def test_likelihood_of_regression_is_the_gaussian_density():
  spec = _spec('regression')
  prior, eta = _drawn(spec, seed=7)
  label = jnp.asarray([0.0, 1.0, -1.0, 2.0, 0.5])
  got = np.asarray(evidence.log_likelihood(spec, prior, eta, label))
  for value, e, y in zip(got, eta, label, strict=True):
    joint = _joint(spec, prior, e)[0]
    density = np.interp(y, _GRID, joint / _integral(spec, joint))
    np.testing.assert_allclose(value, np.log(density) + 0.5 * np.log(2 * np.pi), rtol=1e-3, atol=1e-3)
