"""LNLN, P-RMF and the HME-style method compute what they say, of proxies and of how sure a modality is of itself."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from baseline_cases import (
  CLOSE,
  EVERY_TASK,
  KEPT,
  NAMES,
  SEED,
  B,
  Case,
  D,
  cross_entropy,
  dense,
  draw_key,
  finite,
  inputs_of,
  label_of,
  mlp,
  reached,
  reaches,
  sigmoid,
  softmax,
  steps,
  with_and_without,
)
from small_runs import small_spec

from dream_jax.models.baselines.hme import Hme
from dream_jax.models.baselines.lnln import Lnln, dominant_index
from dream_jax.models.baselines.p_rmf import Prmf, kl_from_normal, variational
from dream_jax.models.outputs import Outputs

# Weights that are not the default ones; a leader that is neither the first nor the one found by itself.
_OPTIONS = {
  Lnln: {'dominant': 'face', 'completeness': 0.7, 'adversary': 0.6, 'reconstruction': 0.3},
  Prmf: {'kl': 0.2, 'reconstruction': 1.5},
  Hme: {'unimodal': 0.4, 'beta': 0.2},
}
_LEAD, _OTHERS = 1, [0, 2]


class _Results(NamedTuple):
  """What one call of a method without dropout gives on a batch.

  Attributes:
    outputs: of the batch's inputs, of prediction.
    inside: what `trace` says beside them.
    truth: latents of the complete inputs.
    terms: of the loss, of training.
    jacobian: {term: its gradient by the parameters}.
    slope: {term: its gradient by the complete content of one modality}.
  """

  outputs: Outputs
  inside: list
  truth: jax.Array
  terms: dict
  jacobian: dict
  slope: dict


class _Case(Case):
  """LNLN, P-RMF or HME."""

  def everything(self, params, batch):
    variables = {'params': params}
    outputs, *inside = self.model.apply(variables, batch['inputs'], train=False, method='trace')
    truth = self.model.apply(variables, batch['clean']).latents
    return _Results(outputs, inside, truth, *self.taught(params, batch))

  @functools.cached_property
  def noise(self):
    """What training draws, [B, M, D]."""
    return np.asarray(jax.random.normal(draw_key(self.model, jax.random.key(SEED)), (B, len(NAMES), D)))


@functools.cache
def _case(module):
  return _Case(module, _OPTIONS[module])


# What the three share.


@pytest.mark.parametrize('module', [Lnln, Prmf, Hme])
def test_every_term_is_finite_with_nothing_there(module):
  c = _case(module)
  for inputs, clean in with_and_without(c.spec):
    r = c.run(inputs=inputs, clean=clean)
    assert finite(r)
    assert all(reaches(gradient) for gradient in r.jacobian.values())


@EVERY_TASK
@pytest.mark.parametrize('module', [Lnln, Prmf, Hme])
def test_every_task_trains(module, task):
  for result in steps(module, task, _OPTIONS[module]):
    assert finite(result)
    assert reaches(result[1])


@pytest.mark.parametrize('module', [Lnln, Prmf])
def test_what_is_to_be_rebuilt_is_a_fixed_target_of_the_reconstruction_alone(module):
  c = _case(module)
  before, after = c.run(), c.run(clean=inputs_of(c.spec, seed=4))
  assert {name for name in before.terms if before.terms[name] != after.terms[name]} == {'reconstruction'}
  assert not reaches(before.slope)


def test_weights_are_the_default_ones():
  spec = small_spec()
  assert (Lnln(spec).completeness, Lnln(spec).adversary, Lnln(spec).reconstruction) == (0.9, 0.8, 0.1)  # published
  assert (Prmf(spec).layers, Prmf(spec).kl, Prmf(spec).reconstruction) == (2, 0.01, 1.0)
  assert (Hme(spec).low, Hme(spec).high, Hme(spec).unimodal, Hme(spec).beta) == (0.2, 5.0, 0.3, 0.01)


def _attend(p, y, query, keys):
  """What queries [B, D] find in keys [B, K, D], added to `y`, one sample at a time."""
  result = []
  for i in range(len(y)):
    weight = softmax(dense(p['key'], keys[i]) @ dense(p['query'], query[i]) / np.sqrt(y.shape[1]))
    result.append(y[i] + weight @ dense(p['value'], keys[i]))
  return np.stack(result)


# LNLN.


class _Led(NamedTuple):
  """What LNLN makes of latents, by the paper's equations."""

  logit: np.ndarray
  proxy: np.ndarray
  told: np.ndarray
  prediction: np.ndarray
  rebuilt: np.ndarray


def _led(p, z):
  lead, others = z[:, _LEAD], z[:, _OTHERS]
  logit = mlp(p['complete'], lead)
  proxy = mlp(p['proxy'], others.reshape(B, -1))
  h = sigmoid(logit) * lead + (1 - sigmoid(logit)) * proxy
  y = _attend(p['guided_1'], _attend(p['guided_0'], h, h, others), h, others)
  told = np.concatenate([mlp(p['critic'], proxy), mlp(p['critic'], lead)], 1)
  rebuilt = np.stack([mlp(p['rebuild'], z[:, m], m) for m in range(3)], 1)
  return _Led(logit[:, 0], proxy, told, mlp(p['head'], np.concatenate([h, y], 1)), rebuilt)


def test_lnln_lets_a_proxy_stand_in_for_what_the_leader_lacks():
  c = _case(Lnln)
  r = c.run()
  expected = _led(c.params, np.asarray(r.outputs.latents))
  for found, wanted in zip(r.inside, expected[:3], strict=True):
    np.testing.assert_allclose(found, wanted, **CLOSE)
  np.testing.assert_allclose(r.outputs.prediction, expected.prediction, **CLOSE)
  np.testing.assert_allclose(r.outputs.reconstructions, expected.rebuilt, **CLOSE)


def test_lnln_learns_the_share_of_the_leader_that_was_left():
  c = _case(Lnln)
  kept = KEPT.copy()
  kept[:, _LEAD] = 0.0, 0.25, 1.0, 0.5
  r = c.run(kept=kept)
  made = _led(c.params, np.asarray(r.outputs.latents))
  np.testing.assert_allclose(r.terms['task'], cross_entropy(made.prediction, label_of(c.spec)).mean(), rtol=1e-4)
  completeness = 0.7 * np.square(sigmoid(made.logit) - kept[:, _LEAD]).mean()
  np.testing.assert_allclose(r.terms['completeness'], completeness, rtol=1e-4)
  reconstruction = 0.3 * np.square(made.rebuilt - r.truth).mean()
  np.testing.assert_allclose(r.terms['reconstruction'], reconstruction, rtol=1e-4)
  # Each a half: that proxies are told from the leader, and the leader, as far as it is there, from proxies.
  proxy, lead = made.told.T
  told = -np.log(1 - sigmoid(proxy)) - kept[:, _LEAD] * np.log(sigmoid(lead))
  np.testing.assert_allclose(r.terms['adversary'], 0.6 * told.mean() / 2, rtol=1e-4)


def test_the_gradient_of_the_adversary_is_reversed_on_its_way_to_the_proxy_and_not_to_the_critic():
  c = _case(Lnln)
  r, p = c.run(), c.params['critic']
  made = _led(c.params, np.asarray(r.outputs.latents))
  hidden = dense(p['in'], made.proxy)
  # By what the critic says of a proxy, and of a leader that is there.
  of_proxy, of_lead = 0.3 / B * sigmoid(made.told[:, 0]), -0.3 / B * KEPT[:, _LEAD] * sigmoid(-made.told[:, 1])
  bias = (of_proxy + of_lead).sum()
  np.testing.assert_allclose(r.jacobian['adversary']['critic']['out']['bias'], [bias], rtol=1e-4)
  bent = np.asarray(jax.vmap(jax.vmap(jax.grad(jax.nn.gelu)))(hidden))
  by_proxy = of_proxy[:, None] * ((bent * p['out']['kernel'][:, 0]) @ p['in']['kernel'].T)
  assert np.abs(by_proxy.sum(0)).min() > 1e-5
  np.testing.assert_allclose(r.jacobian['adversary']['proxy']['out']['bias'], -by_proxy.sum(0), rtol=1e-3, atol=1e-6)


def test_each_term_of_lnln_teaches_its_own_part():
  jacobian = _case(Lnln).run().jacobian
  parts = reached(jacobian)
  assert parts['task'] == {'encoders', 'complete', 'proxy', 'guided_0', 'guided_1', 'head'}
  assert parts['completeness'] == {'encoders', 'complete'}
  assert parts['adversary'] == {'encoders', 'proxy', 'critic'}
  assert parts['reconstruction'] == {'encoders', 'rebuild'}
  encoders = reached({term: gradient['encoders'] for term, gradient in jacobian.items()})
  assert encoders['completeness'] == {'face'}
  assert encoders['adversary'] == {'text', 'pose'}
  assert encoders['task'] == encoders['reconstruction'] == set(NAMES)


def test_language_leads_unless_another_modality_is_named():
  spec = small_spec(names=('face', 'audio', 'text', 'pose'))
  assert spec.names == ('audio', 'text', 'face', 'pose')
  assert dominant_index(Lnln(spec)) == 1
  assert dominant_index(Lnln(spec, dominant='pose')) == 3
  without = small_spec(names=('audio', 'face', 'pose'))
  assert dominant_index(Lnln(without)) == 0
  # Language that came as vectors is known by its name.
  *rest, last = without.modalities
  named = dataclasses.replace(without, modalities=(*rest, dataclasses.replace(last, name='text')))
  assert dominant_index(Lnln(named)) == 2


# P-RMF and HME: what is uncertain.


def _posterior(p, z):
  """(mean, log variance) [B, M, D] of latents, the latter bounded."""
  raw = np.stack([dense(p['posterior'], z[:, m], m) for m in range(3)], 1)
  return raw[..., :D], 6 * np.tanh(raw[..., D:] / 6)


def _kl(mu, log_variance):
  return (np.exp(log_variance) + mu**2 - 1 - log_variance).mean() / 2


def _less_sure(params, of, by=1.0):
  """The parameters, the log variance of one modality raised."""
  bias = params['posterior']['bias'].copy()
  bias[of, D:] += by
  return {**params, 'posterior': {**params['posterior'], 'bias': bias}}


def test_the_divergence_is_that_of_two_densities():
  x = np.linspace(-40, 40, 400001)

  def log_density(mu, log_variance):
    return -0.5 * (np.log(2 * np.pi) + log_variance + (x - mu) ** 2 / np.exp(log_variance))

  mu, log_variance = np.array([0.0, 1.5, -0.7], np.float32), np.array([0.0, -2.0, 1.2], np.float32)
  expected = []
  for m, v in zip(mu.astype(float), log_variance.astype(float), strict=True):
    log_q = log_density(m, v)
    expected.append((np.exp(log_q) * (log_q - log_density(0, 0))).sum() * (x[1] - x[0]))
  np.testing.assert_allclose(kl_from_normal(mu, log_variance), np.mean(expected), rtol=1e-5)


def test_no_variance_is_too_large_for_an_exponential():
  raw = np.array([[3.0, -2.0, 1e9, -1e9], [-4.0, 5.0, 0.1, -0.2]], np.float32)
  mu, log_variance = variational(jnp.asarray(raw))
  np.testing.assert_array_equal(mu, raw[:, :2])
  np.testing.assert_allclose(log_variance, [[6, -6], [0.1, -0.2]], rtol=1e-3)


def _proxied(p, mu, log_variance, drawn):
  """(shares, prediction, rebuilt latents) of P-RMF by the paper's equations."""
  share = softmax(-log_variance.mean(-1))
  proxy = (share[..., None] * drawn).sum(1)
  for layer in (p['injections_0'], p['injections_1']):
    proxy = _attend(layer, proxy, proxy, drawn)
  rebuilt = np.stack([mlp(p['decoder'], drawn[:, m], m) for m in range(3)], 1)
  return share, mlp(p['head'], np.concatenate([proxy, drawn.mean(1)], 1)), rebuilt


def test_p_rmf_predicts_from_a_proxy_of_the_means_with_shares_of_how_certain_they_are():
  c = _case(Prmf)
  r = c.run()
  mu, log_variance = _posterior(c.params, np.asarray(r.outputs.latents))
  np.testing.assert_allclose(r.inside[0], mu, **CLOSE)
  np.testing.assert_allclose(r.inside[1], log_variance, **CLOSE)
  share, prediction, rebuilt = _proxied(c.params, mu, log_variance, mu)
  np.testing.assert_allclose(r.outputs.contributions, 3 * share, **CLOSE)
  np.testing.assert_allclose(r.outputs.prediction, prediction, **CLOSE)
  np.testing.assert_allclose(r.outputs.reconstructions, rebuilt, **CLOSE)


def test_p_rmf_trains_on_draws():
  c = _case(Prmf)
  r = c.run()
  mu, log_variance = _posterior(c.params, np.asarray(r.outputs.latents))
  drawn = mu + np.exp(log_variance / 2) * c.noise
  _, prediction, rebuilt = _proxied(c.params, mu, log_variance, drawn)
  np.testing.assert_allclose(r.terms['task'], cross_entropy(prediction, label_of(c.spec)).mean(), rtol=1e-4)
  np.testing.assert_allclose(r.terms['kl'], 0.2 * _kl(mu, log_variance), rtol=1e-4)
  np.testing.assert_allclose(r.terms['reconstruction'], 1.5 * np.square(rebuilt - r.truth).mean(), rtol=1e-4)


def test_each_term_of_p_rmf_teaches_its_own_part():
  parts = reached(_case(Prmf).run().jacobian)
  assert parts['task'] == {'encoders', 'posterior', 'injections_0', 'injections_1', 'head'}
  assert parts['kl'] == {'encoders', 'posterior'}
  assert parts['reconstruction'] == {'encoders', 'posterior', 'decoder'}


@pytest.mark.parametrize('module', [Prmf, Hme])
def test_a_modality_counts_for_less_the_less_sure_it_is(module):
  c = _case(module)
  before = np.asarray(c.run().outputs.contributions)
  np.testing.assert_allclose(before.sum(1), 3, rtol=1e-5)
  for m in range(3):
    change = np.asarray(c.run(_less_sure(c.params, m)).outputs.contributions) - before
    assert (change[:, m] < 0).all()
    assert (np.delete(change, m, 1) > 0).all()


def _weighed(p, log_variance, h):
  """(shares, prediction, predictions of single modalities) of HME by the paper's equations."""
  zeta = 1 / (np.exp(log_variance / 2).mean(-1) + 1e-6)
  share = softmax(np.minimum(np.maximum(zeta, 0.2), 5))
  unimodal = np.stack([dense(p['heads'], h[:, m], m) for m in range(3)], 1)
  return share, mlp(p['head'], (share[..., None] * h).sum(1)), unimodal


def test_hme_weighs_means_by_how_certain_they_are():
  c = _case(Hme)
  r = c.run()
  mu, log_variance = _posterior(c.params, np.asarray(r.outputs.latents))
  share, prediction, unimodal = _weighed(c.params, log_variance, mu)
  np.testing.assert_allclose(r.outputs.contributions, 3 * share, **CLOSE)
  np.testing.assert_allclose(r.outputs.prediction, prediction, **CLOSE)
  np.testing.assert_allclose(r.outputs.unimodal_predictions, unimodal, **CLOSE)


def test_hme_trains_on_draws():
  c = _case(Hme)
  r = c.run()
  mu, log_variance = _posterior(c.params, np.asarray(r.outputs.latents))
  _, prediction, unimodal = _weighed(c.params, log_variance, mu + np.exp(log_variance / 2) * c.noise)
  label = label_of(c.spec)
  np.testing.assert_allclose(r.terms['task'], cross_entropy(prediction, label).mean(), rtol=1e-4)
  alone = sum(cross_entropy(unimodal[:, m], label).mean() for m in range(3))
  np.testing.assert_allclose(r.terms['unimodal'], 0.4 * alone, rtol=1e-4)
  np.testing.assert_allclose(r.terms['kl'], 0.2 * _kl(mu, log_variance), rtol=1e-4)


def test_hme_trusts_nobody_without_bounds():
  c = _case(Hme)
  # Standard deviations near exp(-3), 1 and exp(3).
  params = _less_sure(_less_sure(c.params, of=0, by=-100.0), of=2, by=100.0)
  r = c.run(params)
  _, log_variance = _posterior(params, np.asarray(r.outputs.latents))
  zeta = 1 / np.exp(log_variance / 2).mean(-1)
  assert zeta[:, 0].min() > 19
  assert zeta[:, 2].max() < 0.051
  between = np.stack([np.full(B, 5), zeta[:, 1], np.full(B, 0.2)], 1)
  np.testing.assert_allclose(r.outputs.contributions, 3 * softmax(between), rtol=1e-4)


def test_each_term_of_hme_teaches_its_own_part():
  parts = reached(_case(Hme).run().jacobian)
  assert parts['task'] == {'encoders', 'posterior', 'head'}
  assert parts['unimodal'] == {'encoders', 'posterior', 'heads'}
  assert parts['kl'] == {'encoders', 'posterior'}


def test_hme_needs_nothing_but_the_label():
  c = _case(Hme)
  other = c.run(kept=1 - KEPT, clean=inputs_of(c.spec, seed=4))
  assert other.terms == c.run().terms
  assert c.run(label=(label_of(c.spec) + 1) % 3).terms['task'] != other.terms['task']
