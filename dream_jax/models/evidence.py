"""Predictions as evidence: natural parameters that add up over modalities.

If modalities are independent given the target, p(y | x_1..x_M) is proportional to p(y) prod_m p(y | x_m) / p(y). In
natural parameters a product is a sum, so each modality contributes an evidence vector `eta_m` [K], a coalition sums its
members' vectors, and the log-partition function of the sum says how well the members agree (section "recognise" of
`dream.py`). This holds for every task, with its own conjugate family:

  multiclass  categorical, K = C, eta = log p(y | x_m) - log p(y)
  binary, multilabel  independent Bernoulli, K = C
  regression  Gaussian with a standard-normal prior (targets are standardised), K = 2: precision times mean, precision
"""

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.spec import DatasetSpec


def num_natural(spec: DatasetSpec) -> int:
  """K, the number of natural parameters of the task."""
  return 2 if spec.task == 'regression' else spec.num_outputs


def from_raw(spec: DatasetSpec, raw: jax.Array) -> jax.Array:
  """Evidence [..., K] from unconstrained numbers [..., K]: a Gaussian's precision is made non-negative."""
  if spec.task != 'regression':
    return raw
  precision = jax.nn.softplus(raw[..., 1:])
  return jnp.concatenate([raw[..., :1] * precision, precision], axis=-1)


def log_partition(spec: DatasetSpec, prior: jax.Array, eta: jax.Array) -> jax.Array:
  """log sum_y p(y) exp(eta . T(y)), [...]: the log evidence of a coalition that shares one target.

  Args:
    spec: names the task.
    prior: [K] natural parameters of p(y); unused for regression, whose prior is standard normal.
    eta: [..., K] summed evidence.
  """
  if spec.task == 'multiclass':
    prior = jnp.broadcast_to(prior, eta.shape)
    return jax.nn.logsumexp(prior + eta, axis=-1) - jax.nn.logsumexp(prior, axis=-1)
  if spec.task == 'regression':
    precision = 1.0 + eta[..., 1]
    return 0.5 * jnp.square(eta[..., 0]) / precision - 0.5 * jnp.log(precision)
  prior = jnp.broadcast_to(prior, eta.shape)
  return (jax.nn.softplus(prior + eta) - jax.nn.softplus(prior)).sum(-1)


def predict(spec: DatasetSpec, prior: jax.Array, eta: jax.Array) -> jax.Array:
  """Prediction [..., C] of summed evidence [..., K]: log-probabilities, logits or a mean."""
  if spec.task == 'multiclass':
    return jax.nn.log_softmax(jnp.broadcast_to(prior, eta.shape) + eta, axis=-1)
  if spec.task == 'regression':
    return eta[..., :1] / (1.0 + eta[..., 1:])
  return jnp.broadcast_to(prior, eta.shape) + eta


def mixture(spec: DatasetSpec, log_weight: jax.Array, prediction: jax.Array) -> jax.Array:
  """Prediction [..., C] of a mixture of predictions [..., G, C] with log weights [..., G] that sum to one."""
  if spec.task == 'multiclass':
    return jax.nn.logsumexp(log_weight[..., None] + jax.nn.log_softmax(prediction, axis=-1), axis=-2)
  if spec.task == 'regression':
    return (jnp.exp(log_weight)[..., None] * prediction).sum(-2)
  positive = jax.nn.logsumexp(log_weight[..., None] + jax.nn.log_sigmoid(prediction), axis=-2)
  negative = jax.nn.logsumexp(log_weight[..., None] + jax.nn.log_sigmoid(-prediction), axis=-2)
  return positive - negative


def mixture_variance(log_weight: jax.Array, prediction: jax.Array, eta: jax.Array) -> jax.Array:
  """Variance [..., 1] of a mixture of Gaussians, for regression.

  Args:
    log_weight: [..., G], sum to one.
    prediction: [..., G, 1] means.
    eta: [..., G, 2] summed evidence, read for precisions.
  """
  weight = jnp.exp(log_weight)[..., None]
  mean = (weight * prediction).sum(-2, keepdims=True)
  return (weight * (1.0 / (1.0 + eta[..., 1:]) + jnp.square(prediction - mean))).sum(-2)


def score(spec: DatasetSpec, prediction: jax.Array, label: jax.Array) -> jax.Array:
  """How good a prediction is, [...]: log-likelihood of the label, or minus the Huber distance for regression.

  Args:
    spec: names the task.
    prediction: [..., C].
    label: int or float [...] ([..., C] for multilabel), broadcast against the prediction's leading axes by the caller.
  """
  if spec.task == 'multiclass':
    logp = jax.nn.log_softmax(prediction, axis=-1)
    return jnp.take_along_axis(logp, label[..., None].astype(jnp.int32), axis=-1)[..., 0]
  if spec.task == 'regression':
    error = jnp.abs(prediction[..., 0] - label)
    return -jnp.where(error < 0.5, jnp.square(error), error - 0.25)
  label = label if spec.task == 'multilabel' else label[..., None]
  label = label.astype(prediction.dtype)
  return (label * jax.nn.log_sigmoid(prediction) + (1.0 - label) * jax.nn.log_sigmoid(-prediction)).sum(-1)


def log_likelihood(spec: DatasetSpec, prior: jax.Array, eta: jax.Array, label: jax.Array) -> jax.Array:
  """log p(label) under summed evidence [..., K], up to a constant: what makes evidence mean what it says, [...].

  For regression the Gaussian's own density, so that precision is learned too; `score` otherwise.
  """
  if spec.task != 'regression':
    return score(spec, predict(spec, prior, eta), label)
  precision = 1.0 + eta[..., 1]
  return 0.5 * jnp.log(precision) - 0.5 * precision * jnp.square(label - eta[..., 0] / precision)


def expected_likelihood(
  spec: DatasetSpec, belief: jax.Array, variance: jax.Array | None, prediction: jax.Array
) -> jax.Array:
  """The probability that `prediction` gives to the target, in (0, 1], expected over what is believed of the target.

  For regression exp(-Huber distance) as in `score`, over five points of a Gaussian; labels of multilabel are taken as
  independent.

  Args:
    spec: names the task.
    belief: [..., C] a prediction of the target.
    variance: [..., 1] of that belief, for regression; None otherwise.
    prediction: [..., C], of the same leading axes.
  """
  if spec.task == 'multiclass':
    return jnp.exp(jax.nn.log_softmax(belief, axis=-1) + jax.nn.log_softmax(prediction, axis=-1)).sum(-1)
  if spec.task == 'regression':
    points, weights = np.polynomial.hermite_e.hermegauss(5)
    points, weights = (x.reshape((1,) * (belief.ndim - 1) + (-1,)) for x in (points, weights / weights.sum()))
    assert variance is not None
    target = belief + points * jnp.sqrt(variance)
    return (weights * jnp.exp(score(spec, prediction[..., None, :], target))).sum(-1)
  p, q = jax.nn.sigmoid(belief), jax.nn.sigmoid(prediction)
  return (p * q + (1.0 - p) * (1.0 - q)).prod(-1)


def certainty(spec: DatasetSpec, prediction: jax.Array, eta: jax.Array) -> jax.Array:
  """How sure a prediction is, [...]: 1 minus its entropy over the largest possible one, 0 knows nothing.

  For regression half the log of the precision, which is what the Gaussian's entropy lost against its prior.

  Args:
    spec: names the task.
    prediction: [..., C], read for classification.
    eta: [..., K] summed evidence, read for regression.
  """
  if spec.task == 'regression':
    return 0.5 * jnp.log1p(eta[..., 1])
  if spec.task == 'multiclass':
    logp = jax.nn.log_softmax(prediction, axis=-1)
    return 1.0 + (jnp.exp(logp) * logp).sum(-1) / jnp.log(float(spec.num_outputs))
  p = jax.nn.sigmoid(prediction)
  bits = p * jax.nn.log_sigmoid(prediction) + (1.0 - p) * jax.nn.log_sigmoid(-prediction)
  return 1.0 + bits.mean(-1) / jnp.log(2.0)
